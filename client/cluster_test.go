package client

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/routing"
)

// hub is the membership of the engines of one test.
type hub struct {
	mu       sync.Mutex
	records  map[string]discovery.Record
	watchers map[int]func([]discovery.Record)
	next     int
}

// tell needs h.mu.
func (h *hub) tell() {
	var all []discovery.Record
	for _, r := range h.records {
		all = append(all, r)
	}
	for _, f := range h.watchers {
		f(all)
	}
}

// hubMember is the hub as one engine sees it.
type hubMember struct {
	*hub
	id string
}

func (m *hubMember) Announce(_ context.Context, r discovery.Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id = r.ID
	m.records[r.ID] = r
	m.tell()
	return nil
}

func (m *hubMember) Withdraw(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.records, m.id)
	m.tell()
	return nil
}

func (m *hubMember) Watch(ctx context.Context, f func([]discovery.Record)) {
	m.mu.Lock()
	id := m.next
	m.next++
	m.watchers[id] = f
	m.tell()
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	delete(m.watchers, id)
	m.mu.Unlock()
}

// forgetfulRegistry is shared by the engines of one test, and forgets everything on request, as a
// server does that was killed.
type forgetfulRegistry struct {
	mu    sync.Mutex
	inner *routing.Memory // guarded by mu
	views []view          // guarded by mu
}

// view is the registry as one engine sees it: each hears of every loss.
type view struct {
	*forgetfulRegistry
	lost chan struct{}
}

func (v view) Lost() <-chan struct{} { return v.lost }

func newRegistry() *forgetfulRegistry {
	return &forgetfulRegistry{inner: routing.NewMemory(routing.MemoryConfig{})}
}

func (r *forgetfulRegistry) view() view {
	v := view{r, make(chan struct{}, 1)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.views = append(r.views, v)
	return v
}

func (r *forgetfulRegistry) now() *routing.Memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.inner
}

// lose forgets everything, once, and tells all engines.
func (r *forgetfulRegistry) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.inner = routing.NewMemory(routing.MemoryConfig{})
	for _, v := range r.views {
		v.lost <- struct{}{}
	}
}

func (r *forgetfulRegistry) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	return r.now().Bind(ctx, ops)
}

func (r *forgetfulRegistry) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	return r.now().Unbind(ctx, ops)
}

func (r *forgetfulRegistry) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	return r.now().Lookup(ctx, ids)
}

func (r *forgetfulRegistry) Attach(ctx context.Context, s routing.SessionID, p routing.Presence) error {
	return r.now().Attach(ctx, s, p)
}

func (r *forgetfulRegistry) Detach(ctx context.Context, s routing.SessionID, p routing.Presence) (int, error) {
	return r.now().Detach(ctx, s, p)
}

func (r *forgetfulRegistry) Presence(ctx context.Context, s routing.SessionID) (routing.SessionPresence, error) {
	return r.now().Presence(ctx, s)
}

func (r *forgetfulRegistry) Presences(ctx context.Context, s []routing.SessionID) ([]routing.SessionPresence, error) {
	return r.now().Presences(ctx, s)
}

func (r *forgetfulRegistry) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	return r.now().EndSession(ctx, op)
}

func (r *forgetfulRegistry) Rebuilding() bool { return false }
func (r *forgetfulRegistry) Close() error     { return nil }

func (r *forgetfulRegistry) Claims(ctx context.Context, f func([]routing.Claim)) {
	r.now().Claims(ctx, f)
}

func (r *forgetfulRegistry) Probe(ctx context.Context) error { return r.now().Probe(ctx) }

// cluster is three engines.
type cluster struct {
	t        testing.TB
	hub      *hub
	registry *forgetfulRegistry
	nodes    map[string]*node // by address
	// IDs that sessions have asked to bind; nodes say theirs again by themselves
	bound atomic.Int64
}

