package engine

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/routing"
)

// lossy is a registry that can lose all it knows, and refuse to hear where sessions are.
type lossy struct {
	routing.Registry
	lost chan struct{}
	deaf atomic.Bool
}

func newLossy() *lossy {
	return &lossy{Registry: routing.NewMemory(routing.MemoryConfig{}), lost: make(chan struct{}, 1)}
}

func (r *lossy) Lost() <-chan struct{} { return r.lost }

func (r *lossy) Probe(ctx context.Context) error {
	if r.deaf.Load() {
		return routing.ErrUnavailable
	}
	return r.Registry.Probe(ctx)
}

func (r *lossy) Attach(ctx context.Context, s routing.SessionID, p routing.Presence) error {
	if r.deaf.Load() {
		return routing.ErrUnavailable
	}
	return r.Registry.Attach(ctx, s, p)
}

func (r *lossy) Detach(ctx context.Context, s routing.SessionID, p routing.Presence) (int, error) {
	if r.deaf.Load() {
		return 0, routing.ErrUnavailable
	}
	return r.Registry.Detach(ctx, s, p)
}

func (r *lossy) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	if r.deaf.Load() {
		return false, routing.ErrUnavailable
	}
	return r.Registry.EndSession(ctx, op)
}

// holder tells who holds an ID, as the registry knows it.
func (n *node) holder(id string) routing.Binding {
	n.t.Helper()
	found, err := n.dir.Probe().Config().Registry.Lookup(context.Background(), []string{id})
	if err != nil {
		n.t.Fatal(err)
	}
	return found[0].Binding
}

// presentAt tells at how many nodes a session is, as the registry knows it.
func (n *node) presentAt(s routing.SessionID) int {
	n.t.Helper()
	p, err := n.dir.Probe().Config().Registry.Presence(context.Background(), s)
	if err != nil {
		n.t.Fatal(err)
	}
	return len(p.Nodes)
}

// What the registry has lost it is told again: by the node, and by the sessions, which are asked
// (S18).
func TestLossIsMadeGood(t *testing.T) {
	reg := newLossy()
	n := start(t, Config{Registry: reg})
	a := n.join("a")
	s := sessionOf(n.attach(sdk.Config{}, "inner"))
	n.settle()
	held, inner := n.holder("a"), n.holder("inner")
	ctx := context.Background()
	for id, b := range map[string]routing.Binding{"a": held, "inner": inner} {
		if _, err := reg.Unbind(ctx, []routing.UnbindOp{{ID: id, Session: b.Session, Epoch: b.Epoch}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range n.dir.Probe().Presences() {
		p, _ := reg.Presence(ctx, id)
		if left, err := reg.Registry.Detach(ctx, id, p.Nodes[0]); err != nil || left != 0 {
			t.Fatal(left, err)
		}
	}
	reg.lost <- struct{}{}
	if within, err := codec.DecodeReassert(a.expect(codec.KindReassert)); err != nil || within != 0 {
		t.Errorf("reassert within %d, %v", within, err)
	}
	n.eventually("bindings", func() bool { return n.holder("a") == held && n.holder("inner") == inner })
	n.eventually("presence", func() bool { return n.presentAt(a.sessionID()) == 1 && n.presentAt(s) == 1 })
}

// Where sessions are the registry hears as soon as it listens again; whether they came or left.
func TestPresenceIsWrittenLater(t *testing.T) {
	long(t)
	t.Parallel()
	reg := newLossy()
	n := start(t, Config{Registry: reg, ResumeWindow: time.Minute})
	gone := n.join()
	n.eventually("presence", func() bool { return n.presentAt(gone.sessionID()) == 1 })
	reg.deaf.Store(true)
	came := n.join()
	gone.nc.Close()
	n.eventually("end", func() bool { return len(n.table.Session(gone.sessionID()).Handles()) == 0 })
	n.settle()
	if n.presentAt(came.sessionID()) != 0 || n.presentAt(gone.sessionID()) != 1 {
		t.Error("the registry has heard it")
	}
	if h := n.Health(); len(h) != 1 || !strings.Contains(h[0], "registry") {
		t.Errorf("health: %q", h)
	}
	reg.deaf.Store(false)
	n.eventually("presence", func() bool { return n.presentAt(came.sessionID()) == 1 && n.presentAt(gone.sessionID()) == 0 })
	n.eventually("health", func() bool { return len(n.Health()) == 0 })
}

// A binding that the registry has given to others is let go when it is said again, as its kick may
// have been lost (S15).
func TestVerify(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Registry: newLossy(), VerifyPeriod: time.Second})
	a := n.join("a")
	op := routing.BindOp{ID: "a", Session: routing.NewSessionID(), Expect: n.holder("a")}
	results, err := n.dir.Probe().Config().Registry.Bind(context.Background(), []routing.BindOp{op})
	if err != nil {
		t.Fatal(err)
	}
	a.kicked("a", results[0].Epoch)
}

// A session that the registry says has ended is told so, and begins anew with the bindings it had.
func TestFormerSelf(t *testing.T) {
	reg := newLossy()
	u := upDown{make(chan routing.SessionID, 100), make(chan routing.SessionID, 100)}
	n := start(t, Config{Registry: reg, Hooks: Hooks{
		SessionUp:   func(id routing.SessionID, _ string) { u.up <- id },
		SessionDown: func(id routing.SessionID, _ string) { u.down <- id },
	}})
	a := n.join()
	first := a.sessionID()
	u.expect(t, u.up, first)
	epoch := a.bind("a")
	// Elsewhere it was ended, and the sweep has not come to its bindings yet.
	n.settle()
	if _, err := reg.EndSession(context.Background(), routing.EndOp{Session: first, Force: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := reg.Bind(context.Background(), []routing.BindOp{{ID: "b", Session: routing.NewSessionID()}}); err != nil {
		t.Fatal(err)
	}
	stale := n.holder("b")
	n.dir.Probe().RewritePresences(true)
	a.fails(codec.FaultSessionEnded)
	u.expect(t, u.down, first)
	again := n.dial()
	if w := again.hello(a.resume()); w.Flags&codec.WelcomeResumed != 0 {
		t.Error("a dead session was resumed")
	}
	// a as it was; b with the epoch of somebody who is nowhere, as after a crash.
	r := again.tryBind(codec.PolicyKickOld, withEpochs([]string{"a", "b"}, epoch, stale.Epoch)...)
	if r[0] != (codec.Result{Epoch: epoch}) || r[1] != (codec.Result{Epoch: stale.Epoch}) {
		t.Errorf("%v", r)
	}
	again.exchange("a", again, "b")
}
