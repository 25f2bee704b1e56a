package engine

import (
	"bytes"
	"context"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// attachAlso opens another connection of c's session, at that node.
func (c *client) attachAlso(n *node) *client {
	c.t.Helper()
	more := n.dial()
	if w := more.hello(c.resume()); w.Flags&codec.WelcomeResumed == 0 {
		c.t.Fatal("the session was not resumed")
	}
	return more
}

// bye ends the session.
func (c *client) bye() {
	c.t.Helper()
	c.write(codec.AppendBye(nil))
	c.ends()
}

// isOver proves that a session has ended at every node, for good.
func (g *group) isOver(c *client) {
	g.t.Helper()
	for _, n := range g.nodes {
		n.settle()
	}
	for _, n := range g.nodes {
		n.eventually("no trace of the session", func() bool {
			return n.cluster.remote.Session(c.sessionID()) == nil && n.table.Session(c.sessionID()) == nil && !n.dir.Probe().Present(c.sessionID())
		})
		again := n.dial()
		if w := again.hello(c.resume()); w.Flags != 0 || bytes.Equal(w.Session, c.session) {
			g.t.Error("a session that has ended was resumed")
		}
		again.bye()
	}
}

// bye ends a session at all nodes. Each of its connections is notified, and none can send
// afterwards.
func TestByeAtAllNodes(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 3, loops)
		a := g.nodes[0].join("a")
		also := []*client{a.attachAlso(g.nodes[0]), a.attachAlso(g.nodes[1]), a.attachAlso(g.nodes[1])}
		senders := []*client{g.nodes[0].join("s0"), g.nodes[1].join("s1"), g.nodes[2].join("s2")}
		g.nodes[2].eventually("both places", func() bool {
			s := g.nodes[2].cluster.remote.Session(a.sessionID())
			return s != nil && len(s.Handles()) == 2
		})
		senders[2].send("s2", "a", "which makes a route")
		came := false
		g.nodes[2].eventually("it has come to any of a's connections", func() bool {
			for _, c := range append(also, a) {
				came = came || len(c.arrived()) > 0
			}
			return came
		})
		a.write(codec.AppendBye(nil))
		for _, c := range also {
			c.fails(codec.FaultSessionEnded)
		}
		if o := senders[2].outcome(); o.Code != codec.CodeLost {
			t.Errorf("%v", o)
		}
		g.isOver(a)
		for i, c := range senders {
			c.hears(c.send([]string{"s0", "s1", "s2"}[i], "a", "too late"), codec.CodeNoRoute)
		}
	})
}

// A session that says bye while one of its former nodes still waits for it to come back ends there,
// too.
func TestByeEndsAWindowElsewhere(t *testing.T) {
	g := startGroupWith(t, 2, 1, func(c *Config) { c.ResumeWindow = time.Minute })
	a := g.nodes[0].join("a")
	moved := a.attachAlso(g.nodes[1])
	a.nc.Close()
	g.nodes[0].eventually("detached", func() bool { return len(g.nodes[0].table.Session(a.sessionID()).Handles()) == 0 })
	moved.bye()
	g.isOver(a)
}

// A connection that has left its session is notified of the end, like attached ones.
func TestEndIsHeardByThoseThatLeft(t *testing.T) {
	g := startGroup(t, 2, 2)
	a := g.nodes[0].join("a")
	moved := a.attachAlso(g.nodes[1])
	a.write(codec.AppendLeave(nil))
	a.expect(codec.KindLeft)
	moved.bye()
	a.fails(codec.FaultSessionEnded)
	g.isOver(a)
	if n := g.nodes[0].aside.Load(); n != 0 {
		t.Errorf("%d connections are aside", n)
	}
}

// slowToHear is a registry that hears of ends, but not of where sessions are.
type slowToHear struct{ *lossy }

func (r slowToHear) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	return r.Registry.EndSession(ctx, op)
}

