package engine

import (
	"context"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// at is where a session is attached, as the registry knows it.
func (g *group) at(id routing.SessionID) []routing.Presence {
	g.t.Helper()
	p, err := g.registry.Presence(context.Background(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return p.Nodes
}

// hurried starts nodes that ask sessions soon.
func hurried(t *testing.T, nodes, loops int) *group {
	return startGroupWith(t, nodes, loops, nil, func(e *Engine) {
		e.tune(func(c *directory.Config) { c.AskPause, c.AnswerTime = 300*time.Millisecond, time.Second })
	})
}

// A session that the registry has at a node, and that is not there, goes, and its IDs with it,
// whoever has read it.
func TestUntruePresence(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		sender, watcher := g.nodes[1].join("s"), g.nodes[0].join()
		for name, n := range map[string]*node{"here": g.nodes[0], "elsewhere": g.nodes[1]} {
			ghost := routing.NewSessionID()
			entry := routing.Presence{Node: n.cfg.NodeID, Incarnation: n.incarnation.Load(), Serial: 1}
			if err := g.registry.Attach(t.Context(), ghost, entry); err != nil {
				t.Fatal(err)
			}
			g.bindFor(name, ghost)
			if code := watcher.tryBind(codec.PolicyRejectNew, codec.IDEpoch{ID: []byte(name)})[0].Code; code != codec.CodeTaken {
				t.Errorf("%s: %v, want taken", name, code)
			}
			g.nodes[0].dir.Probe().HeardClaims([]routing.Claim{{Session: ghost, At: g.at(ghost)}})
			n.eventually("the registry has it there no longer", func() bool { return len(g.at(ghost)) == 0 })
			sender.eventuallyHears(name, codec.CodeNoRoute)
			if code := watcher.tryBind(codec.PolicyRejectNew, codec.IDEpoch{ID: []byte(name)})[0].Code; code != codec.CodeOK {
				t.Errorf("%s: %v, want ok", name, code)
			}
		}
	})
}

// An ID that the registry has for a session, and that the session does not hold, goes after the
// session was asked. What the session holds stays, whether the node knew that or not.
func TestUntrueBinding(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		g := hurried(t, 2, loops)
		a := g.nodes[1].join("a")
		also := a.attachAlso(g.nodes[0])
		g.nodes[1].eventually("both places", func() bool { return len(g.at(a.sessionID())) == 2 })
		epoch := g.nodes[1].holder("a").Epoch
		late := a.bind("late") // which the first node does not know
		old := g.bindFor("old", a.sessionID())
		claims := []routing.Claim{{Session: a.sessionID(), At: g.at(a.sessionID()),
			Bound: []routing.BoundID{{ID: "old", Epoch: old}, {ID: "late", Epoch: late}, {ID: "a", Epoch: epoch}}}}

		// A client that does not answer says nothing.
		g.nodes[1].dir.Probe().HeardClaims(claims)
		also.expect(codec.KindReassert)
		g.nodes[0].eventually("the doubts are over", func() bool {
			return g.nodes[0].dir.Probe().Doubts() == 0
		})
		if g.nodes[0].holder("old") == (routing.Binding{}) || g.nodes[0].holder("late") == (routing.Binding{}) {
			t.Error("what was not answered is taken for a no")
		}

		g.nodes[1].dir.Probe().HeardClaims(claims)
		also.expect(codec.KindReassert)
		also.tryBind(codec.PolicyKickOld, withEpochs([]string{"a", "late"}, epoch, late)...)
		g.nodes[0].eventually("what it does not hold is gone", func() bool {
			also.alive()
			return g.nodes[0].holder("old") == routing.Binding{}
		})
		held := routing.Binding{Session: a.sessionID(), Epoch: late}
		if g.nodes[0].holder("late") != held || g.nodes[0].holder("a").Epoch != epoch {
			t.Error("what it holds is gone")
		}
		g.nodes[0].join("s").eventuallyHears("old", codec.CodeNoRoute)
	})
}

// The node knows all bindings of a session in its own process, so it does not ask for them.
func TestUntrueBindingInProcess(t *testing.T) {
	g := hurried(t, 2, 1)
	s := sessionOf(g.nodes[0].attach(sdk.Config{}, "inner"))
	inner, old := g.nodes[0].holder("inner"), g.bindFor("old", s)
	g.nodes[0].eventually("presence", func() bool { return len(g.at(s)) == 1 })
	g.nodes[0].dir.Probe().HeardClaims([]routing.Claim{{Session: s, At: g.at(s), Bound: []routing.BoundID{{ID: "inner", Epoch: inner.Epoch}, {ID: "old", Epoch: old}}}})
	g.nodes[0].eventually("what it does not hold is gone", func() bool { return g.nodes[0].holder("old") == routing.Binding{} })
	if g.nodes[0].holder("inner") != inner {
		t.Error("what it holds is gone")
	}
}

// What has changed since the registry was read is not touched.
func TestClaimsAreOld(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := hurried(t, 2, loops)
		n := g.nodes[1]
		a := n.join("a")
		n.eventually("presence", func() bool { return len(g.at(a.sessionID())) == 1 })
		old := g.at(a.sessionID())
		before := routing.BoundID{ID: "b", Epoch: a.bind("b")}
		ended := routing.NewSessionID() // whose serial is the one that a has now

		a.nc.Close()
		n.eventually("it has left", func() bool { return len(g.at(a.sessionID())) == 0 })
		again := a.attachAlso(n)
		again.unbind("b", before.Epoch)
		epoch := again.bind("b")
		n.eventually("it is back", func() bool { return len(g.at(a.sessionID())) == 1 })
		now := g.at(a.sessionID())
		g.nodes[0].dir.Probe().HeardClaims([]routing.Claim{
			{Session: a.sessionID(), At: old},
			{Session: a.sessionID(), At: old, Bound: []routing.BoundID{before}},
			{Session: ended, At: now},
			// a former self of the node
			{Session: a.sessionID(), At: []routing.Presence{{Node: "n1", Incarnation: 7, Serial: 1 << 40}}},
		})
		n.settle()
		// the worst case: it attaches right behind the look into the table
		n.dir.Probe().Disclaim(a.sessionID(), old[0])
		n.settle()
		if got := g.at(a.sessionID()); len(got) != 1 || got[0] != now[0] {
			t.Errorf("presence: %v, want %v", got, now)
		}
		if got := n.holder("b"); got.Epoch != epoch {
			t.Errorf("b: %v, want it held since %d", got, epoch)
		}
		again.silent()
	})
}

// Who has a session of which the registry says that it is nowhere tells it before the sweep ends
// the session.
func TestSessionThatIsSaidToBeNowhere(t *testing.T) {
	g := startGroup(t, 2, 1)
	for _, n := range g.nodes {
		a := n.join()
		n.eventually("presence", func() bool { return len(g.at(a.sessionID())) == 1 })
		if left, err := g.registry.Detach(t.Context(), a.sessionID(), g.at(a.sessionID())[0]); err != nil || left != 0 {
			t.Fatal(left, err)
		}
		g.nodes[0].dir.Probe().HeardClaims([]routing.Claim{{Session: a.sessionID()}})
		n.eventually("presence again", func() bool { return len(g.at(a.sessionID())) == 1 })
	}
}
