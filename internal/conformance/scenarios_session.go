package conformance

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"distmsg/codec"
)

// Scenarios about how a connection begins, what welcome announces, and how both sides check that
// the other lives.
var sessionScenarios = []Scenario{
	{
		Name:   "hello",
		About:  "welcome comes late. The client sends hello as the document has it, and nothing else before welcome.",
		script: helloFirst,
	},
	{
		Name:   "limits",
		About:  "welcome announces small limits. The client respects max_ids, and ends a payload over max_payload itself, as too_large.",
		limits: func(l *codec.Limits) { l.MaxIDs, l.MaxPayload, l.MaxFrame = 2, 200, 200+codec.FrameOverhead },
		script: smallLimits,
	},
	{
		Name:   "ten-limits",
		About:  "welcome has only the ten limits of the first version. The client reads the missing ones as 0, and sends no multicast.",
		limits: func(l *codec.Limits) { l.MaxMulticast, l.MaxWatched = 0, 0 },
		script: tenLimits,
	},
	{
		Name:   "ping",
		About:  "the node pings, also in the middle of messages. The client answers with the nonce of each.",
		script: pings,
	},
	{
		Name:   "promise",
		About:  "the client has promised heartbeats in hello, and sends them while the node sends all the time. For clients that promise them.",
		limits: func(l *codec.Limits) { l.Heartbeat, l.IdleTimeout = 1000, 3000 },
		script: promise,
	},
	{
		Name:   "half-open",
		About:  "the node falls silent and the connection stays. The client pings after heartbeat, gives up after idle_timeout, and resumes.",
		limits: func(l *codec.Limits) { l.Heartbeat, l.IdleTimeout = 500, 1500 },
		script: halfOpen,
	},
	{
		Name:   "reads-while-writing",
		About:  "the node delivers 6 MiB and does not read until then. The client reads on, and answers each message once.",
		script: readsWhileWriting,
	},
}

func helloFirst(p *play) {
	var waiting *conn
	p.greet = func(c *conn) { waiting = c }
	p.arrives(func() bool { return waiting != nil })
	p.during(settle)
	p.greet = nil
	p.welcome(waiting)
	c := p.bound()
	p.works(c, secLife, "after welcome")
	p.instruct(c, "%s carol 1 5", doSend)
	p.reports.outcomes(secMessages, "the send was acked", "carol", 1, "acked", "yes")
}

func smallLimits(p *play) {
	c := p.first()
	p.instruct(c, "%s carol 1 200", doSend)
	p.reports.outcomes(secLimits, "a payload of exactly max_payload is sent", "carol", 1, "acked", "yes")
	p.instruct(c, "%s dave 1 201", doSend)
	p.reports.outcomes(secPolite, "a payload over max_payload ends too_large", "dave", 1, "too_large", "no")
}

func tenLimits(p *play) {
	p.dress = func(frame []byte) []byte {
		if kind, _ := codec.PeekKind(frame[codec.PrefixLen:]); kind == codec.KindWelcome {
			return withTenLimits(frame)
		}
		return frame
	}
	c := p.first()
	p.reports.mayRefuse = true
	p.instruct(c, "%s carol dave", doMulticast)
	refused, sent := saysCannot+" "+doMulticast, saysOutcome+" carol 1 acked yes"
	if p.reports.toldOne(secMulticast, "the application hears that this node has no multicast, or the client sends to each", refused, sent) == 1 {
		p.reports.told(secMulticast, "the client sends to each", saysOutcome+" dave 2 acked yes")
	}
	p.works(c, secLimits, "after a welcome with ten limits")
}

// withTenLimits removes the last two limits from a welcome in which they are 0.
func withTenLimits(frame []byte) []byte {
	var w codec.Welcome
	if err := codec.DecodeWelcome(frame[codec.PrefixLen:], &w); err != nil {
		panic(err) // our own frame
	}
	at := bytes.Index(frame, w.Secret) + len(w.Secret) + 1
	end := at + 1
	for range 10 {
		end++
		if head := frame[end-1]; head >= 0xcc {
			end += 1 << (head - 0xcc)
		}
	}
	body := append(append([]byte(nil), frame[codec.PrefixLen:at]...), 0x9a)
	body = append(body, frame[at+1:end]...)
	return raw(append(body, frame[end+2:]...)...)
}

func pings(p *play) {
	c := p.first()
	for _, nonce := range []uint64{0, 42, 1 << 32, 1<<53 - 1} {
		p.ping(c, nonce)
	}
	for range 100 {
		p.messages.deliver(c, codec.Deliver{To: []byte(Alice), Payload: []byte("one of many")})
	}
	p.ping(c, 43)
}

func promise(p *play) {
	c := p.first()
	if c.hello.Heartbeat == 0 {
		p.end(Skip, "the client promises no heartbeats")
	}
	idle := time.Duration(c.limits.IdleTimeout) * time.Millisecond
	for until := time.Now().Add(idle + time.Second); time.Now().Before(until); {
		p.put(c, codec.AppendCredit(nil, c.credit))
		p.during(100 * time.Millisecond)
		if time.Since(c.heard) > idle {
			p.blame(c, secHeart, fmt.Sprintf("the client, which has promised it, sends something within each heartbeat, %d ms, also while it hears from the node", c.limits.Heartbeat), "nothing came for "+idle.String(), nil)
		}
	}
}

func halfOpen(p *play) {
	c := p.first()
	c.mute = true
	before, pinged := len(p.conns), c.pinged
	heartbeat := time.Duration(p.limits.Heartbeat) * time.Millisecond
	idle := time.Duration(p.limits.IdleTimeout) * time.Millisecond
	p.untilIn(heartbeat+p.patience, c, secHeart, fmt.Sprintf("the client pings when nothing has come for heartbeat, %v", heartbeat), func() bool { return c.pinged > pinged })
	p.untilIn(idle+p.patience, c, secHeart, fmt.Sprintf("the client gives up when nothing has come for idle_timeout, %v, and connects again", idle), func() bool {
		return len(p.conns) > before && p.latest().greeted
	})
	next := p.latest()
	if next.session != c.session {
		p.blame(next, secReconnect, "the client resumes its session", "a hello without session", nil)
	}
	if next.hello.Flags&codec.HelloReplace == 0 {
		p.blame(next, secReconnect, "hello has replace set: the node may not have noticed that the old connection is gone", "flags 0", nil)
	}
	p.until(c, secHeart, "the client closes the dead connection", func() bool { return c.ended })
	p.works(p.again(before, secReconnect, "the client resumes"), secReconnect, "after a silent node")
}

func readsWhileWriting(p *play) {
	c := p.first()
	payload := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	c.smallBuffer()
	<-c.gate
	readAgain := sync.OnceFunc(func() { c.gate <- struct{}{} })
	defer readAgain() // also when a verdict ends the goroutine
	var all []*delivery
	for range 100 {
		all = append(all, p.messages.deliver(c, codec.Deliver{To: []byte(Bob), Payload: payload}))
	}
	readAgain()
	for _, d := range all {
		p.messages.acked(d, secPolite, "the client acks all that was delivered while its own writing was blocked")
	}
}
