package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"distmsg/codec"
	"distmsg/discovery"
)

func addrs(s *Session) (all []string) {
	for _, n := range s.State().Nodes {
		all = append(all, n.Addr)
	}
	slices.Sort(all)
	return all
}

func membersOf(nodes ...*fakeNode) []byte {
	var all []codec.Member
	for _, n := range nodes {
		all = append(all, codec.Member{Node: n.addr, Addr: n.addr})
	}
	return codec.AppendMembers(nil, all)
}

// TestMembersFrame: the session attaches to announced nodes. One that is announced no more is not
// looked for when it is lost.
func TestMembersFrame(t *testing.T) {
	a, b, gone := newFakeNode(t).start(), newFakeNode(t).start(), newFakeNode(t).start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	c.put(membersOf(a, b, gone))
	b.accept()
	last := gone.accept()
	eventually(t, "three nodes", func() bool { return len(addrs(s)) == 3 })
	c.put(membersOf(a, b))
	eventually(t, "the list", func() bool { s.attachments.mu.Lock(); defer s.attachments.mu.Unlock(); return len(s.nodes.told) == 2 })
	last.Close()
	eventually(t, "two nodes", func() bool { return len(addrs(s)) == 2 })
	if all := s.nodes.candidates(nil, gone.addr, ""); len(all) != 0 {
		t.Errorf("would still try %v", all)
	}
	c.put(membersOf(a, b, gone))
	gone.accept()
}

// TestMembershipGrows: a node that discovery finds is attached to, and none twice.
func TestMembershipGrows(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	m := &members{nodes: []discovery.Node{{Addr: a.addr}}, changed: make(chan struct{})}
	s, err := Dial(testContext(t), Config{Membership: m, Attach: AllNodes, Logger: quiet(), Heartbeat: patience, MaxBackoff: patience})
	if err != nil {
		t.Fatal(err)
	}
	closeAbruptly(t, s)
	a.accept()
	m.set(discovery.Node{Addr: a.addr}, discovery.Node{Addr: b.addr})
	if c := b.accept(); len(c.hello.Session) == 0 {
		t.Error("the second node is not told which session it is")
	}
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	if len(a.conns)+len(b.conns) > 0 {
		t.Error("a node is attached to twice")
	}
}

// TestLastResort: when all announced nodes are gone, the session tries the configured node.
func TestLastResort(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	s, c := attachFake(t, a, Config{})
	c.put(membersOf(b))
	eventually(t, "the list", func() bool { s.attachments.mu.Lock(); defer s.attachments.mu.Unlock(); return len(s.nodes.told) == 1 })
	b.ln.Close()
	c.Close()
	a.accept()
}

// TestStranger: a node that does not know the session yet is asked again while the session lives at
// another; the session that it made is ended.
func TestStranger(t *testing.T) {
	a, b := newFakeNode(t), newFakeNode(t)
	first := true
	b.greet = func(h *codec.Hello, w *codec.Welcome) *codec.ErrorFrame {
		if first {
			w.Flags, w.Session = 0, []byte("another session!")
		}
		first = false
		return nil
	}
	a.start()
	b.start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	c.put(membersOf(a, b))
	b.accept().expect(codec.KindBye)
	b.accept()
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	if v := s.State(); v.Session != fmt.Sprintf("%x", "0123456789abcdef") {
		t.Errorf("%+v", v)
	}
}

// TestSessionEnded: a node says that the session is dead. It starts again, with its IDs.
func TestSessionEnded(t *testing.T) {
	a, b := newFakeNode(t), newFakeNode(t)
	anew := func(h *codec.Hello, w *codec.Welcome) *codec.ErrorFrame {
		if len(h.Session) == 0 || string(h.Session) == "0123456789abcdef" {
			w.Flags, w.Session = 0, []byte("fedcba9876543210")
		}
		return nil
	}
	a.start()
	b.start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	bindFake(t, s, c, "me")
	a.ln.Close() // it would give out the same session again
	c.put(membersOf(a, b))
	other := b.accept()
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	a2 := newFakeNode(t)
	a2.greet = anew
	a2.start()
	other.put(membersOf(a2, b))
	third := a2.accept() // as a stranger
	third.expect(codec.KindBye)
	c.put(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultSessionEnded, Flags: codec.ErrorClosing}))
	for try := 0; ; try++ {
		if try == 20 {
			t.Fatal("does not begin anew")
		}
		third = a2.accept()
		body, err := third.frame()
		if err != nil {
			t.Fatal(err)
		}
		if kind, _ := codec.PeekKind(body); kind == codec.KindBye {
			continue
		}
		var f codec.Bind
		if err := codec.DecodeBind(body, 10, &f); err != nil {
			t.Fatal(err)
		}
		third.bound(asked{f.Seq, listIDs(f.IDs)}, codec.Result{Epoch: 100})
		break
	}
	other.expect(codec.KindLeave)
	other.put(codec.AppendLeft(nil))
	if again := b.accept(); string(again.hello.Session) != "fedcba9876543210" {
		t.Errorf("came back as %q", again.hello.Session)
	}
}

