package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// bindFake binds ids at the fake node under the epochs 100, 101, …
func bindFake(t testing.TB, s *Session, c *fakeConn, ids ...string) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Bind(context.Background(), ids...) }()
	epoch := uint64(100)
	for left := len(ids); left > 0; {
		a := c.expectBind()
		var r []codec.Result
		for range a.ids {
			r = append(r, codec.Result{Epoch: epoch})
			epoch++
		}
		c.bound(a, r...)
		left -= len(a.ids)
	}
	if err := receive(t, done, "bind"); err != nil {
		t.Fatal(err)
	}
}

func TestBindSplitsByLimit(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	var ids []string
	for i := range 200 { // 50 frames, more than the pipeline holds
		ids = append(ids, fmt.Sprint("id-", i))
	}
	bindFake(t, s, c, ids...)
	for i, id := range ids {
		if epoch, ok := s.Epoch(id); !ok || epoch != 100+uint64(i) {
			t.Fatalf("%s is held under %d, %v", id, epoch, ok)
		}
	}
}

func TestBindResultsPerID(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	done := make(chan error, 1)
	go func() { done <- s.Bind(testContext(t), "good", "", "taken", "later", "good") }()
	a := c.expectBind()
	if len(a.ids) != 3 {
		t.Fatalf("asked for %v", a.ids)
	}
	c.bound(a, codec.Result{Epoch: 1}, codec.Result{Code: codec.CodeTaken}, codec.Result{Code: codec.CodeRegistryUnavailable})
	a = c.expectBind() // the SDK tries again what the registry could not take
	if !slices.Equal(a.ids, []idEpoch{{"later", 0}}) {
		t.Fatalf("asked again for %v", a.ids)
	}
	c.bound(a, codec.Result{Epoch: 2})
	err := receive(t, done, "bind")
	var e *IDError
	if !errors.As(err, &e) || len(e.Failed) != 2 || !errors.Is(err, ErrTaken) || !errors.Is(err, ErrBadID) || errors.Is(err, ErrNoRoute) {
		t.Fatal(err)
	}
	for id, want := range map[string]uint64{"good": 1, "later": 2, "taken": 0, "": 0} {
		if epoch, _ := s.Epoch(id); epoch != want {
			t.Errorf("%q is held under %d", id, epoch)
		}
	}
}

// TestKick: only a greater epoch counts, and the ID is not held afterwards.
func TestKick(t *testing.T) {
	kicks := make(chan Kick, 10)
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{Handler: accept, OnKick: func(k Kick) { kicks <- k }})
	bindFake(t, s, c, "me")
	for _, epoch := range []uint64{1, 99, 100} {
		c.put(codec.AppendKick(nil, "me", epoch))
	}
	c.put(codec.AppendKick(nil, "stranger", 1000))
	c.deliver("me", 100, codec.FlagAck)
	if f := c.expectAck(); f.Code != codec.CodeAcked {
		t.Fatalf("old kicks count: %+v", f)
	}
	c.put(codec.AppendKick(nil, "me", 101))
	if k := receive(t, kicks, "the kick"); k != (Kick{"me", 101, codec.CodeSuperseded}) || len(kicks) != 0 {
		t.Errorf("kicked with %+v, and %d more", k, len(kicks))
	}
	c.deliver("me", 100, codec.FlagAck)
	c.expect(codec.KindNotHere)
	if _, ok := s.Epoch("me"); ok {
		t.Error("a kicked ID is held")
	}
	c.Close()
	c = n.accept()
	c.deliver("me", 100, codec.FlagAck) // were the ID bound again, a bind would come first
	c.expect(codec.KindNotHere)
}

