package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// collect sends n messages asynchronously and returns a function that waits for their outcomes. A
// second outcome of one message fails the test.
func collect(t testing.TB, s *Session, n int) (wait func() []error) {
	t.Helper()
	outcomes := make([]error, n)
	var times [100]atomic.Int32
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		s.SendAsync(context.Background(), Message{To: fmt.Sprintf("to-%d", i), From: "me", Payload: []byte("payload")}, func(_ Reply, err error) {
			outcomes[i] = err
			if times[i].Add(1) == 1 {
				all.Done()
			} else {
				t.Errorf("message %d has a second outcome: %v", i, err)
			}
		})
	}
	return func() []error {
		t.Helper()
		done := make(chan struct{})
		go func() {
			all.Wait()
			close(done)
		}()
		receive(t, done, "all outcomes")
		return outcomes
	}
}

// TestCutAfterAnyByteFromNode: the node answers three sends, and the connection dies after each
// possible number of bytes. What was answered in full is acked; the rest is lost.
func TestCutAfterAnyByteFromNode(t *testing.T) {
	const sends = 3
	size := len(codec.AppendOutcome(nil, &codec.Outcome{Seq: 1 << slotBits << 1, Code: codec.CodeAcked}))
	for cut := 0; cut <= sends*size; cut++ {
		n := newFakeNode(t).start()
		s, c := attachFake(t, n, Config{})
		wait := collect(t, s, sends)
		var answers []byte
		var seqs []uint64
		for range sends {
			f := c.expectSend()
			seqs = append(seqs, f.Seq)
			answers = codec.AppendOutcome(answers, &codec.Outcome{Seq: f.Seq, Code: codec.CodeAcked})
		}
		if cut < len(answers) {
			answers = answers[:cut]
		}
		c.put(answers)
		_ = c.Conn.(*net.TCPConn).CloseWrite() // no reset, which could overtake the answers
		for i, err := range wait() {
			if acked := (i+1)*size <= cut; acked != (err == nil) || !acked && !errors.Is(err, ErrLost) {
				t.Fatalf("cut after %d of %d bytes: message %d (%#x) ended with %v", cut, sends*size, i, seqs[i], err)
			}
		}
		if st := s.Stats(); st.LateOutcomes != 0 || st.InFlight != 0 || st.InFlightBytes != 0 {
			t.Fatalf("cut after %d bytes: %+v", cut, st)
		}
		n.ln.Close()
	}
}

// brokenConn takes a number of bytes and then fails, as a socket does whose peer has gone.
type brokenConn struct {
	net.Conn
	mu   sync.Mutex
	left int
}

var errBroken = errors.New("broken on purpose")

func (c *brokenConn) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := min(len(b), c.left)
	c.left -= n
	written, err := c.Conn.Write(b[:n])
	if err == nil && n < len(b) {
		err = errBroken
	}
	return written, err
}

// attachBroken attaches over a brokenConn that is whole yet. The next connection is sound, if there shall be one.
func attachBroken(t testing.TB, n *fakeNode, cfg Config, next bool) (*Session, *fakeConn, *brokenConn) {
	t.Helper()
	var broken *brokenConn
	cfg.Dialer = func(_ context.Context, addr string) (net.Conn, error) {
		if broken != nil && !next {
			return nil, errBroken
		}
		nc, err := net.Dial("tcp", addr)
		if broken != nil {
			return nc, err
		}
		broken = &brokenConn{Conn: nc, left: 1 << 20}
		return broken, err
	}
	s, c := attachFake(t, n, cfg)
	return s, c, broken
}

// TestCutAfterAnyByteToNode: the kernel takes each possible number of bytes. The messages of which it
// took at least one byte are lost, the others unreachable; posts among them are reported.
func TestCutAfterAnyByteToNode(t *testing.T) {
	const sends = 4
	n := newFakeNode(t).start()
	size := len(codec.AppendSend(nil, &codec.Send{Seq: 1 << slotBits << 1, To: []byte("to-0"), From: []byte("me"),
		TTL: 29_999, Payload: []byte("payload")}))
	for cut := range sends * size {
		s, _, kernel := attachBroken(t, n, Config{}, false)
		kernel.mu.Lock() // all shall be in the buffer before any is written
		wait := collect(t, s, sends)
		kernel.left = cut
		kernel.mu.Unlock()
		outcomes := wait()
		frames := (cut + size - 1) / size // begun before the cut
		for i, err := range outcomes {
			want := ErrUnreachable
			if i < frames {
				want = ErrLost
			}
			if !errors.Is(err, want) || !errors.Is(err, errBroken) {
				t.Fatalf("cut after %d bytes: message %d ended with %v, want %v", cut, i, err, want)
			}
		}
	}
}

