package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// deadNode binds IDs for n sessions each, which were attached at a node that nobody has a link to.
func (g *group) deadNode(n int) (ids []string) {
	g.t.Helper()
	var ops []routing.BindOp
	for i := range n {
		s := routing.NewSessionID()
		if err := g.registry.Attach(g.t.Context(), s, routing.Presence{Node: "died", Incarnation: 7, Serial: 1}); err != nil {
			g.t.Fatal(err)
		}
		id := fmt.Sprint("of the dead ", i)
		ids, ops = append(ids, id), append(ops, routing.BindOp{ID: id, Session: s})
	}
	if _, err := g.registry.Bind(g.t.Context(), ops); err != nil {
		g.t.Fatal(err)
	}
	return ids
}

// Where thousands of sessions are, whose node has died, is a question or two, and a session that
// holds many IDs is asked for once.
func TestSessionsAreAskedForTogether(t *testing.T) {
	g, reg := talliedGroup(t, 1, 1, nil)
	from := g.nodes[0].join("from")
	own := from.sessionID()
	reg.attached.Store(&own)
	ids := g.deadNode(1000)
	one := routing.NewSessionID()
	if err := reg.Attach(t.Context(), one, routing.Presence{Node: "died", Incarnation: 7, Serial: 1}); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		id := fmt.Sprint("of one ", i)
		g.bindFor(id, one)
		ids = append(ids, id)
	}
	before, looked := reg.presences.Load(), reg.lookups.Load()
	from.seq += uint64(len(ids))
	from.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: from.seq - uint64(len(ids)) + 1, From: []byte("from"), Flags: codec.FlagAck, TTL: 9000}, ids))
	for range ids {
		if o := from.outcome(); o.Code != codec.CodeUnreachable {
			t.Fatalf("%d %v", o.Seq, o.Code)
		}
	}
	// A busy loop handles the frame in slices, and IDs that come later are another lookup.
	n, looked := reg.presences.Load()-before, reg.lookups.Load()-looked
	if n == 0 || n > looked || n > 10 {
		t.Errorf("the registry was asked for sessions %d times and for IDs %d times, want once each time, and 10 times at most", n, looked)
	}
}

// While the registry does not say where some sessions are, others' messages go their ways: the ones
// in the same question, and the ones that come later.
func TestSlowSessionsHoldUpNobody(t *testing.T) {
	g, reg := parking(t, nil)
	from, to, late := g.nodes[0].join("from"), g.nodes[1].join("to"), g.nodes[1].join("late")
	dead := g.deadNode(3)
	reg.presences.shut()
	all := append(slices.Clone(dead), "to", "nobody")
	first := from.multicast("from", "x", codec.FlagAck, all...)
	to.ack(to.gets("from", "to", "x"), "")
	got := []codec.Outcome{from.outcome(), from.outcome()}
	slices.SortFunc(got, func(a, b codec.Outcome) int { return int(a.Seq) - int(b.Seq) })
	if got[0].Seq != first+3 || got[0].Code != codec.CodeAcked || got[1].Seq != first+4 || got[1].Code != codec.CodeNoRoute {
		t.Errorf("%+v", got)
	}
	seq := from.send("from", "late", "y")
	late.ack(late.gets("from", "late", "y"), "")
	from.hears(seq, codec.CodeAcked)
	reg.presences.pass()
	for range dead {
		if o := from.outcome(); o.Code != codec.CodeUnreachable {
			t.Errorf("%d %v", o.Seq, o.Code)
		}
	}
}

// errPart is a registry that does not say where one session is.
type errPart struct {
	routing.Registry
	unknown atomic.Pointer[routing.SessionID] // nil: it says it of all
}

func (r *errPart) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	found, err := r.Registry.Presences(ctx, all)
	for i, id := range all {
		if unknown := r.unknown.Load(); err == nil && unknown != nil && *unknown == id {
			found[i] = routing.SessionPresence{Unknown: true}
		}
	}
	return found, err
}

// A session that the registry says nothing of makes the messages to its IDs registry_unavailable,
// and no others.
func TestUnknownSessionIsOne(t *testing.T) {
	reg := &errPart{Registry: routing.NewMemory(routing.MemoryConfig{})}
	g := twoNodesWith(t, reg)
	from := g.nodes[0].join("from")
	ids := g.deadNode(20)
	found, err := reg.Lookup(t.Context(), ids[:1])
	if err != nil {
		t.Fatal(err)
	}
	reg.unknown.Store(&found[0].Binding.Session)
	first := from.multicast("from", "x", codec.FlagAck, ids...)
	for range ids {
		o := from.outcome()
		want := codec.CodeUnreachable
		if o.Seq == first {
			want = codec.CodeRegistryUnavailable
		}
		if o.Code != want {
			t.Errorf("%d %v, want %v", o.Seq-first, o.Code, want)
		}
	}
}

// A question that fails is no answer to what was asked for a moment ago: that has a question of its
// own.
func TestFailedQuestionIsNotTheNexts(t *testing.T) {
	reg := &failsOnce{Registry: routing.NewMemory(routing.MemoryConfig{}), enter: make(chan struct{}), fail: make(chan struct{})}
	g := twoNodesWith(t, reg)
	from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
	reg.armed.Store(true)
	lost := from.send("from", "first", "x")
	<-reg.enter
	seq := from.send("from", "to", "x")
	from.n.eventually("it is asked for", func() bool { return from.n.dir.Probe().Asks("to") || from.n.cluster.remote.Len() > 0 })
	close(reg.fail)
	codes := map[uint64]codec.Code{}
	to.ack(to.gets("from", "to", "x"), "")
	for range 2 {
		o := from.outcome()
		codes[o.Seq] = o.Code
	}
	if codes[lost] != codec.CodeRegistryUnavailable || codes[seq] != codec.CodeAcked {
		t.Errorf("%v", codes)
	}
}

// failsOnce is a registry whose first lookup of "first" fails, when it is told to.
type failsOnce struct {
	routing.Registry
	armed       atomic.Bool
	enter, fail chan struct{}
}

func (r *failsOnce) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	if r.armed.Load() && slices.Contains(ids, "first") {
		close(r.enter)
		<-r.fail
		return nil, fmt.Errorf("%w: %w", routing.ErrUnavailable, errors.New("this one fails"))
	}
	return r.Registry.Lookup(ctx, ids)
}