// TestKickOvertakesBound: frames of different lanes may come in any order.
func TestKickOvertakesBound(t *testing.T) {
	for _, kickEpoch := range []uint64{49, 51} {
		kicks := make(chan Kick, 1)
		n := newFakeNode(t).start()
		s, c := attachFake(t, n, Config{OnKick: func(k Kick) { kicks <- k }})
		done := make(chan error, 1)
		go func() { done <- s.Bind(context.Background(), "me") }()
		a := c.expectBind()
		c.put(codec.AppendKick(nil, "me", kickEpoch))
		c.bound(a, codec.Result{Epoch: 50})
		if err := receive(t, done, "bind"); err != nil {
			t.Fatal(err)
		}
		if _, held := s.Epoch("me"); held != (kickEpoch < 50) {
			t.Errorf("kick %d, bound 50: held %v", kickEpoch, held)
		}
		if kickEpoch > 50 {
			receive(t, kicks, "the kick")
		}
	}
}

func TestDeliverWhatIsHeld(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{Handler: accept})
	bindFake(t, s, c, "me")
	for _, v := range []struct {
		to    string
		epoch uint64
		here  bool
	}{{"me", 100, true}, {"me", 99, true}, {"me", 101, false}, {"you", 100, false}} {
		c.deliver(v.to, v.epoch, codec.FlagAck)
		if v.here {
			c.expectAck()
			continue
		}
		var f codec.Deliver
		if err := codec.DecodeNotHere(c.expect(codec.KindNotHere), &f); err != nil {
			t.Fatal(err)
		}
		if string(f.To) != v.to || f.Epoch != v.epoch || string(f.Token) != "token-"+v.to || string(f.From) != "x" ||
			string(f.Payload) != "hello" || f.Flags != codec.FlagAck || f.TTL == 0 || f.TTL > 1000 {
			t.Errorf("returned %+v", f)
		}
	}
	// Without ack the node can do nothing with the content, so it stays here.
	c.deliver("you", 100, codec.FlagReport)
	var f codec.Deliver
	if err := codec.DecodeNotHere(c.expect(codec.KindNotHere), &f); err != nil {
		t.Fatal(err)
	}
	if string(f.To) != "you" || f.Epoch != 100 || string(f.Token) != "token-you" || len(f.From)+len(f.Payload) != 0 || f.Flags != 0 || f.TTL != 0 {
		t.Errorf("returned %+v", f)
	}
	// Deliver may come before bound.
	go func() { _ = s.Bind(context.Background(), "early") }()
	a := c.expectBind()
	c.deliver("early", 7, codec.FlagAck)
	c.expectAck()
	c.bound(a, codec.Result{Epoch: 7})
}

// TestReassert: a node that does not know the session gets the bindings with their epochs; what was
// bound elsewhere in the meantime counts as kicked, what the registry cannot take is tried again.
func TestReassert(t *testing.T) {
	long(t)
	for name, refuse := range map[string]bool{"a new session": false, "a secret the node does not know": true} {
		t.Run(name, func(t *testing.T) {
			kicks := make(chan Kick, 10)
			n := newFakeNode(t)
			n.greet = func(h *codec.Hello, w *codec.Welcome) *codec.ErrorFrame {
				if refuse && len(h.Session) > 0 {
					return &codec.ErrorFrame{Fault: codec.FaultUnauthenticated, Flags: codec.ErrorClosing}
				}
				w.Flags = 0
				return nil
			}
			n.start()
			s, c := attachFake(t, n, Config{OnKick: func(k Kick) { kicks <- k }})
			bindFake(t, s, c, "a", "b", "c")
			c.Close()
			c = n.accept()
			a := c.expectBind()
			var r []codec.Result
			for _, v := range a.ids {
				if want := 100 + uint64(v.id[0]-'a'); v.epoch != want {
					t.Errorf("%s is asserted under %d, not %d", v.id, v.epoch, want)
				}
				r = append(r, map[string]codec.Result{"a": {Epoch: 100}, "b": {Code: codec.CodeSuperseded, Epoch: 500},
					"c": {Code: codec.CodeRegistryUnavailable}}[v.id])
			}
			c.bound(a, r...)
			if k := receive(t, kicks, "the kick"); k != (Kick{"b", 500, codec.CodeSuperseded}) {
				t.Errorf("kicked: %+v", k)
			}
			a = c.expectBind()
			if !slices.Equal(a.ids, []idEpoch{{"c", 102}}) {
				t.Errorf("asserted again: %v", a.ids)
			}
			c.bound(a, codec.Result{Epoch: 102})
			eventually(t, "all bindings", func() bool { return s.State().Attached && len(s.holds.looseOnes()) == 0 })
			if len(kicks) > 0 || s.State().Resumed {
				t.Errorf("%d more kicks; %+v", len(kicks), s.State())
			}
		})
	}
}

