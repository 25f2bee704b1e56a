package engine

import (
	"testing"

	"distmsg/codec"
)

// A session comes from a node that is gone, while others send to its IDs: what they hear, "its
// session cannot be reached", is no word on whose the IDs are. What it sends itself is not denied.
func TestResumedSessionIsNotDenied(t *testing.T) {
	g, reg := parking(t, nil)
	n := g.nodes[0]
	a, other, there := n.join("a"), n.join("other"), g.nodes[1].join("x")
	n.eventually("its session is attached", func() bool { return n.dir.Probe().Attached(there.sessionID()) })
	there.nc.Close()
	s := n.cluster.remote.Session(there.sessionID())
	n.eventually("its session is detached", func() bool { return len(s.Handles()) == 0 })

	reg.presences.shut()
	other.post("other", "x", "hi", 0)
	n.eventually("the registry is asked for the session of x", reg.presences.waits)
	here := n.dial()
	if w := here.hello(there.resume()); w.Flags&codec.WelcomeResumed == 0 {
		t.Fatal("the session is not resumed")
	}
	one := here.send("x", "a", "one")
	two := here.multicast("x", "two", codec.FlagAck, "a")
	n.settleLoops()
	reg.presences.pass()
	a.ack(a.gets("x", "a", "one"), "")
	a.ack(a.gets("x", "a", "two"), "")
	got := make(map[uint64]codec.Code)
	for len(got) < 2 {
		if f := here.next(); f.kind != codec.KindDeliver { // else it is the message to x
			var o codec.Outcome
			here.decoded(codec.DecodeOutcome(f.body, &o))
			got[o.Seq] = o.Code
		}
	}
	if got[one] != codec.CodeAcked || got[two] != codec.CodeAcked {
		t.Errorf("%v", got)
	}
}

// A question that was under way when a session bound an ID elsewhere, and began to send from it
// here, says nobody. That is no word on the ID as it is: it is asked for again.
func TestOldWordOnASenderIsNotBelieved(t *testing.T) {
	g, reg := parking(t, nil)
	n := g.nodes[0]
	a, there, stranger := n.join("a"), g.nodes[1].join(), n.join()
	here := n.dial()
	here.hello(there.resume())

	reg.late.shut()
	refused := stranger.send("x", "a", "not mine")
	n.eventually("the registry is asked who holds x", reg.late.waits)
	there.bind("x")
	seq := here.send("x", "a", "mine")
	n.settleLoops()
	reg.late.pass()
	a.ack(a.gets("x", "a", "mine"), "")
	here.hears(seq, codec.CodeAcked)
	stranger.hears(refused, codec.CodeDenied)
	here.hears(here.send("nobody's", "a", "x"), codec.CodeDenied)
}

// If the registry does not answer who holds an ID, the node does not deny the sender.
func TestUnknownSenderIsNotDenied(t *testing.T) {
	long(t)
	t.Parallel()
	g, reg := parking(t, nil)
	n := g.nodes[0]
	there := g.nodes[1].join("x")
	here := n.dial()
	here.hello(there.resume())
	here.alive()
	reg.shut()
	here.hears(here.send("x", "x", "hi"), codec.CodeRegistryUnavailable)
	reg.pass()
}

// A question that fails is answered to those who have asked before it. Who has asked since has a
// question of their own.
func TestFailedQuestionIsNoAnswerToOthers(t *testing.T) {
	g, reg := parking(t, nil)
	n := g.nodes[0]
	a, first, second := n.join("a"), n.dial(), n.dial()
	first.hello(g.nodes[1].join("x").resume())
	second.hello(g.nodes[1].join("y").resume())
	reg.shut()
	failed := first.send("x", "a", "x")
	n.eventually("the registry is asked who holds x", reg.waits)
	seq := second.send("y", "a", "y")
	n.settleLoops()
	reg.refuse()
	first.hears(failed, codec.CodeRegistryUnavailable)
	n.eventually("the second is decided", func() bool {
		s := n.counters()
		return s.Pending == 1 || s.Outcomes[codec.CodeRegistryUnavailable] > 1
	})
	if n.counters().Outcomes[codec.CodeRegistryUnavailable] > 1 {
		t.Fatal("the second is refused, too")
	}
	a.ack(a.gets("y", "a", "y"), "")
	second.hears(seq, codec.CodeAcked)
}