// The end of a resume window at one node does not end a session that is attached at another node,
// although the registry does not know of that yet.
func TestWindowOverWhileAttachedElsewhere(t *testing.T) {
	long(t)
	t.Parallel()
	reg := newLossy()
	g := &group{t: t, hub: newHub(), registry: slowToHear{reg}}
	for _, id := range []string{"n0", "n1"} {
		g.nodes = append(g.nodes, g.start(id, 1, func(c *Config) { c.ResumeWindow = time.Second }))
	}
	g.linked(2)
	a := g.nodes[0].join("a")
	g.nodes[0].eventually("presence", func() bool { return g.nodes[0].presentAt(a.sessionID()) == 1 })
	reg.deaf.Store(true)
	moved := a.attachAlso(g.nodes[1])
	a.nc.Close()
	g.nodes[0].eventually("the end of the window", func() bool { return g.nodes[0].table.Session(a.sessionID()) == nil })
	g.nodes[0].settle()
	reg.deaf.Store(false)
	g.nodes[1].eventually("presence", func() bool { return g.nodes[1].presentAt(a.sessionID()) == 1 })
	moved.silent()
	s := g.nodes[0].join("s")
	s.exchange("s", moved, "a")
}

// The resume window begins when the last connection has gone, at whatever node that was.
func TestWindowBeginsWithTheLastConnection(t *testing.T) {
	long(t)
	t.Parallel()
	const window = 2 * time.Second
	g := startGroupWith(t, 2, 1, func(c *Config) { c.ResumeWindow = window })
	a, s := g.nodes[0].join("a"), g.nodes[0].join("s")
	moved := a.attachAlso(g.nodes[1])
	first := time.Now()
	a.nc.Close()
	g.nodes[0].eventually("half a window", func() bool { return time.Since(first) > window/2 })
	last := time.Now()
	moved.nc.Close()
	s.eventuallyHears("a", codec.CodeNoRoute)
	if took := time.Since(last); took < window || took > window+4*time.Second {
		t.Errorf("it has ended after %v, want %v and some slack", took, window)
	}
	g.isOver(a)
}

// If the registry could not be notified of an end, the node notifies it later. The IDs of the
// session do not stay unreachable.
func TestEndIsToldLater(t *testing.T) {
	long(t)
	t.Parallel()
	for name, end := range map[string]func(*client){"bye": (*client).bye, "window over": func(c *client) { c.nc.Close() }} {
		t.Run(name, func(t *testing.T) {
			reg := newLossy()
			g := &group{t: t, hub: newHub(), registry: reg}
			for _, id := range []string{"n0", "n1"} {
				g.nodes = append(g.nodes, g.start(id, 1, func(c *Config) { c.ResumeWindow = 100 * time.Millisecond }))
			}
			g.linked(2)
			n := g.nodes[0]
			a, s := n.join("a"), g.nodes[1].join("s")
			n.settle()
			reg.deaf.Store(true)
			end(a)
			n.eventually("the end", func() bool { return n.table.Session(a.sessionID()) == nil })
			n.settle()
			reg.deaf.Store(false)
			s.eventuallyHears("a", codec.CodeNoRoute)
			g.isOver(a)
		})
	}
}

// eventuallyHears sends until the outcome is the wanted one.
func (c *client) eventuallyHears(to string, want codec.Code) {
	c.t.Helper()
	c.n.eventually(want.String(), func() bool {
		c.send("s", to, "")
		return c.outcome().Code == want
	})
}

// A node that learns only from the registry that a session has ended notifies the session.
func TestEndIsHeardFromTheRegistry(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Registry: newLossy(), VerifyPeriod: time.Second})
	a := n.join("a")
	n.eventually("presence", func() bool { return n.presentAt(a.sessionID()) == 1 })
	if _, err := n.dir.Probe().Config().Registry.EndSession(context.Background(), routing.EndOp{Session: a.sessionID(), Force: true}); err != nil {
		t.Fatal(err)
	}
	a.fails(codec.FaultSessionEnded)
}
