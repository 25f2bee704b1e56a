package engine

import (
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// A session that is resumed, wherever that is, hears at once which of its IDs it has lost
// meanwhile, and of no others.
func TestLostKickIsRepeated(t *testing.T) {
	for name, thiefAt := range map[string]int{"same node": 0, "another node": 1} {
		for state, detached := range map[string]bool{"detached": true, "silent": false} {
			t.Run(name+"/"+state, func(t *testing.T) {
				g := startGroupWith(t, 3, 1, func(c *Config) { c.ResumeWindow = time.Minute })
				a := g.nodes[0].join("a", "b")
				for _, n := range g.nodes {
					n.eventually("attached", func() bool { return n.dir.Probe().Attached(a.sessionID()) })
				}
				if detached {
					a.nc.Close()
					for _, n := range g.nodes {
						n.eventually("detached", func() bool { return !n.dir.Probe().Attached(a.sessionID()) })
					}
				} // else it reads nothing from here on
				epoch := g.nodes[thiefAt].join().bind("a")
				for _, n := range g.nodes {
					n.eventually("news", func() bool { lost, _ := n.dir.LostIDs(a.sessionID()); return len(lost) == 1 })
				}
				for _, n := range g.nodes {
					again := a.attachAlso(n)
					again.kicked("a", epoch)
					again.silent()
					if r, ok := n.table.Lookup([]byte("a")); ok && r.Session.ID() == a.sessionID() {
						t.Error("the node believes that the session holds the ID")
					}
				}
			})
		}
	}
}

// A node that had to forget kicks asks the session to say its bindings again.
func TestForgottenKicks(t *testing.T) {
	n := start(t, Config{}, func(e *Engine) { e.tune(func(c *directory.Config) { c.MaxKicks = 1 }) })
	a := n.join("a", "b")
	a.nc.Close()
	n.eventually("detached", func() bool { return len(n.table.Session(a.sessionID()).Handles()) == 0 })
	thief := n.join()
	first := thief.bind("a")
	thief.bind("b")
	again := a.attachAlso(n)
	again.kicked("a", first)
	if within, err := codec.DecodeReassert(again.expect(codec.KindReassert)); err != nil || within != 0 {
		t.Errorf("reassert within %d, %v", within, err)
	}
	a.nc.Close()
}

// Whatever news say that a binding of this node was superseded, its session hears that it lost the
// ID: one that others watch, bind or look up, and one that messages from another node come for.
func TestNewsOfALaterBinding(t *testing.T) {
	for name, news := range map[string]func(n *node, other *client, thief routing.SessionID, epoch uint64){
		"a watch": func(n *node, other *client, _ routing.SessionID, _ uint64) { other.watch.add(codec.CodeOK, "a") },
		"a re-assert": func(n *node, other *client, _ routing.SessionID, epoch uint64) {
			if r := other.tryBind(codec.PolicyKickOld, withEpochs([]string{"a"}, epoch-1)...); r[0].Code != codec.CodeSuperseded {
				n.t.Errorf("%v", r)
			}
		},
		"a bind that is refused": func(n *node, other *client, _ routing.SessionID, _ uint64) {
			if r := other.tryBind(codec.PolicyRejectNew, withEpochs([]string{"a"})...); r[0].Code != codec.CodeTaken {
				n.t.Errorf("%v", r)
			}
		},
		"a message": func(n *node, _ *client, thief routing.SessionID, epoch uint64) {
			p := n.linkAs("n9")
			p.gives(codec.KindForward, codec.Forward{Session: thief[:], Deliver: codec.Deliver{To: []byte("a"), Epoch: epoch}})
			p.settled()
		},
		"a kick of somebody else": func(n *node, _ *client, _ routing.SessionID, epoch uint64) {
			third := routing.NewSessionID()
			p := n.linkAs("n9")
			p.write(codec.AppendExpel(nil, codec.KindExpel, third[:], "a", epoch))
			p.settled()
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := startGroup(t, 1, 1)
			n := g.nodes[0]
			a, other := n.join("a"), n.join()
			n.settle()
			thief := routing.NewSessionID()
			if err := g.registry.Attach(t.Context(), thief, routing.Presence{Node: "n9", Incarnation: 7, Serial: 1}); err != nil {
				t.Fatal(err)
			}
			p := n.linkAs("n8")
			p.attach(thief)
			epoch := g.bindFor("a", thief)
			news(n, other, thief, epoch)
			a.kicked("a", epoch)
			if _, ok := n.table.Lookup([]byte("a")); ok {
				t.Error("the node still believes it")
			}
		})
	}
}
