package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// troubled is a registry that refuses some binds, or lets attaches wait.
type troubled struct {
	*lossy
	refuse   atomic.Int64  // so many binds
	hold     chan struct{} // attaches wait until it is closed; nil: they do not
	attaches atomic.Int64
}

func (r *troubled) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	if len(ops) > 0 && r.refuse.Add(-1) >= 0 {
		return nil, routing.ErrUnavailable
	}
	return r.lossy.Bind(ctx, ops)
}

func (r *troubled) Attach(ctx context.Context, s routing.SessionID, p routing.Presence) error {
	r.attaches.Add(1)
	if r.hold != nil {
		<-r.hold
	}
	return r.lossy.Attach(ctx, s, p)
}

// If the registry fails again while what it has lost is written, the node tries until all is
// written.
func TestRecoveryGoesOnAfterFailures(t *testing.T) {
	reg := &troubled{lossy: newLossy()}
	n := start(t, Config{Registry: reg})
	a := n.join()
	var ids []string
	for i := range 500 {
		ids = append(ids, fmt.Sprint("id", i))
	}
	epoch := a.bind(ids...)
	held := make(map[string]routing.Binding)
	for _, id := range ids {
		held[id] = n.holder(id)
		if _, err := reg.Unbind(t.Context(), []routing.UnbindOp{{ID: id, Session: held[id].Session, Epoch: held[id].Epoch}}); err != nil {
			t.Fatal(err)
		}
	}
	reg.refuse.Store(2 * directory.Lanes)
	reg.lost <- struct{}{}
	n.eventually("all are bound again", func() bool {
		for _, id := range ids {
			if n.holder(id) != held[id] {
				return false
			}
		}
		return true
	})
	if epoch == 0 || reg.refuse.Load() >= 0 {
		t.Error("the registry has refused nothing")
	}
}

// A session whose entry has gone from the registry is found out within its resume window, and not
// only within the verify period. The sweep takes such a session for one that is nowhere.
func TestPresenceIsVerified(t *testing.T) {
	long(t)
	t.Parallel()
	reg := newLossy()
	n := start(t, Config{Registry: reg, ResumeWindow: time.Second, VerifyPeriod: time.Hour})
	a := n.join("a")
	n.eventually("presence", func() bool { return n.presentAt(a.sessionID()) == 1 })
	p, err := reg.Presence(t.Context(), a.sessionID())
	if err != nil {
		t.Fatal(err)
	}
	if left, err := reg.Registry.Detach(t.Context(), a.sessionID(), p.Nodes[0]); err != nil || left != 0 {
		t.Fatal(left, err)
	}
	n.eventually("presence again", func() bool { return n.presentAt(a.sessionID()) == 1 })
	a.alive()
}

// A registry that is slow gets no more to do with each second that it is behind.
func TestPresenceIsQueuedOnce(t *testing.T) {
	reg := &troubled{lossy: newLossy(), hold: make(chan struct{})}
	n := start(t, Config{Registry: reg})
	a := n.join()
	for range 100 {
		n.dir.Probe().RewritePresences(false)
	}
	close(reg.hold)
	n.eventually("presence", func() bool { return n.presentAt(a.sessionID()) == 1 })
	n.settle()
	// the hello's, one that was queued meanwhile, and one of upkeep
	if got := reg.attaches.Load(); got > 3 {
		t.Errorf("%d attaches for one session", got)
	}
}