// TestAliases: a node with two addresses is attached to once.
func TestAliases(t *testing.T) {
	a, alias := newFakeNode(t), newFakeNode(t)
	same := func(_ *codec.Hello, w *codec.Welcome) *codec.ErrorFrame { w.Node = "one"; return nil }
	a.greet, alias.greet = same, same
	a.start()
	alias.start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	c.put(codec.AppendMembers(nil, []codec.Member{{Addr: a.addr}, {Addr: alias.addr}}))
	second := alias.accept()
	if second.hello.Flags&codec.HelloReplace != 0 {
		t.Error("asked to have the first connection closed")
	}
	second.expect(codec.KindLeave)
	second.put(codec.AppendLeft(nil))
	if _, err := second.frame(); err == nil {
		t.Error("goes on")
	}
	if got := addrs(s); !slices.Equal(got, []string{a.addr}) {
		t.Errorf("attached to %v", got)
	}
}

// TestRequestsMove: binds go over one connection, and over another when that is gone.
func TestRequestsMove(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	c.put(membersOf(a, b))
	other := b.accept()
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	bindFake(t, s, c, "me", "you")
	go func() { _ = s.Unbind(context.Background(), "me") }()
	c.expectUnbind()
	c.Close()
	u := other.expectUnbind()
	if !slices.Equal(u.ids, []idEpoch{{"me", 100}}) {
		t.Errorf("unbinds %v", u.ids)
	}
}

// TestReassertFrame: everything is said again on the connection that asked, in several frames at
// once and under the same epochs; what is superseded is lost, what the registry cannot take comes
// again, and so does the first denial.
func TestReassertFrame(t *testing.T) {
	long(t)
	for _, within := range []uint64{0, 300} {
		kicks := make(chan Kick, 10)
		n := newFakeNode(t).start()
		s, c := attachFake(t, n, Config{OnKick: func(k Kick) { kicks <- k }})
		bindFake(t, s, c, "a", "b", "c", "d", "e", "f", "g", "h", "i")
		c.put(codec.AppendReassert(nil, within))
		var frames []asked
		seen := make(map[string]bool)
		for len(seen) < 9 {
			f := c.expectBind()
			if len(f.ids) > int(fakeLimits.MaxIDs) {
				t.Fatalf("%d IDs in a frame", len(f.ids))
			}
			for _, v := range f.ids {
				if seen[v.id] = true; v.epoch != 100+uint64(v.id[0]-'a') {
					t.Errorf("%s is said under %d", v.id, v.epoch)
				}
			}
			if frames = append(frames, f); within > 0 {
				c.answer(f)
			}
		}
		if within == 0 {
			for _, f := range frames {
				c.answer(f)
			}
		}
		if k := receive(t, kicks, "the kick"); k != (Kick{"b", 500, codec.CodeSuperseded}) {
			t.Errorf("%+v", k)
		}
		again := make(map[string]uint64)
		for len(again) < 2 {
			f := c.expectBind()
			for _, v := range f.ids {
				again[v.id] = v.epoch
			}
			c.bound(f, codec.Result{})
		}
		if again["c"] != 102 || again["d"] != 103 {
			t.Errorf("said again: %v", again)
		}
		eventually(t, "all bindings", func() bool { return len(s.holds.looseOnes()) == 0 })
		if len(kicks) > 0 || s.Stats().IDs != 8 {
			t.Errorf("%d more kicks, %d IDs", len(kicks), s.Stats().IDs)
		}
	}
}

// answer answers a re-assert: b is bound elsewhere, c cannot be bound now, d is denied, the rest is
// well.
func (c *fakeConn) answer(f asked) {
	c.t.Helper()
	special := map[string]codec.Result{"b": {Code: codec.CodeSuperseded, Epoch: 500},
		"c": {Code: codec.CodeRegistryUnavailable}, "d": {Code: codec.CodeDenied}}
	var r []codec.Result
	for _, v := range f.ids {
		res, ok := special[v.id]
		if !ok {
			res.Epoch = v.epoch
		}
		r = append(r, res)
	}
	c.put(codec.AppendResults(nil, codec.KindBound, f.seq, r))
}

// TestStrayAssertion: an ID that was given back over one node while another was told of it is taken
// back there too.
func TestStrayAssertion(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	s, c := attachFake(t, a, Config{Attach: AllNodes})
	c.put(membersOf(a, b))
	other := b.accept()
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	bindFake(t, s, c, "me")
	other.put(codec.AppendReassert(nil, 0))
	said := other.expectBind()
	done := make(chan error, 1)
	go func() { done <- s.Unbind(context.Background(), "me") }()
	u := c.expectUnbind()
	c.put(codec.AppendResults(nil, codec.KindUnbound, u.seq, []codec.Result{{}}))
	if err := receive(t, done, "unbind"); err != nil {
		t.Fatal(err)
	}
	other.bound(said, codec.Result{Epoch: 100})
	if u := other.expectUnbind(); !slices.Equal(u.ids, []idEpoch{{"me", 100}}) {
		t.Errorf("takes back %v", u.ids)
	}
}

