package engine

import (
	"context"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// between is a registry that lets something happen before it answers for a session.
type between struct {
	routing.Registry
	presence atomic.Pointer[func(routing.SessionID) error] // nil: nothing
}

func (b *between) Presence(ctx context.Context, id routing.SessionID) (routing.SessionPresence, error) {
	if f := b.presence.Load(); f != nil {
		if err := (*f)(id); err != nil {
			return routing.SessionPresence{}, err
		}
	}
	return b.Registry.Presence(ctx, id)
}

func (b *between) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	for _, id := range all {
		if _, err := b.Presence(ctx, id); err != nil {
			return nil, err
		}
	}
	return b.Registry.Presences(ctx, all)
}

// meanwhile has f called at the next questions for sessions.
func (b *between) meanwhile(f func(routing.SessionID) error) { b.presence.Store(&f) }

// twoNodesWith starts two nodes that share a registry.
func twoNodesWith(t *testing.T, reg routing.Registry) *group {
	t.Helper()
	g := &group{t: t, hub: newHub(), registry: reg}
	for _, id := range []string{"n0", "n1"} {
		g.nodes = append(g.nodes, g.start(id, 1, nil))
	}
	g.linked(2)
	return g
}

// An ID goes from one session to the next between two questions of the node: it is never bound
// nowhere, and nobody is told so. Not who sends to it, nor who watches it.
func TestBoundAllTheTimeIsNeverNoRoute(t *testing.T) {
	reg := &between{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := twoNodesWith(t, reg)
	n, next := g.nodes[0], g.nodes[1].join()
	a := n.join("a")
	// What a session that is gone holds is removed from the registry some time later, so its end is
	// told to the registry alone.
	move := func(id string) {
		old := routing.NewSessionID()
		if err := reg.Attach(t.Context(), old, routing.Presence{Node: "gone", Incarnation: 1, Serial: 1}); err != nil {
			t.Fatal(err)
		}
		g.bindFor(id, old)
		reg.meanwhile(func(s routing.SessionID) error {
			if s == old {
				reg.meanwhile(nothing)
				found, err := reg.Lookup(context.Background(), []string{id})
				if err != nil {
					return err
				}
				_, err = reg.Bind(context.Background(), []routing.BindOp{{ID: id, Session: next.sessionID(), Expect: found[0].Binding}})
				if err != nil {
					return err
				}
				_, err = reg.EndSession(context.Background(), routing.EndOp{Session: old, Force: true})
				return err
			}
			return nil
		})
	}
	move("sent-to")
	seq := a.send("a", "sent-to", "hi")
	next.ack(next.gets("a", "sent-to", "hi"), "")
	a.hears(seq, codec.CodeAcked)

	move("watched")
	a.watch.add(codec.CodeOK, "watched")
}

func nothing(routing.SessionID) error { return nil }

// A session that is not attached any more where an ID was bound is attached elsewhere: a lookup
// says so.
func TestLookupAfterAMove(t *testing.T) {
	g := startGroup(t, 2, 1)
	a, x := g.nodes[0].join("a"), g.nodes[0].join("x")
	there := g.nodes[1].dial()
	there.hello(x.resume())
	x.nc.Close()
	s := g.nodes[0].table.Session(x.sessionID())
	g.nodes[0].eventually("it is attached elsewhere only", func() bool {
		return len(s.Handles()) == 0 && g.nodes[0].dir.AttachedElsewhere(x.sessionID())
	})
	if code := a.lookupCode("x"); code != codec.CodeOK {
		t.Errorf("%v", code)
	}
}

// Whether the session that holds an ID lives cannot be found out: then nobody is told that it does.
func TestUnknownHolderIsNotTaken(t *testing.T) {
	reg := &between{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := twoNodesWith(t, reg)
	a, gone := g.nodes[0].join(), routing.NewSessionID()
	epoch := g.bindFor("x", gone)
	reg.meanwhile(func(routing.SessionID) error { return routing.ErrUnavailable })
	if r := a.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x"})...)[0]; r.Code != codec.CodeRegistryUnavailable {
		t.Errorf("a bind: %v", r)
	}
	if r := a.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, epoch)...)[0]; r.Code != codec.CodeRegistryUnavailable {
		t.Errorf("a re-assert: %v", r)
	}
	reg.meanwhile(nothing)
	if r := a.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, epoch)...)[0]; r.Code != codec.CodeOK || r.Epoch != epoch {
		t.Errorf("a re-assert: %v", r)
	}
}

// A message without ack that its receiver gives back is not tried again. In a cluster nobody knows
// at that moment whether somebody else holds the ID, so its sender does not hear that nobody does.
func TestGivenBackIsNotNoRoute(t *testing.T) {
	acrossNodes(t, func(t *testing.T, g *group, from, to *client) {
		local := g.nodes[0].join("local")
		for id, c := range map[string]*client{"to": to, "local": local} {
			seq := from.post("from", id, "hi", codec.FlagReport)
			d := c.gets("from", id, "hi")
			newer := g.nodes[1].join(id)
			c.expect(codec.KindKick)
			c.write(codec.AppendNotHere(nil, &d))
			from.hears(seq, codec.CodeUnreachable)
			from.exchange("from", newer, id)
		}
	})
}

// The registry names the very session that has just given a message back: it is about to hear that
// this is over, and is asked again.
func TestDisownedIsAskedForAgain(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	from, p, s := n.join("from"), n.linkAs("n9"), routing.NewSessionID()
	p.attach(s)
	epoch := g.bindFor("x", s)
	seq := from.send("from", "x", "hi")
	p.gives(codec.KindNotMine, p.forwarded())
	n.eventually("it waits for another word", func() bool { return n.dir.Probe().Asks("x") })
	if _, err := g.registry.Unbind(t.Context(), []routing.UnbindOp{{ID: "x", Session: s, Epoch: epoch}}); err != nil {
		t.Fatal(err)
	}
	from.hears(seq, codec.CodeNoRoute)

	// If the registry goes on to name it, that is not what "bound nowhere" means.
	g.bindFor("y", s)
	seq = from.send("from", "y", "hi")
	p.gives(codec.KindNotMine, p.forwarded())
	from.hears(seq, codec.CodeUnreachable)
	p.nc.Close()
}
