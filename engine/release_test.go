package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// tallied is a registry that counts calls, and what they are about.
type tallied struct {
	routing.Registry
	lookups, binds, presences atomic.Int64 // calls
	unbound                   atomic.Int64 // IDs
	// what a node asks about this one, when it looks after its sessions, does not count
	attached atomic.Pointer[routing.SessionID]
}

func newTallied() *tallied { return &tallied{Registry: routing.NewMemory(routing.MemoryConfig{})} }

func (r *tallied) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	r.lookups.Add(1)
	return r.Registry.Lookup(ctx, ids)
}

func (r *tallied) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	r.binds.Add(1)
	return r.Registry.Bind(ctx, ops)
}

func (r *tallied) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	r.unbound.Add(int64(len(ops)))
	return r.Registry.Unbind(ctx, ops)
}

func (r *tallied) Presence(ctx context.Context, id routing.SessionID) (routing.SessionPresence, error) {
	r.presences.Add(1)
	return r.Registry.Presence(ctx, id)
}

func (r *tallied) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	attached := r.attached.Load()
	if slices.ContainsFunc(all, func(s routing.SessionID) bool { return attached == nil || s != *attached }) {
		r.presences.Add(1)
	}
	return r.Registry.Presences(ctx, all)
}

// talliedGroup is startGroup with a registry that counts.
func talliedGroup(t *testing.T, nodes, loops int, change func(*Config)) (*group, *tallied) {
	reg := newTallied()
	g := &group{t: t, hub: newHub(), registry: reg}
	for i := range nodes {
		g.nodes = append(g.nodes, g.start(fmt.Sprint("n", i), loops, change))
	}
	g.linked(nodes)
	return g, reg
}

// What comes back with tokens that were never given to the session costs the registry nothing,
// whatever it says of IDs.
func TestBadTokensReleaseNothing(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g, reg := talliedGroup(t, 2, loops, nil)
		liar, other := g.nodes[0].joinMany("liar", "mine"), g.nodes[0].join("other")
		held, _ := g.nodes[0].table.Lookup([]byte("mine"))
		var bad []codec.Recipient
		for i := range 50 {
			to := []byte(fmt.Sprint("made up ", i))
			if i%10 == 0 {
				to = []byte("mine") // which it could only lose by its own fault
			}
			token := []byte(strings.Repeat("x", []int{0, 8, 12, 22, 26}[i%5]))
			bad = append(bad, codec.Recipient{Token: token, To: to, Epoch: held.Epoch})
		}
		before := reg.unbound.Load()
		many := &codec.DeliverMany{From: []byte("other"), Flags: codec.FlagAck}
		liar.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, many, bad))
		for _, r := range bad {
			d := many.Deliver(&r)
			liar.notHere(d)
			d.Flags, d.From = 0, nil
			liar.notHere(d)
		}
		for range 1 + 2*len(bad) { // those of the first frame have one together
			liar.fault(codec.FaultBadToken)
		}
		liar.silent()
		if n := reg.unbound.Load() - before; n != 0 {
			t.Errorf("the registry was asked to remove %d bindings", n)
		}
		if liar.lookupCode("mine") != codec.CodeOK {
			t.Error("a binding is gone")
		}
		other.exchange("other", liar, "liar")
	})
}

// A binding that a session disowns with each of many messages is removed once, and each message
// comes to its end, whichever loop waits for it.
func TestReleasedOnce(t *testing.T) {
	acrossLoops(t, Config{Registry: newTallied()}, func(t *testing.T, n *node, from, to *client) {
		reg := n.dir.Probe().Config().Registry.(*tallied)
		to.write(codec.AppendBye(nil))
		to.ends()
		to = n.joinMany()
		to.bind("to", "kept")
		before := reg.unbound.Load()
		const copies = 200
		ids := make([]string, copies)
		for i := range ids {
			ids[i] = "to"
		}
		from.seq += copies
		first := from.seq - copies + 1
		from.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: first, From: []byte("from"), Flags: codec.FlagAck, Payload: []byte("x")}, ids))
		m := to.getsMany("from", "x")
		to.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &m.DeliverMany, m.all))
		for i := range uint64(copies) {
			from.hears(first+i, codec.CodeNoRoute)
		}
		to.silent()
		from.silent()
		if got := reg.unbound.Load() - before; got != 1 {
			t.Errorf("the registry was asked to remove %d bindings, want 1", got)
		}
		if code := from.lookupCode("to"); code != codec.CodeNoRoute {
			t.Errorf("a disowned binding stands: %v", code)
		}
		from.exchange("from", to, "kept")
	})
}

// No deliver_many has more recipients than fit a frame, so nothing that comes back has either.
func TestNotHereManyIsBounded(t *testing.T) {
	n := start(t, Config{MaxPayload: 1 << 16, MaxIDs: 10})
	c := n.join("c")
	many := make([]codec.Recipient, n.mostReturned()+1)
	for i := range many {
		many[i].To = []byte("?")
	}
	c.write(codec.AppendDeliverMany(nil, codec.KindNotHereMany, &codec.DeliverMany{}, many))
	c.fails(codec.FaultTooMany)
}