func startCluster(t testing.TB) *cluster {
	t.Helper()
	k := &cluster{t: t, registry: newRegistry(), nodes: make(map[string]*node),
		hub: &hub{records: make(map[string]discovery.Record), watchers: make(map[int]func([]discovery.Record))}}
	for i := range 3 {
		k.start(fmt.Sprint("n", i), "")
	}
	return k
}

func (k *cluster) start(id, addr string) *node {
	k.t.Helper()
	n := startNode(k.t, engine.Config{NodeID: id, Addr: addr, Loops: 1, Registry: k.registry.view(), Membership: &hubMember{hub: k.hub},
		Hooks:         engine.Hooks{Bind: func(_, _ string) error { k.bound.Add(1); return nil }},
		ClusterSecret: []byte("the secret of the test cluster"), PeerAddr: "127.0.0.1:0", DrainSpread: time.Millisecond})
	k.nodes[n.addr] = n
	eventually(k.t, "all links", func() bool {
		k.hub.mu.Lock()
		_, announced := k.hub.records[id] // some time after it was ready
		all := len(k.hub.records)
		k.hub.mu.Unlock()
		if !announced {
			return false
		}
		for _, n := range k.nodes {
			if n.Stats().Links != all-1 {
				return false
			}
		}
		return true
	})
	return n
}

// dial attaches a session as cfg says, beginning at any node, and waits for n attachments.
func (k *cluster) dial(cfg Config, n int, ids ...string) *Session {
	k.t.Helper()
	for addr := range k.nodes {
		s := holder(k.t, cfg, addr, ids...)
		attachedTo(k.t, s, n)
		return s
	}
	panic("no nodes")
}

func attachedTo(t testing.TB, s *Session, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " attachments"), func() bool {
		seen := make(map[string]bool)
		for _, at := range s.State().Nodes {
			seen[at.ID] = true
		}
		return len(seen) == n && len(s.State().Nodes) == n
	})
}

// load sends from me to them over s until stop is called, which returns how often and the errors.
func load(s *Session, from, to string) (stop func() (sent int, errs []error)) {
	var over atomic.Bool
	var all sync.WaitGroup
	var mu sync.Mutex
	sent, errs := 0, []error{}
	for range 4 {
		all.Go(func() {
			for !over.Load() {
				_, err := s.Send(context.Background(), Message{To: to, From: from})
				mu.Lock()
				sent++
				if err != nil {
					errs = append(errs, err)
				}
				mu.Unlock()
			}
		})
	}
	return func() (int, []error) {
		over.Store(true)
		all.Wait()
		return sent, errs
	}
}

