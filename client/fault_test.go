package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
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

// attachBroken attaches over a brokenConn that is whole yet. The next connection is sound, if there
// shall be one.
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

// TestCutAfterAnyByteToNode: the kernel takes each possible number of bytes. The messages of which
// it took at least one byte are lost, the others unreachable; posts among them are reported.
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

// TestCredit: posts never exceed the credit, and resume when it is renewed.
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
	ctx := newWaitedFor()
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
	old := s.attachments.first()
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
	eventually(t, "left", func() bool { return old.departure.phase.Load() == hasLeft && s.Stats().Received == 2 })
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

// TestLookupIsAskedAgain: a question that got lost is asked again; an answer is final, whatever it
// says.
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

// TestBacklog: a node that delivers and does not read is given up before the answers to it eat the
// memory.
func TestBacklog(t *testing.T) {
	n := newFakeNode(t).start()
	s, _, kernel := attachBroken(t, n, Config{MaxInFlightBytes: 1, QueueTotal: 10_000}, false)
	c := s.attachments.first()
	kernel.mu.Lock() // takes nothing from now on
	resume := sync.OnceFunc(kernel.mu.Unlock)
	defer resume()
	c.append(func(b []byte) []byte { return codec.AppendPing(b, 1) })
	eventually(t, "the writer to be stuck", func() bool { return c.backlog() == 0 })
	for range 30 {
		_, _ = c.ack(&codec.Ack{Token: []byte("x"), Code: codec.CodeAcked, Reply: make([]byte, 1000)})
	}
	eventually(t, "the end", func() bool { return s.attachments.first() == nil })
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
