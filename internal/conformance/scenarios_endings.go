package conformance

import (
	"fmt"

	"distmsg/codec"
)

// Scenarios about how a connection ends, and what a client does then.
var endingScenarios = []Scenario{
	{
		Name:   "reset",
		About:  "the connection is reset with sends in flight. They end lost, are not sent again, and the session continues.",
		script: resets,
	},
	{
		Name:   "fenced",
		About:  "errors that end a connection and not the session: fenced, slow_consumer, bad_value. The client resumes and binds nothing again.",
		script: fenced,
	},
	{
		Name:   "not-resumed",
		About:  "the node knows the session no longer and makes a new one. The client asserts all IDs under their exact epochs, and sends from none before that.",
		script: notResumed,
	},
	{
		Name:   "session-ended",
		About:  "the node says session_ended. The client forgets session and secret, starts a new session, and asserts its IDs.",
		script: sessionEnded,
	},
	{
		Name:   "resume-refused",
		About:  "the node refuses the secret. The client forgets session and secret, starts a new session at once, and asserts its IDs.",
		script: resumeRefused,
	},
	{
		Name:   "unauthenticated",
		About:  "the node refuses the first hello as unauthenticated. The client gives up.",
		script: func(p *play) { refusedForGood(p, codec.FaultUnauthenticated) },
	},
	{
		Name:   "bad-version",
		About:  "the node refuses the first hello as bad_version. The client gives up.",
		script: func(p *play) { refusedForGood(p, codec.FaultBadVersion) },
	},
	{
		Name:   "replaced",
		About:  "the node says replaced. The client does not reconnect that connection.",
		script: replaced,
	},
	{
		Name:   "closed-after-welcome",
		About:  "every connection ends right after welcome. The client retries with growing pauses, and connects when that is over.",
		script: closedAfterWelcome,
	},
	{
		Name:   "refused-for-a-while",
		About:  "every hello is answered going_away. The client retries with growing pauses, and connects when that is over.",
		script: refusedForAWhile,
	},
}

func resets(p *play) {
	c := p.firstToReset()
	p.onSend = func(*send) {}
	p.instruct(c, "%s carol 3 5", doSend)
	p.until(c, secMessages, "the client sends what the application asks for", func() bool { return len(p.messages.sent) == 3 })
	before := len(p.conns)
	p.reset(c)
	p.onSend = func(s *send) {
		p.blame(s.conn, secEnding, "a client never sends a message again by itself", fmt.Sprintf("another send of %q", s.Payload), s.frame)
	}
	c = p.again(before, secReconnect, "the client connects again")
	p.resumes(c)
	p.reports.outcomes(secEnding, "a send that was written when its connection ended is lost", "carol", 3, "lost", "unknown")
	p.during(settle)
	p.onSend = nil
	p.works(c, secReconnect, "after a reset")
}

func fenced(p *play) {
	c := p.first()
	for _, fault := range []codec.Fault{codec.FaultFenced, codec.FaultSlowConsumer, codec.FaultBadValue} {
		before := len(p.conns)
		p.fault(c, fault)
		p.until(c, secReconnect, "the client closes after an error with bit 0", func() bool { return c.ended })
		c = p.again(before, secReconnect, fmt.Sprintf("the client connects again after %v", fault))
		p.resumes(c)
		p.works(c, secReconnect, "after "+fault.String())
		p.during(settle / 3) // a bind of an ID that is still bound is a fault when it arrives
	}
}

func notResumed(p *play) {
	c := p.firstToReset()
	p.noResume = true
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "the client connects again")
	p.reasserted(c)
	p.works(c, secReconnect, "after its re-assert")
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secReconnect, "the client sends again", "carol", 1, "acked", "yes")
}

func sessionEnded(p *play) {
	c := p.first()
	before := len(p.conns)
	c.session.over, c.session.said = true, true
	p.fault(c, codec.FaultSessionEnded)
	c = p.again(before, secReconnect, "the client connects again after session_ended")
	p.reasserted(c)
	p.works(c, secReconnect, "after session_ended")
}

func resumeRefused(p *play) {
	c := p.firstToReset()
	p.greet = func(c *conn) {
		if c.session == nil {
			p.welcome(c)
			return
		}
		c.session.over, c.session.said = true, true
		p.fault(c, codec.FaultUnauthenticated)
	}
	before := len(p.conns)
	p.reset(c)
	c = p.again(before, secReconnect, "a client whose session is refused as unauthenticated asks for a new one")
	p.reasserted(c)
	p.works(c, secReconnect, "after a secret that was refused")
}

func refusedForGood(p *play, fault codec.Fault) {
	p.mayExit = true
	p.greet = func(c *conn) { p.fault(c, fault) }
	p.arrives(func() bool { return len(p.conns) > 0 && p.conns[0].told })
	p.givesUp(fault)
}

// givesUp checks that the client does not connect again.
func (p *play) givesUp(fault codec.Fault) {
	before := len(p.conns)
	p.during(2 * settle)
	if len(p.conns) > before {
		p.blame(p.latest(), secReconnect, fmt.Sprintf("the client does not connect again after %v", fault), "another connection", nil)
	}
}

func replaced(p *play) {
	c := p.first()
	p.mayExit = true
	p.fault(c, codec.FaultReplaced)
	p.until(c, secReconnect, "the client closes after an error with bit 0", func() bool { return c.ended })
	p.givesUp(codec.FaultReplaced)
}

func closedAfterWelcome(p *play) {
	c := p.firstToReset()
	p.greet = func(c *conn) {
		p.welcome(c)
		p.hangUp(c)
	}
	p.reset(c)
	p.noStorm("every connection ends right after welcome")
	p.recovers()
}

func refusedForAWhile(p *play) {
	c := p.first()
	p.greet = func(c *conn) { p.fault(c, codec.FaultGoingAway) }
	p.fault(c, codec.FaultGoingAway)
	p.noStorm("every hello is answered going_away")
	p.recovers()
}

// recovers admits the client again.
func (p *play) recovers() {
	p.greet = nil
	before := len(p.conns)
	c := p.again(before, secReconnect, "the client connects when the node accepts it again")
	p.resumes(c)
	p.works(c, secReconnect, "after many attempts")
}