// TestSpread: messages go over all nodes, and each over one only: none is forwarded.
func TestSpread(t *testing.T) {
	k := startCluster(t)
	bob := k.dial(Config{Handler: accept, Attach: AllNodes}, 3, "bob")
	alice := k.dial(Config{Handler: accept, Attach: AllNodes}, 3, "alice")
	const posts = 300
	for range posts {
		if _, err := alice.Send(testContext(t), Message{To: "bob", From: "alice"}); err != nil {
			t.Fatal(err)
		}
		if _, err := alice.Post(testContext(t), Message{To: "bob", From: "alice"}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all messages", func() bool { return bob.Stats().Received == 2*posts })
	for addr, n := range k.nodes {
		eventually(t, "the counters", func() bool { return n.Stats().Sends > posts/3 })
		if st := n.Stats(); st.Forwarded != 0 || st.Received != 0 {
			t.Errorf("%s took %d sends and forwarded %d", addr, st.Sends, st.Forwarded)
		}
	}
}

// TestAttachSome: a session is attached to as many nodes as it wants, and to another when one is
// gone for good.
func TestAttachSome(t *testing.T) {
	k := startCluster(t)
	s := k.dial(Config{Handler: accept, Attach: 2}, 2, "me")
	k.nodes[s.State().Nodes[0].Addr].stop()
	attachedTo(t, s, 2)
	if _, err := s.Send(testContext(t), Message{To: "me", From: "me"}); err != nil {
		t.Error(err)
	}
}

// TestSpreadNodeStops: the session stays attached through the others, and returns to a node that
// comes back.
func TestSpreadNodeStops(t *testing.T) {
	k := startCluster(t)
	var detached atomic.Bool
	s := k.dial(Config{Handler: accept, Attach: AllNodes, OnState: func(v State) {
		if !v.Attached {
			detached.Store(true)
		}
	}}, 3, "alice", "bob")
	before, bound := s.State().Session, k.bound.Load()
	at := s.State().Nodes[0] // over which it has bound
	k.nodes[at.Addr].stop()
	delete(k.nodes, at.Addr)
	attachedTo(t, s, 2)
	for range 20 {
		if _, err := s.Send(testContext(t), Message{To: "bob", From: "alice"}); err != nil {
			t.Error(err)
		}
	}
	k.start(at.ID, at.Addr)
	attachedTo(t, s, 3)
	if detached.Load() || s.State().Session != before || k.bound.Load() != bound {
		t.Errorf("detached %v, session %s was %s, %d IDs bound again", detached.Load(), s.State().Session, before,
			k.bound.Load()-bound)
	}
}

// TestDrainOneOfThree: a node drains under acked load between two sessions that are both attached
// to it. No send fails, and nothing is bound again.
func TestDrainOneOfThree(t *testing.T) {
	long(t)
	for name, attach := range map[string]int{"mesh": 1, "spread": AllNodes} {
		t.Run(name, func(t *testing.T) {
			k := startCluster(t)
			want := min(uint(attach), 3)
			alice := k.dial(Config{Attach: attach}, int(want), "alice")
			at := alice.State().Nodes[0]
			bob := holder(t, Config{Handler: accept, Attach: attach}, at.Addr, "bob")
			attachedTo(t, bob, int(want))
			bound := k.bound.Load()
			stop := load(alice, "alice", "bob")
			eventually(t, "some load", func() bool { return bob.Stats().Received > 100 })

			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := k.nodes[at.Addr].Drain(ctx); err != nil {
				t.Error(err)
			}
			k.nodes[at.Addr].stop()
			got := bob.Stats().Received
			eventually(t, "more load", func() bool { return bob.Stats().Received > got+100 })
			sent, errs := stop()
			for _, s := range []*Session{alice, bob} {
				for _, n := range s.State().Nodes {
					if n.Addr == at.Addr {
						t.Errorf("still attached to %v", n)
					}
				}
			}
			if len(errs) > 0 || k.bound.Load() != bound {
				t.Errorf("%d of %d sends failed, first with %v; %d IDs were bound again", len(errs), sent, append(errs, nil)[0],
					k.bound.Load()-bound)
			}
		})
	}
}

// TestReassertAfterLoss: the registry is empty, and has everything back.
func TestReassertAfterLoss(t *testing.T) {
	long(t)
	const ids = 30_000
	k := startCluster(t)
	var all []string
	for i := range ids {
		all = append(all, fmt.Sprint("user-", i))
	}
	s := k.dial(Config{Handler: accept, Attach: AllNodes}, 3, all...)
	epoch, _ := s.Epoch(all[0])
	k.registry.lose()
	eventually(t, "all bindings", func() bool {
		for i := 0; i < ids; i += 1000 {
			found, err := k.registry.Lookup(testContext(t), all[i:i+1000])
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if f.Binding.Epoch == 0 {
					return false
				}
			}
		}
		return true
	})
	if now, held := s.Epoch(all[0]); !held || now != epoch || s.Stats().Kicks != 0 {
		t.Errorf("epoch %d became %d, held %v, %d kicks", epoch, now, held, s.Stats().Kicks)
	}
}

// TestPairHashOrder: with pair-hash, messages from one ID to another keep their order over several
// nodes.
func TestPairHashOrder(t *testing.T) {
	const receivers, messages = 20, 200
	k := startCluster(t)
	var mu sync.Mutex
	last := make(map[string]int)
	got := 0
	var ids []string
	for i := range receivers {
		ids = append(ids, fmt.Sprint("r", i))
	}
	k.dial(Config{Attach: AllNodes, Handler: HandleValue(func(_ context.Context, d *Delivery, seq int) {
		mu.Lock()
		defer mu.Unlock()
		got++
		if last[d.To]+1 != seq {
			t.Errorf("%s: %d after %d", d.To, seq, last[d.To])
		}
		last[d.To] = seq
	})}, 3, ids...)
	s := k.dial(Config{Attach: AllNodes, Strategy: discovery.PairHash()}, 3, "alice")
	for seq := 1; seq <= messages; seq++ {
		for i, to := range ids {
			m := Message{To: to, From: "alice", Value: seq}
			if (seq+i)%2 == 0 {
				if _, err := s.Post(testContext(t), m); err != nil {
					t.Fatal(err)
				}
				continue
			}
			s.SendAsync(context.Background(), m, func(_ Reply, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	eventually(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got == receivers*messages
	})
	for addr, n := range k.nodes {
		eventually(t, "a share for "+addr, func() bool { return n.Stats().Sends > 0 })
	}
}

// TestLostKick: a session that had no connection when it lost an ID hears of it as soon as it is
// resumed, at whatever node.
func TestLostKick(t *testing.T) {
	k := startCluster(t)
	var mu sync.Mutex
	var last net.Conn // guarded by mu
	kicks := make(chan Kick, 10)
	s := k.dial(Config{Handler: accept, OnKick: func(v Kick) { kicks <- v }, Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
		mu.Lock() // held while it shall have no connection
		defer mu.Unlock()
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		last = nc
		return nc, err
	}}, 1, "lost", "kept")
	session := s.State().Session
	mu.Lock()
	last.Close()
	eventually(t, "detached", func() bool { return !s.State().Attached })
	thief := k.dial(Config{Handler: accept}, 1, "lost")
	epoch, _ := thief.Epoch("lost")
	mu.Unlock()
	if v := receive(t, kicks, "the kick"); v != (Kick{ID: "lost", Epoch: epoch, Code: codec.CodeSuperseded}) {
		t.Errorf("%+v", v)
	}
	if _, held := s.Epoch("lost"); held {
		t.Error("it still holds the ID")
	}
	attachedTo(t, s, 1)
	if _, held := s.Epoch("kept"); !held || s.State().Session != session || len(kicks) > 0 {
		t.Errorf("session %s was %s; %d more kicks", s.State().Session, session, len(kicks))
	}
}

// TestEndedElsewhere: somebody ends the session at one node. It hears so at each of them, and
// begins anew with what it held.
func TestEndedElsewhere(t *testing.T) {
	for name, attach := range map[string]int{"mesh": 1, "spread": AllNodes} {
		t.Run(name, func(t *testing.T) {
			k := startCluster(t)
			want := int(min(uint(attach), 3))
			s := k.dial(Config{Handler: accept, Attach: attach}, want, "me")
			before := s.State().Session
			epoch, _ := s.Epoch("me")
			s.attachments.mu.Lock()
			hello := codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version, Session: s.attachments.id, Secret: s.attachments.secret}
			s.attachments.mu.Unlock()
			for addr := range k.nodes {
				if attach == 1 && addr == s.State().Addr {
					continue // another one than its own
				}
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				if w, _, err := greet(nc, &hello); err != nil || w.Flags&codec.WelcomeResumed == 0 {
					t.Fatalf("%+v, %v", w, err)
				}
				if _, err := nc.Write(codec.AppendBye(nil)); err != nil {
					t.Fatal(err)
				}
				break
			}
			eventually(t, "another session", func() bool { return s.State().Attached && s.State().Session != before })
			attachedTo(t, s, want)
			eventually(t, "its ID", func() bool {
				_, err := s.Send(testContext(t), Message{To: "me", From: "me"})
				return err == nil
			})
			if now, held := s.Epoch("me"); !held || now != epoch || s.Stats().Kicks != 0 {
				t.Errorf("epoch %d was %d, held %v; %d kicks", now, epoch, held, s.Stats().Kicks)
			}
		})
	}
}