// cancelBind begins to bind id and cancels that when the fake node has read it. It returns what the
// node has been asked.
func cancelBind(t testing.TB, s *Session, c *fakeConn, id string) asked {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Bind(ctx, id) }()
	a := c.expectBind()
	cancel()
	if err := receive(t, done, "bind"); !errors.Is(err, ErrTimeout) {
		t.Fatal(err)
	}
	return a
}

// TestLateBound: if a bind is answered after its caller has heard that it failed, it is undone.
func TestLateBound(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	a := cancelBind(t, s, c, "me")
	c.bound(a, codec.Result{Epoch: 5})
	if back := c.expectUnbind(); !slices.Equal(back.ids, []idEpoch{{"me", 5}}) {
		t.Errorf("took back %v", back.ids)
	}
}

// TestBindCut: a bind that may have been done is not repeated; an unbind is.
func TestBindCut(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	bindFake(t, s, c, "me")
	done := make(chan error, 1)
	go func() { done <- s.Bind(context.Background(), "you") }()
	c.expectBind()
	c.Close()
	if err := receive(t, done, "bind"); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	c = n.accept()
	go func() { done <- s.Unbind(context.Background(), "me") }()
	c.expectUnbind()
	c.Close()
	c = n.accept()
	u := c.expectUnbind()
	if !slices.Equal(u.ids, []idEpoch{{"me", 100}}) {
		t.Errorf("unbinds %v", u.ids)
	}
	c.put(codec.AppendResults(nil, codec.KindUnbound, u.seq, []codec.Result{{Code: codec.CodeNoRoute}}))
	if err := receive(t, done, "unbind"); err != nil {
		t.Error(err)
	}
}

// TestUnwrittenBind: a bind of which no byte was written is asked again on the next connection,
// whatever it binds.
func TestUnwrittenBind(t *testing.T) {
	n := newFakeNode(t).start()
	s, c, kernel := attachBroken(t, n, Config{}, true)
	bindFake(t, s, c, "old")
	kernel.mu.Lock()
	kernel.left = 0
	kernel.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- s.Bind(context.Background(), "new") }()
	c = n.accept()
	a := c.expectBind()
	if !slices.Equal(a.ids, []idEpoch{{"new", 0}}) {
		t.Errorf("asked again for %v", a.ids)
	}
	// While that is under way, other operations on the ID wait.
	for op, call := range map[string]func(context.Context, ...string) error{"bind": s.Bind, "unbind": s.Unbind} {
		short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		err := call(short, "", "new")
		cancel()
		if !errors.Is(err, ErrExpired) || !errors.Is(err, ErrBadID) || !errors.Is(err, context.DeadlineExceeded) ||
			!strings.HasPrefix(err.Error(), "client: "+op+` "": bad_id: an ID has`) {
			t.Errorf("%s beside a bind: %v", op, err)
		}
	}
	c.bound(a, codec.Result{Epoch: 1})
	if err := receive(t, done, "bind"); err != nil {
		t.Error(err)
	}
}

// TestLateRebound: the ID of a late answer is held anyway, so its epoch is taken over.
func TestLateRebound(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	bindFake(t, s, c, "me")
	a := cancelBind(t, s, c, "me")
	c.bound(a, codec.Result{Epoch: 500})
	eventually(t, "the new epoch", func() bool { epoch, ok := s.Epoch("me"); return ok && epoch == 500 })
}
