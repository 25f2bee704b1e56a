package client

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
)

// TestNodeRestart: the node restarts empty, with another key. The session continues by
// itself.
func TestNodeRestart(t *testing.T) {
	var addr atomic.Value
	dialer := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr.Load().(string))
	}
	n := startNode(t, engine.Config{})
	addr.Store(n.addr)
	states := make(chan State, 100)
	s := holder(t, Config{Dialer: dialer, Handler: accept, OnState: func(v State) { states <- v }}, "the-node:1", "alice", "bob")
	before := receive(t, states, "the first state")
	n.stop()
	if v := receive(t, states, "the loss"); v.Attached || v.Err == nil {
		t.Errorf("%+v", v)
	}
	if _, err := s.Send(newWaitedFor(), Message{To: "bob", From: "alice"}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("without a node: %v", err)
	}
	n = startNode(t, engine.Config{})
	addr.Store(n.addr)
	if _, err := s.Send(testContext(t), Message{To: "bob", From: "alice"}); err != nil {
		t.Errorf("after the restart: %v", err)
	}
	if v := receive(t, states, "the return"); !v.Attached || v.Resumed || v.Session == before.Session {
		t.Errorf("%+v after %+v", v, before)
	}
}

// TestResume: the connection breaks, the session and its bindings stand.
func TestResume(t *testing.T) {
	n := startNode(t, engine.Config{})
	states := make(chan State, 100)
	s := holder(t, Config{Handler: accept, OnState: func(v State) { states <- v }}, n.addr, "alice", "bob")
	before := receive(t, states, "the first state")
	epoch, _ := s.Epoch("bob")
	for range 3 {
		s.attachments.first().nc.Close()
		if v := receive(t, states, "the loss"); v.Attached {
			t.Errorf("%+v", v)
		}
		if v := receive(t, states, "the return"); !v.Attached || !v.Resumed || v.Session != before.Session {
			t.Errorf("%+v after %+v", v, before)
		}
		if _, err := s.Send(testContext(t), Message{To: "bob", From: "alice"}); err != nil {
			t.Error(err)
		}
	}
	if now, _ := s.Epoch("bob"); now != epoch {
		t.Errorf("epoch %d became %d", epoch, now)
	}
}

// TestFailover: the other node of the list takes over; and senders under load hear exactly one
// outcome each.
func TestFailover(t *testing.T) {
	a, b := startNode(t, engine.Config{}), startNode(t, engine.Config{})
	nodes := map[string]*node{a.addr: a, b.addr: b}
	s := dial(t, Config{Handler: accept}, a.addr, b.addr)
	ctx := testContext(t)
	if err := s.Bind(ctx, "alice", "bob"); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	var asked, answered atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				asked.Add(1)
				_, err := s.Send(ctx, Message{To: "bob", From: "alice"})
				answered.Add(1)
				if err != nil && !errors.Is(err, ErrLost) && !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrNoRoute) {
					t.Error(err)
				}
			}
		})
	}
	eventually(t, "some load", func() bool { return answered.Load() > 100 })
	first := s.State().Addr
	nodes[first].stop()
	eventually(t, "the other node", func() bool { v := s.State(); return v.Attached && v.Addr != first })
	for more := answered.Load() + 100; answered.Load() < more; {
		eventually(t, "more load", func() bool { return answered.Load() >= more })
	}
	stop.Store(true)
	all.Wait()
	st := s.Stats()
	total := uint64(0)
	for _, n := range st.Outcomes {
		total += n
	}
	if total != uint64(asked.Load()) || st.InFlight != 0 || st.LateOutcomes != 0 {
		t.Errorf("%d sends, %d outcomes; %+v", asked.Load(), total, st)
	}
}

// TestClose: what is in flight gets its outcome, what waits is handled, and the IDs are gone.
func TestClose(t *testing.T) {
	n := startNode(t, engine.Config{})
	ctx := testContext(t)
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	bob := holder(t, Config{Handler: func(context.Context, *Delivery) {
		entered <- struct{}{}
		<-release
	}}, n.addr, "bob")
	alice := holder(t, Config{}, n.addr, "alice")
	outcome := make(chan error, 1)
	alice.SendAsync(ctx, Message{To: "bob", From: "alice", TTL: patience}, func(_ Reply, err error) { outcome <- err })
	receive(t, entered, "the handler")

	closed := make(chan error, 2)
	go func() { closed <- alice.Close(ctx) }()
	go func() { closed <- bob.Close(ctx) }()
	eventually(t, "the beginning of the end", func() bool { return alice.closed() && bob.leaving.Load() })
	if _, err := alice.Send(ctx, Message{To: "bob", From: "alice"}); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	if _, err := alice.Post(ctx, Message{To: "bob", From: "alice"}); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	if err := alice.Bind(ctx, "eve"); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	close(release)
	if err := receive(t, outcome, "the outcome"); err != nil {
		t.Errorf("in flight at Close: %v", err)
	}
	for range 2 {
		if err := receive(t, closed, "Close"); err != nil {
			t.Error(err)
		}
	}
	other := dial(t, Config{}, n.addr)
	eventually(t, "the end of the bindings", func() bool {
		found, err := other.Lookup(ctx, "alice", "bob")
		return err == nil && found[0].Code == codec.CodeNoRoute && found[1].Code == codec.CodeNoRoute
	})
}

// TestCloseCutsOff: a handler that hangs does not hold up Close beyond its context.
func TestCloseCutsOff(t *testing.T) {
	n := startNode(t, engine.Config{})
	ended := make(chan struct{})
	s, err := Dial(testContext(t), Config{Nodes: []string{n.addr}, Logger: quiet(), Handler: func(ctx context.Context, _ *Delivery) {
		<-ctx.Done()
		close(ended)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(testContext(t), "me"); err != nil {
		t.Fatal(err)
	}
	outcome := make(chan error, 1)
	s.SendAsync(testContext(t), Message{To: "me", From: "me", TTL: time.Minute}, func(_ Reply, err error) { outcome <- err })
	eventually(t, "the handler", func() bool { return s.Stats().Received == 1 })
	if err := s.Close(newWaitedFor()); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 sends") {
		t.Errorf("Close: %v", err)
	}
	if err := receive(t, outcome, "the outcome"); !errors.Is(err, ErrLost) {
		t.Errorf("cut off: %v", err)
	}
	receive(t, ended, "the end of the handler's context")
}