// Messages that come back without content under one token are one message.
func TestBareBackOnce(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g, reg := parking(t, nil)
		n := g.nodes[0]
		from := n.join("from")
		to := n.dial()
		to.hello(codec.Hello{Features: codec.FeatureShortNotHere})
		to.bind("to")
		seq := from.send("from", "to", "x")
		d := to.gets("from", "to", "x")
		reg.shut()
		short := d.Short()
		short.Token = d.Token
		for range 20 {
			to.notHere(short)
		}
		to.arrived()
		n.settleLoops()
		waiting := 0
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var mu sync.Mutex
		ask(ctx, n.Engine, func(l *loop) bool {
			mu.Lock()
			defer mu.Unlock()
			for _, q := range l.park.lines {
				for range q.all {
					waiting++
				}
			}
			return true
		})
		if waiting != 1 {
			t.Errorf("%d messages wait for the registry, want 1", waiting)
		}
		reg.pass()
		from.hears(seq, codec.CodeNoRoute)
	}, 1)
}

// While the registry does not answer lookups, a new session is welcomed, and its binds are done:
// what others wait for is in other lanes, or in lines of their own. When it answers again, what has
// gathered goes there in a few calls.
func TestLookupsHoldUpNobody(t *testing.T) {
	reg := &talliedGate{tallied: newTallied()}
	n := start(t, Config{Loops: 2, Registry: reg})
	greedy := n.join("greedy")
	reg.gate.shut()
	const asked = 4000
	for i := range uint64(asked) {
		greedy.write(codec.AppendLookup(nil, 1000+i, [][]byte{[]byte(fmt.Sprint("nobody ", i))}))
	}
	greedy.arrived() // all wait in their lanes, not in the socket
	n.eventually("the lanes wait", func() bool { return reg.gate.waiting() == directory.Lanes })
	newcomer := n.join() // it gets a session, and is attached
	n.eventually("its session is attached", func() bool {
		p, err := reg.Registry.Presence(t.Context(), newcomer.sessionID())
		return err == nil && len(p.Nodes) == 1
	})
	newcomer.seq++
	newcomer.write(codec.AppendBind(nil, newcomer.seq, codec.PolicyKickOld, withEpochs([]string{"x"})))
	before := reg.lookups.Load()
	reg.gate.pass()
	if r := newcomer.requested(codec.KindBound); r[0].Code != codec.CodeOK {
		t.Errorf("%v", r)
	}
	for range asked {
		greedy.expect(codec.KindFound)
	}
	if calls := reg.lookups.Load() - before; calls > asked/20 {
		t.Errorf("%d lookups took %d calls", asked, calls)
	}
}

// talliedGate is tallied with a gate before lookups.
type talliedGate struct {
	*tallied
	gate gate
}

func (r *talliedGate) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	if err := r.gate.through(ctx); err != nil {
		return nil, err
	}
	return r.tallied.Lookup(ctx, ids)
}

// waiting is how many calls are at the gate.
func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.queued
}

// What one connection may have under way is bounded, and what all may have is shared: those who ask
// for much leave room for others. The reason says which it was.
func TestRequestsHaveShares(t *testing.T) {
	reg := &talliedGate{tallied: newTallied()}
	n := start(t, Config{Registry: reg, MaxRequests: 10_000, MaxNodeRequests: 80_000})
	var all []*client
	for i := range 30 {
		all = append(all, n.join(fmt.Sprint("c", i)))
	}
	modest := n.join("modest")
	reg.gate.shut()
	defer func() {
		if t.Failed() {
			reg.gate.pass()
		}
	}()
	lookup := codec.AppendLookup(nil, 7, [][]byte{[]byte("nobody, who has a name of 64 bytes, so that it costs 128 in all...")})
	for _, c := range all {
		for range 200 {
			c.write(lookup)
		}
		c.arrived()
		n.settleLoops() // answers come behind the pong
		c.arrived()
	}
	if asked := n.dir.Asked(); asked < 40_000 || asked > 80_000 {
		t.Errorf("%d bytes are under way", asked)
	}
	if n.Stats().RequestsRefused == 0 {
		t.Error("none was refused")
	}
	for reason, ids := range map[string]int{directory.ReasonRequests: 150, reasonNodeRequests: 60} {
		bind := make([]string, ids)
		for i := range bind {
			bind[i] = fmt.Sprint("id ", i)
		}
		all[29].seq++
		all[29].write(codec.AppendBind(nil, all[29].seq, codec.PolicyKickOld, withEpochs(bind)))
		var f codec.Results
		all[29].decoded(codec.DecodeResults(all[29].expect(codec.KindBound), codec.KindBound, &f))
		r, _ := f.All.Next()
		why, _ := f.Reasons.Next()
		if r.Code != codec.CodeOverflow || string(why.Text) != reason {
			t.Errorf("%v %q, want overflow because %q", r.Code, why.Text, reason)
		}
	}
	modest.write(codec.AppendLookup(nil, 7, [][]byte{[]byte("nobody")}))
	modest.alive() // no overflow
	reg.gate.pass()
	var f codec.Results
	modest.decoded(codec.DecodeResults(modest.expect(codec.KindFound), codec.KindFound, &f))
	if r, _ := f.All.Next(); r.Code != codec.CodeNoRoute {
		t.Errorf("%v", r.Code)
	}
	n.eventually("nothing is under way", func() bool { return n.dir.Asked() == 0 })
}
