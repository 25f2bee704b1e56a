package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// gated is a registry whose lookups of IDs, or of sessions, wait while the gate is shut.
type gated struct {
	routing.Registry
	gate           // of lookups
	presences gate // of those of sessions
	late      gate // of answers to lookups, which are what was so before
}

func newGated() *gated { return &gated{Registry: routing.NewMemory(routing.MemoryConfig{})} }

func (g *gated) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	if err := g.through(ctx); err != nil {
		return nil, err
	}
	found, err := g.Registry.Lookup(ctx, ids)
	return found, errors.Join(err, g.late.through(ctx))
}

func (g *gated) Presence(ctx context.Context, id routing.SessionID) (routing.SessionPresence, error) {
	if err := g.presences.through(ctx); err != nil {
		return routing.SessionPresence{}, err
	}
	return g.Registry.Presence(ctx, id)
}

func (g *gated) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	if err := g.presences.through(ctx); err != nil {
		return nil, err
	}
	return g.Registry.Presences(ctx, all)
}

// gate is open until it is shut.
type gate struct {
	mu     sync.Mutex
	open   chan error // guarded by mu; closed when the gate opens; nil: it is open
	queued int        // guarded by mu; calls that wait
}

func (g *gate) shut() { g.mu.Lock(); g.open = make(chan error, 1); g.mu.Unlock() }
func (g *gate) pass() { g.mu.Lock(); close(g.open); g.open = nil; g.mu.Unlock() }

// refuse is like pass, but makes a waiting call fail.
func (g *gate) refuse() { g.mu.Lock(); g.open <- routing.ErrUnavailable; g.mu.Unlock(); g.pass() }

// through waits until the gate is open.
func (g *gate) through(ctx context.Context) error {
	g.mu.Lock()
	open := g.open
	if open != nil {
		g.queued++
	}
	g.mu.Unlock()
	if open == nil {
		return nil
	}
	defer func() { g.mu.Lock(); g.queued--; g.mu.Unlock() }()
	select {
	case err := <-open:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", routing.ErrUnavailable, ctx.Err())
	}
}

// waits reports whether a call is at the gate.
func (g *gate) waits() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queued > 0
}

// parking starts two nodes whose registry a test can make wait.
func parking(t *testing.T, change func(*Config)) (*group, *gated) { return parkingOn(t, 2, change) }

func parkingOn(t *testing.T, loops int, change func(*Config)) (*group, *gated) {
	reg := newGated()
	g := &group{t: t, hub: newHub(), registry: reg}
	for i := range 2 {
		g.nodes = append(g.nodes, g.start(fmt.Sprint("n", i), loops, change))
	}
	g.linked(2)
	return g, reg
}

// Messages that wait for the registry keep their order, and later ones do not overtake them (S20).
func TestParkedKeepOrder(t *testing.T) {
	g, reg := parking(t, nil)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
	reg.shut()
	for i := range 40 {
		from.post("from", "to", fmt.Sprint(i), uint8(i%2)*codec.FlagAck)
	}
	from.n.eventually("they wait", func() bool { return from.n.counters().Parked == 40 })
	reg.pass()
	for i := 40; i < 80; i++ {
		from.post("from", "to", fmt.Sprint(i), 0)
	}
	for i := range 80 {
		if d := to.gets("from", "to", fmt.Sprint(i)); d.Flags&codec.FlagAck != 0 {
			to.ack(d, "")
		}
	}
	for i := range 20 {
		from.hears(uint64(2*i+3), codec.CodeAcked) // bind was 1
	}
}

// The number of messages that a connection may have waiting is bounded (S21). Other connections are
// not affected.
func TestParkedAreBounded(t *testing.T) {
	g, reg := parking(t, func(c *Config) { c.MaxPayload, c.MaxParked = 1000, 4000 })
	from, other, to := g.nodes[0].join("from"), g.nodes[0].join("other"), g.nodes[1].join("to")
	reg.shut()
	payload := string(make([]byte, 1000))
	for range 5 {
		from.send("from", "to", payload)
	}
	for range 2 { // three fit
		if o := from.outcome(); o.Code != codec.CodeOverflow || len(o.Reason) == 0 {
			t.Errorf("%v %q", o.Code, o.Reason)
		}
	}
	other.exchange("other", from, "from") // same node: known
	seq := other.send("other", "to", payload)
	reg.pass()
	for range 4 {
		to.ack(to.delivered(), "")
	}
	other.hears(seq, codec.CodeAcked)
	for range 3 {
		if o := from.outcome(); o.Code != codec.CodeAcked {
			t.Errorf("%v", o.Code)
		}
	}
}

// Deadlines hold while the registry does not answer. This holds for sends to IDs and from IDs that
// the node does not know (S1, S2).
func TestParkedExpire(t *testing.T) {
	g, reg := parking(t, nil)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
	spread := g.nodes[0].dial()
	spread.hello(to.resume())
	reg.shut()
	from.write(sendFrame(1001, "from", "to", "x", codec.FlagAck, 30))
	from.write(sendFrame(1002, "from", "to", "x", codec.FlagReport, 30))
	spread.write(sendFrame(1003, "to", "from", "x", codec.FlagAck, 30))
	for range 2 {
		if o := from.outcome(); o.Code != codec.CodeExpired {
			t.Errorf("%d %v", o.Seq, o.Code)
		}
	}
	spread.hears(1003, codec.CodeExpired)
	reg.pass()
	spread.write(sendFrame(1004, "to", "from", "x", codec.FlagAck, 9000))
	d := from.gets("to", "from", "x")
	if d.TTL == 0 || d.TTL > 9000 {
		t.Errorf("ttl %d", d.TTL)
	}
	from.ack(d, "")
	spread.hears(1004, codec.CodeAcked)
}

// A registry that never answers delays nobody for long, however many IDs the node has to ask for.
func TestParkedWithoutRegistry(t *testing.T) {
	long(t)
	t.Parallel()
	g, reg := parking(t, nil)
	from := g.nodes[0].join("from")
	reg.shut()
	began := time.Now()
	const ids = 2000 // one question a second for each would be too slow
	for i := range ids {
		from.send("from", fmt.Sprint("unknown-", i), "x")
	}
	for range ids {
		if o := from.outcome(); o.Code != codec.CodeRegistryUnavailable {
			t.Fatalf("%d %v", o.Seq, o.Code)
		}
	}
	if took := time.Since(began); took > 2*directory.ResolveTimeout+time.Second {
		t.Errorf("all ended after %v", took)
	}
	reg.pass()
	from.hears(from.send("from", "unknown-0", "x"), codec.CodeNoRoute)
	if s := from.n.counters(); s.Parked != 0 {
		t.Errorf("%+v", s)
	}
}

// The node waits a moment for a session whose attach it has not heard of yet.
func TestWaitsForTheWordOfAMove(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	a, p, s := n.join("a"), n.linkAs("n9"), routing.NewSessionID()
	g.bindFor("x", s)
	if err := g.registry.Attach(t.Context(), s, routing.Presence{Node: "n9", Incarnation: 7, Serial: 1}); err != nil {
		t.Fatal(err)
	}
	seq := a.send("a", "x", "hi")
	a.n.eventually("it waits", func() bool { return a.n.counters().Parked == 1 })
	p.attach(s)
	f := p.forwarded()
	p.write(codec.AppendAnswer(nil, &codec.Answer{Token: f.Token, Code: codec.CodeAcked, Session: f.Session}))
	a.hears(seq, codec.CodeAcked)
	p.nc.Close()
}