// TestBindPipelines: 100,000 IDs take the fewest frames possible, and 16 of them are sent before
// the first is answered.
func TestBindPipelines(t *testing.T) {
	const ids, perFrame = 100_000, 1000
	n := newFakeNode(t)
	n.greet = func(_ *codec.Hello, w *codec.Welcome) *codec.ErrorFrame {
		w.Limits.MaxIDs, w.Limits.MaxFrame = perFrame, 1<<20
		return nil
	}
	n.start()
	s, c := attachFake(t, n, Config{})
	var all []string
	for i := range ids {
		all = append(all, fmt.Sprint("user-", i))
	}
	done := make(chan error, 1)
	go func() { done <- s.Bind(testContext(t), all...) }()
	var open []asked
	for range ids / perFrame {
		if open = append(open, c.expectBind()); len(open) == pipeline {
			c.bound(open[0], codec.Result{Epoch: 1})
			open = open[1:]
		}
	}
	for _, f := range open {
		c.bound(f, codec.Result{Epoch: 1})
	}
	if err := receive(t, done, "bind"); err != nil {
		t.Fatal(err)
	}
	if s.Stats().IDs != ids {
		t.Errorf("holds %d IDs", s.Stats().IDs)
	}
}

// TestPickDoesNotAllocate: choosing a connection costs no memory, whatever the strategy.
func TestPickDoesNotAllocate(t *testing.T) {
	for _, strategy := range []discovery.Strategy{discovery.Random(), discovery.RoundRobin(), discovery.PairHash()} {
		a, b := newFakeNode(t).start(), newFakeNode(t).start()
		s, c := attachFake(t, a, Config{Attach: AllNodes, Strategy: strategy})
		c.put(membersOf(a, b))
		b.accept()
		eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
		if n := testing.AllocsPerRun(100, func() { s.attachments.pick("alice", "bob") }); n != 0 {
			t.Errorf("%T: %v allocations", strategy, n)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	_, err := Dial(context.Background(), Config{Nodes: []string{"a:1"}, Attach: -2})
	if err == nil || errors.Is(err, errNowhere) {
		t.Error(err)
	}
}

// TestReassertBehindBound: the node asks for all bindings in the very write that grants one. By
// then that one is held.
func TestReassertBehindBound(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	for i := range 30 {
		bound := make(chan error, 1)
		id, epoch := fmt.Sprint("user-", i), uint64(100+i)
		go func() { bound <- s.Bind(testContext(t), id) }()
		a := c.expectBind()
		c.put(codec.AppendReassert(codec.AppendResults(nil, codec.KindBound, a.seq, []codec.Result{{Epoch: epoch}}), 0))
		if err := receive(t, bound, "the end of Bind"); err != nil {
			t.Fatal(err)
		}
		for held := i + 1; held > 0; {
			again := c.expectBind()
			var r []codec.Result
			for _, v := range again.ids {
				r = append(r, codec.Result{Epoch: v.epoch})
			}
			c.bound(again, r...)
			held -= len(again.ids)
		}
	}
}

// TestDeliverBehindBound: Bind still waits for other IDs, but the node has granted this one under
// an epoch. A message under a greater one is not for this session, and a kick that has come holds.
func TestDeliverBehindBound(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{Handler: accept})
	go func() { _ = s.Bind(context.Background(), "a", "b", "c", "d", "e") }()
	a := c.expectBind()
	c.expectBind()
	c.deliver("a", 500, codec.FlagAck) // not granted yet: it may be under this epoch
	c.expectAck()
	c.put(codec.AppendKick(nil, "b", 200))
	c.bound(a, codec.Result{Epoch: 100})
	for _, to := range []string{"a", "b"} {
		c.deliver(to, 150, codec.FlagAck)
		c.expect(codec.KindNotHere)
		c.deliver(to, 100, codec.FlagAck)
		if to == "a" {
			c.expectAck()
		} else {
			c.expect(codec.KindNotHere)
		}
	}
}

// TestReplaced: the session continues in another client. To attach again would cut that one off in
// turn.
func TestReplaced(t *testing.T) {
	n := newFakeNode(t).start()
	states := make(chan State, 10)
	s, c := attachFake(t, n, Config{OnState: func(s State) { states <- s }})
	bindFake(t, s, c, "a")
	receive(t, states, "the first state")
	c.put(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultReplaced, Flags: codec.ErrorClosing}))
	if state := receive(t, states, "the end"); state.Attached || state.Err == nil {
		t.Errorf("%+v", state)
	}
	if err := s.Bind(testContext(t), "b"); !errors.Is(err, ErrClosed) {
		t.Errorf("bind: %v", err)
	}
	if _, err := s.Send(testContext(t), Message{From: "a", To: "b"}); !errors.Is(err, ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if err := s.Close(testContext(t)); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(n.conns) > 0 {
		t.Error("it has attached again")
	}
}