// TestUnwrittenPost: a post that was never written is reported, one that was is not.
func TestUnwrittenPost(t *testing.T) {
	n := newFakeNode(t).start()
	failures := make(chan uint64, 10)
	s, _, kernel := attachBroken(t, n, Config{OnPostFailed: func(id uint64, err *Error) {
		if !errors.Is(err, ErrUnreachable) {
			t.Error(err)
		}
		failures <- id
	}}, false)
	kernel.mu.Lock()
	kernel.left = 0
	kernel.mu.Unlock()
	id, err := s.Post(testContext(t), Message{To: "you", From: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if got := receive(t, failures, "the report"); got != id {
		t.Errorf("post %d is reported, not %d", got, id)
	}
}

func TestForgedLateAndDoubleOutcomes(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	wait := collect(t, s, 1)
	f := c.expectSend()
	c.outcome(f.Seq+1<<30, codec.CodeNoRoute) // forged: another generation
	c.outcome(f.Seq+2, codec.CodeNoRoute)     // forged: another slot
	c.outcome(f.Seq, codec.CodeAcked)
	c.outcome(f.Seq, codec.CodeNoRoute) // double
	if err := wait()[0]; err != nil {
		t.Error(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	given := make(chan error, 1)
	go func() {
		_, err := s.Send(ctx, Message{To: "you", From: "me"})
		given <- err
	}()
	f = c.expectSend()
	cancel()
	err := receive(t, given, "the cancelled send")
	if !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled send ended with %v", err)
	}
	if used, _ := s.window.used(); used != 1 {
		t.Errorf("%d sends are in flight while the node has one", used)
	}
	c.outcome(f.Seq, codec.CodeAcked) // late
	eventually(t, "the late outcome", func() bool { return s.Stats().LateOutcomes == 4 })
	st := s.Stats()
	if st.InFlight != 0 || st.Outcomes[codec.CodeAcked] != 1 || st.Outcomes[codec.CodeTimeout] != 1 || len(st.Outcomes) != 2 {
		t.Errorf("%+v", st)
	}
}

// TestUnknownOutcomeCode: a newer node's code is classified by its range (S4).
func TestUnknownOutcomeCode(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	for code, want := range map[codec.Code]codec.Delivered{7: codec.DeliveredYes, 20: codec.DeliveredYes,
		40: codec.DeliveredNo, 60: codec.DeliveredNo, 79: codec.DeliveredNo, 90: codec.DeliveredUnknown, 120: codec.DeliveredUnknown} {
		wait := collect(t, s, 1)
		c.outcome(c.expectSend().Seq, code)
		err := wait()[0]
		if code < codec.CodeRejected {
			if err != nil {
				t.Errorf("code %d: %v", code, err)
			}
			continue
		}
		var e *Error
		if !errors.As(err, &e) || e.Delivered() != want || e.SafeToRetry() != (code < 64 && code >= 32) ||
			e.Temporary() != (e.SafeToRetry() || want == codec.DeliveredUnknown) {
			t.Errorf("code %d: %v, delivered %v, safe %v, temporary %v", code, err, e.Delivered(), e.SafeToRetry(), e.Temporary())
		}
	}
}

// TestStoppedNode: a node that answers pings but never a send does not hold a sender for ever.
func TestStoppedNode(t *testing.T) {
	long(t)
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	go func() {
		for {
			if _, err := c.frame(); err != nil {
				return
			}
		}
	}()
	_, err := s.Send(context.Background(), Message{To: "you", From: "me", TTL: time.Millisecond})
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("ended with %v", err)
	}
}

// TestSilentNode: a node that sends nothing at all is given up, and what it had is lost.
func TestSilentNode(t *testing.T) {
	n := newFakeNode(t).start()
	s, _ := attachFake(t, n, Config{Heartbeat: 20 * time.Millisecond})
	_, err := s.Send(context.Background(), Message{To: "you", From: "me"})
	if !errors.Is(err, ErrLost) || !errors.Is(err, errSilent) {
		t.Errorf("ended with %v", err)
	}
	c := n.accept()
	if len(c.hello.Session) == 0 || c.hello.Flags&codec.HelloReplace == 0 {
		t.Errorf("came back with %+v, which resumes nothing", c.hello)
	}
}

// TestHeartbeatIsKept: hello promises something every heartbeat, and the node gets it although it
// never falls silent itself.
func TestHeartbeatIsKept(t *testing.T) {
	n := newFakeNode(t).start()
	_, c := attachFake(t, n, Config{Heartbeat: 40 * time.Millisecond})
	if c.hello.Heartbeat != 40 {
		t.Errorf("hello promises %d ms", c.hello.Heartbeat)
	}
	stop := make(chan struct{})
	var talking sync.WaitGroup
	talking.Go(func() {
		pace := time.NewTicker(2 * time.Millisecond)
		defer pace.Stop()
		for {
			select {
			case <-stop:
				return
			case <-pace.C:
				_, _ = c.Write(codec.AppendMembers(nil, nil))
			}
		}
	})
	defer talking.Wait()
	defer close(stop)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for range 3 {
		for {
			body, size, err := codec.Split(c.buf, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 {
				c.buf = c.buf[size:]
				if _, err := codec.DecodePing(body); err != nil {
					t.Fatal(err)
				}
				break
			}
			chunk := make([]byte, 4096)
			got, err := c.Read(chunk)
			if err != nil {
				t.Fatal(err)
			}
			c.buf = append(c.buf, chunk[:got]...)
		}
	}
}

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

// TestLateBound: a bind that is answered after its caller was told that it failed is taken back.
func TestLateBound(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Bind(ctx, "me") }()
	a := c.expectBind()
	cancel()
	if err := receive(t, done, "bind"); !errors.Is(err, ErrTimeout) {
		t.Fatal(err)
	}
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

// TestCredit: posts never exceed the credit, and go on when it is renewed.
func TestCredit(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	const posts = 100
	go func() {
		for range posts {
			if _, err := s.Post(context.Background(), Message{To: "you", From: "me", Payload: make([]byte, 100)}); err != nil {
				t.Error(err)
			}
		}
	}()
	total, granted := 0, int(fakeLimits.Credit)
	for range posts {
		f := c.expectSend()
		if f.Flags != 0 || f.TTL != 0 {
			t.Fatalf("%+v", f)
		}
		size := len(codec.AppendSend(nil, &f))
		if total += size; total > granted {
			t.Fatalf("%d bytes were posted, %d are granted", total, granted)
		}
		if granted-total < size { // not one more fits
			granted += size
			c.put(codec.AppendCredit(nil, uint64(granted)))
		}
	}
	if _, err := s.Post(context.Background(), Message{To: "you", From: "me", Payload: make([]byte, 600)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a post over the whole credit: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	for range 10 {
		if _, err := s.Post(ctx, Message{To: "you", From: "me", Payload: make([]byte, 100)}); err != nil {
			if !errors.Is(err, ErrExpired) || !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
	t.Error("posted without credit")
}

func TestBadBytesFromNode(t *testing.T) {
	for name, bytes := range map[string][]byte{
		"zero length": {0, 0, 0, 0},
		"oversize":    {255, 255, 255, 255},
		"not msgpack": {0, 0, 0, 2, 0xc1, 0xc1},
		"half a kick": {0, 0, 0, 2, 0x91, byte(codec.KindKick)},
		"closing error": codec.AppendError(nil, &codec.ErrorFrame{
			Fault: codec.FaultSlowConsumer, Flags: codec.ErrorClosing}),
	} {
		t.Run(name, func(t *testing.T) {
			states := make(chan State, 10)
			n := newFakeNode(t).start()
			_, c := attachFake(t, n, Config{OnState: func(v State) { states <- v }})
			if v := receive(t, states, "the first state"); !v.Attached {
				t.Errorf("%+v", v)
			}
			c.put(bytes)
			if v := receive(t, states, "the end"); v.Attached || v.Err == nil {
				t.Errorf("%+v", v)
			}
			n.accept()
			if v := receive(t, states, "the new beginning"); !v.Attached || !v.Resumed {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestHarmlessFrames: what a newer node may send does not end the connection.
func TestHarmlessFrames(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	c.put([]byte{0, 0, 0, 2, 0x91, 99})
	c.put(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultBadToken}))
	c.put(codec.AppendPing(nil, 42))
	if nonce, err := codec.DecodePong(c.expect(codec.KindPong)); err != nil || nonce != 42 {
		t.Errorf("pong %d, %v", nonce, err)
	}
	if st := s.Stats(); st.Faults != 2 || st.Attaches != 1 {
		t.Errorf("%+v", st)
	}
}

// TestSplitReads: frames may come in pieces of any size.
func TestSplitReads(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{Handler: func(_ context.Context, d *Delivery) { _ = d.Reply(d.Payload) }})
	bindFake(t, s, c, "me")
	frame := codec.AppendDeliver(nil, &codec.Deliver{Token: []byte{1}, To: []byte("me"), Flags: codec.FlagAck, Epoch: 100, Payload: make([]byte, 900)})
	for _, size := range []int{1, 3, len(frame) - 1, len(frame) + 1} {
		for two := append(slices.Clone(frame), frame...); len(two) > 0; two = two[min(size, len(two)):] {
			c.put(two[:min(size, len(two))])
		}
		for range 2 {
			if f := c.expectAck(); len(f.Reply) != 900 {
				t.Fatalf("pieces of %d bytes: %+v", size, f)
			}
		}
	}
}

// TestDrain: the session moves to the other node, and what the first one still owes comes in.
func TestDrain(t *testing.T) {
	drains, states := make(chan Drain, 1), make(chan State, 10)
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	release := make(chan struct{})
	slow := func(_ context.Context, d *Delivery) {
		if d.From == "x" {
			<-release
		}
	}
	s, c := attachFake(t, a, Config{Handler: slow, OnDrain: func(d Drain) { drains <- d }, OnState: func(v State) { states <- v }})
	old := s.first()
	bindFake(t, s, c, "me")
	wait := collect(t, s, 1)
	owed := c.expectSend()
	c.put(codec.AppendDrain(nil, &codec.Drain{Spread: 1, Deadline: 5000, Addrs: []string{b.addr}}))
	if d := receive(t, drains, "OnDrain"); d.Addr != a.addr || d.Deadline != 5*time.Second || !slices.Equal(d.Addrs, []string{b.addr}) {
		t.Errorf("%+v", d)
	}
	moved := b.accept()
	if string(moved.hello.Session) != "0123456789abcdef" {
		t.Errorf("moved as %+v", moved.hello)
	}
	for v := receive(t, states, "the move"); v.Addr != b.addr; v = receive(t, states, "the move") {
	}
	go collect(t, s, 1)
	moved.expectSend()
	c.deliver("me", 100, codec.FlagAck) // not everybody has heard of the move
	c.outcome(owed.Seq, codec.CodeAcked)
	if err := wait()[0]; err != nil {
		t.Error(err)
	}
	if err := codec.DecodeLeave(c.expect(codec.KindLeave)); err != nil {
		t.Fatal(err)
	}
	c.deliver("me", 100, 0) // nor have all loops of the node
	c.put(codec.AppendLeft(nil))
	eventually(t, "left", func() bool { return old.left.Load() && s.Stats().Received == 2 })
	close(release) // an answer that comes late is still heard
	c.expectAck()
	if _, err := c.frame(); err == nil || len(c.buf) > 0 {
		t.Errorf("the first connection goes on: %v", err)
	}
	if v := s.State(); !v.Attached || v.Addr != b.addr {
		t.Errorf("%+v", v)
	}
}

func TestDialErrors(t *testing.T) {
	n := newFakeNode(t)
	n.greet = func(*codec.Hello, *codec.Welcome) *codec.ErrorFrame {
		return &codec.ErrorFrame{Fault: codec.FaultUnauthenticated, Flags: codec.ErrorClosing, Message: "who are you?"}
	}
	n.start()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // accepts nobody
	_, err = Dial(testContext(t), Config{Nodes: []string{n.addr, ln.Addr().String()}, DialTimeout: 50 * time.Millisecond, Logger: quiet()})
	var f *fault
	if !errors.As(err, &f) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("does not say why each node failed: %v", err)
	}
	for _, cfg := range []Config{{}, {Nodes: []string{"nonsense"}}, {Nodes: []string{"a:1"}, Workers: -1}} {
		if s, err := Dial(context.Background(), cfg); err == nil || s != nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

// TestLookupIsAskedAgain: a question that got lost is asked again; an answer is final, whatever it says.
func TestLookupIsAskedAgain(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	done := make(chan []Presence, 1)
	go func() {
		found, err := s.Lookup(context.Background(), "a", "", "b", "c")
		if err != nil {
			t.Error(err)
		}
		done <- found
	}()
	c.expect(codec.KindLookup)
	c.Close()
	c = n.accept()
	var f codec.Lookup
	if err := codec.DecodeLookup(c.expect(codec.KindLookup), 10, &f); err != nil {
		t.Fatal(err)
	}
	c.put(codec.AppendResults(nil, codec.KindFound, f.Seq, []codec.Result{{Epoch: 1},
		{Code: codec.CodeUnreachable, Epoch: 2}, {Code: codec.CodeRegistryUnavailable}}))
	want := []Presence{{ID: "a", Epoch: 1}, {Code: codec.CodeBadID}, {ID: "b", Code: codec.CodeUnreachable, Epoch: 2},
		{ID: "c", Code: codec.CodeRegistryUnavailable}}
	if found := receive(t, done, "the answer"); !slices.Equal(found, want) {
		t.Errorf("%+v", found)
	}
}

// TestBacklog: a node that delivers and does not read is given up before the answers to it eat the memory.
func TestBacklog(t *testing.T) {
	n := newFakeNode(t).start()
	s, _, kernel := attachBroken(t, n, Config{MaxInFlightBytes: 1, QueueTotal: 10_000}, false)
	c := s.first()
	kernel.mu.Lock() // takes nothing from now on
	resume := sync.OnceFunc(kernel.mu.Unlock)
	defer resume()
	c.append(func(b []byte) []byte { return codec.AppendPing(b, 1) })
	eventually(t, "the writer to be stuck", func() bool { return c.backlog() == 0 })
	for range 30 {
		_, _ = c.ack(&codec.Ack{Token: []byte("x"), Code: codec.CodeAcked, Reply: make([]byte, 1000)})
	}
	eventually(t, "the end", func() bool { return s.first() == nil })
	resume()
	receive(t, c.dead, "the end of the connection")
	if !errors.Is(c.cause, errBacklog) {
		t.Errorf("ended with %v", c.cause)
	}
}

// TestNewNodeEndsBackoff: a session that found no node does not sleep when discovery has news.
func TestNewNodeEndsBackoff(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	m := &members{nodes: []discovery.Node{{Addr: a.addr}}, changed: make(chan struct{})}
	s, err := Dial(testContext(t), Config{Membership: m, Logger: quiet(), Heartbeat: patience, MaxBackoff: patience})
	if err != nil {
		t.Fatal(err)
	}
	closeAbruptly(t, s)
	c := a.accept()
	a.ln.Close()

	c.Close()
	m.set(discovery.Node{Addr: b.addr})
	b.accept()
}

// members is a Membership that a test changes.
type members struct {
	mu      sync.Mutex
	nodes   []discovery.Node
	changed chan struct{}
}

func (m *members) Nodes() ([]discovery.Node, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes, m.changed
}

func (m *members) set(nodes ...discovery.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nodes = nodes
	close(m.changed)
	m.changed = make(chan struct{})
}

// TestUnwrittenBind: a bind of which no byte was written is asked again on the next connection, whatever it binds.
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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Bind(ctx, "me") }()
	a := c.expectBind()
	cancel()
	if err := receive(t, done, "bind"); !errors.Is(err, ErrTimeout) {
		t.Fatal(err)
	}
	c.bound(a, codec.Result{Epoch: 500})
	eventually(t, "the new epoch", func() bool { epoch, ok := s.Epoch("me"); return ok && epoch == 500 })
}
