package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

// An outcome is an error that says what a program has to know.
func TestSendError(t *testing.T) {
	for _, c := range []struct {
		err       *SendError
		delivered codec.Delivered
		safe      bool
		temporary bool
	}{
		{ErrNoRoute, codec.DeliveredNo, true, false},
		{ErrUnreachable, codec.DeliveredNo, true, true},
		{ErrDenied, codec.DeliveredNo, false, false},
		{ErrTimeout, codec.DeliveredUnknown, false, true},
		{ErrRejected, codec.DeliveredYes, false, false},
	} {
		got := fmt.Errorf("wrapped: %w", &SendError{c.err.Code, "for a reason", context.Canceled})
		if !errors.Is(got, c.err) || errors.Is(got, ErrLost) || !errors.Is(got, context.Canceled) {
			t.Errorf("%v is not %v", got, c.err)
		}
		if c.err.Delivered() != c.delivered || c.err.SafeToRetry() != c.safe || c.err.Temporary() != c.temporary {
			t.Errorf("%v: delivered %v, safe %v, temporary %v", c.err, c.err.Delivered(), c.err.SafeToRetry(), c.err.Temporary())
		}
	}
	if err := error(&BindError{ID: "x", Code: codec.CodeDenied}); !errors.Is(err, ErrDenied) || errors.Is(err, ErrBadID) {
		t.Error(err)
	}
}

// standStill stops a loop until the function that it returns is called.
func standStill(n *node, l *loop) (goOn func()) {
	n.t.Helper()
	blocked, release := make(chan struct{}), make(chan struct{})
	l.post(func() { close(blocked); <-release })
	<-blocked
	return sync.OnceFunc(func() { close(release) })
}

// waits waits until as many goroutines are in function.
func (n *node) waits(function string, count int) {
	n.t.Helper()
	n.eventually(function, func() bool {
		stacks := make([]byte, 1<<20)
		return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), function+"(") >= count
	})
}

// While the loop stands still, senders wait when too much waits already, and so does the end. Those whose context ends first have
// sent nothing and know it; the others have sent.
func TestInProcessBackpressure(t *testing.T) {
	n := start(t, Config{MaxPayload: 1 << 12, MaxPending: 1 << 16, DefaultTTL: time.Minute})
	s := n.inside(InProcessConfig{}, "in")
	goOn := standStill(n, s.conn.loop)
	defer goOn()
	fill := make([]byte, 1<<12)
	var sent int
	for err := error(nil); err == nil; sent++ {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if err = s.Post(ctx, "in", "in", fill); err != nil {
			if !errors.Is(err, ErrExpired) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			sent--
		}
		cancel()
		if sent > 100 {
			t.Fatal("there is no end to it")
		}
	}
	if sent < 16 || sent > 17 {
		t.Errorf("%d messages of 4 KiB fit into 64 KiB", sent)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Send(ended, "in", "in", nil); errors.Is(err, ErrExpired) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := s.Bind(ended, "more"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	posted := make(chan error, 1)
	go func() { posted <- s.Post(context.Background(), "in", "in", []byte("last")) }()
	n.waits("(*InProcess).waitForRoom", 1)
	goOn()
	if err := <-posted; err != nil {
		t.Error(err)
	}
	if got := n.counters().Sends; got != uint64(sent+1) { // what became of them is another matter: the session's own queue is short, too
		t.Errorf("%d sends, want %d", got, sent+1)
	}
}

// What the loop has not taken when the session ends was not sent. Close needs no room.
func TestInProcessCloseFull(t *testing.T) {
	n := start(t, Config{MaxPayload: 1 << 12, MaxPending: 1 << 13, DefaultTTL: time.Minute})
	s := n.inside(InProcessConfig{}, "in")
	goOn := standStill(n, s.conn.loop)
	defer goOn()
	for len(s.in) <= 1<<13 {
		if err := s.Post(patient(t), "in", "in", make([]byte, 1<<12)); err != nil {
			t.Fatal(err)
		}
	}
	sent := make(chan error, 1)
	go func() { _, err := s.Send(context.Background(), "in", "in", nil); sent <- err }()
	n.waits("(*InProcess).waitForRoom", 1)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Close(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Close while the loop stands still: %v", err)
	}
	goOn()
	if err := s.Close(patient(t)); err != nil {
		t.Error(err)
	}
	if err := <-sent; err == nil { // it came before the end, or after it, or with it
		t.Error("acked by a session that handles no messages")
	}
}

// Posts without end: they draw on no credit, and their sender is held up rather than cut off.
func TestInProcessPostsManyBytes(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxPayload: 1 << 14, MaxPending: 1 << 20, Credit: 1 << 17})
		from, to := n.inside(InProcessConfig{}, "from"), n.inside(InProcessConfig{Handler: func(*Message) {}}, "to")
		for range 1000 {
			if err := from.Post(patient(t), "from", "to", make([]byte, 1<<14)); err != nil {
				t.Fatal(err)
			}
		}
		n.settle()
		if _, err := from.Send(patient(t), "from", "to", nil); err != nil && !errors.Is(err, ErrOverflow) {
			t.Error(err)
		}
		select {
		case <-to.Done():
			t.Error("the receiver is over")
		case <-from.Done():
			t.Error("the sender is over")
		default:
		}
	})
}

// The deadline of a post is its context's.
func TestInProcessPostDeadline(t *testing.T) {
	n := start(t, Config{})
	s, out := n.inside(InProcessConfig{}, "in"), n.join("out")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ttl, ctx := range map[uint32]context.Context{0: context.Background(), 20_000: ctx} {
		if err := s.Post(ctx, "in", "out", []byte("x")); err != nil {
			t.Fatal(err)
		}
		if d := out.gets("in", "out", "x"); d.TTL > ttl || ttl > 0 && d.TTL == 0 || d.Flags != 0 {
			t.Errorf("ttl %d of %d, flags %d", d.TTL, ttl, d.Flags)
		}
	}
}

// With MaxInFlight sends under way, more wait for one of them to end; nobody hears overflow.
func TestInProcessWindow(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxInFlight: 3, DefaultTTL: time.Minute})
		s, out := n.inside(InProcessConfig{}, "in"), n.join("out")
		ended := make(chan error, 10)
		send := func(payload string) {
			s.SendAsync(context.Background(), "in", "out", []byte(payload), func(_ []byte, err error) { ended <- err })
		}
		var all []codec.Deliver
		for i := range 3 {
			send(fmt.Sprint(i))
			all = append(all, out.gets("in", "out", fmt.Sprint(i)))
		}
		soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Send(soon, "in", "out", nil); !errors.Is(err, ErrExpired) {
			t.Errorf("%v", err)
		}
		more := make(chan struct{})
		go func() { send("3"); close(more) }()
		n.waits("(*InProcess).waitForRoom", 1)
		out.silent()
		out.ack(all[1], "")
		<-more
		all[1] = out.gets("in", "out", "3")
		// A send that nobody waits for any more is in flight all the same.
		out.ack(all[0], "")
		<-ended
		<-ended
		given, giveUp := context.WithCancel(t.Context())
		up := make(chan error, 1)
		go func() { _, err := s.Send(given, "in", "out", []byte("4")); up <- err }()
		all[0] = out.gets("in", "out", "4")
		giveUp()
		if err := <-up; !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		soon, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Send(soon, "in", "out", nil); !errors.Is(err, ErrExpired) {
			t.Errorf("%v", err)
		}
		for _, d := range all {
			out.ack(d, "")
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
		n.settle()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.inFlight != 0 || len(s.waiting) != 0 {
			t.Errorf("%d in flight, %d wait", s.inFlight, len(s.waiting))
		}
	})
}

// Many sends of one goroutine arrive in order, and each callback is called once, with the receiver's own answer.
func TestInProcessAsync(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxInFlight: 100, DefaultTTL: time.Minute})
		const sends = 5000
		var got []string
		to := n.inside(InProcessConfig{Handler: func(m *Message) {
			got = append(got, string(m.Payload))
			m.Ack(m.Payload)
		}}, "to")
		from := n.inside(InProcessConfig{}, "from")
		calls := make([]int, sends)
		var all sync.WaitGroup
		for i := range sends {
			all.Add(1)
			from.SendAsync(patient(t), "from", "to", fmt.Append(nil, i), func(reply []byte, err error) {
				defer all.Done()
				if calls[i]++; string(reply) != fmt.Sprint(i) || err != nil {
					t.Errorf("%d: %q %v", i, reply, err)
				}
				if i%1000 == 0 {
					panic("as you wish")
				}
			})
		}
		all.Wait()
		_ = to.Close(t.Context())
		for i := range sends {
			if got[i] != fmt.Sprint(i) || calls[i] != 1 {
				t.Fatalf("%d: %s came, %d calls", i, got[i], calls[i])
			}
		}
		told := make(chan error, 1)
		from.SendAsync(patient(t), "from", "", nil, func(_ []byte, err error) { told <- err })
		if err := <-told; err == nil || outcomeOf(err) != codec.CodeOK {
			t.Errorf("%v", err)
		}
	})
}

// Close tells all who wait, and waits for their callbacks.
func TestInProcessAsyncClose(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	out := n.join("out")
	s := n.inside(InProcessConfig{}, "in")
	var ends [2]error
	entered, release := make(chan struct{}), make(chan struct{})
	s.SendAsync(patient(t), "in", "out", []byte("x"), func(_ []byte, err error) { ends[0] = err; close(entered); <-release })
	s.SendAsync(patient(t), "in", "out", []byte("y"), func(_ []byte, err error) { ends[1] = err })
	out.gets("in", "out", "x")
	out.gets("in", "out", "y")
	closed := make(chan struct{})
	go func() { _ = s.Close(context.Background()); close(closed) }()
	<-entered
	<-s.Done()
	select {
	case <-closed:
		t.Error("Close returned while a callback ran")
	default:
	}
	close(release)
	<-closed
	for _, err := range ends {
		if !errors.Is(err, ErrLost) {
			t.Errorf("%v", err)
		}
	}
	told := make(chan error, 1)
	s.SendAsync(patient(t), "in", "out", nil, func(_ []byte, err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrSessionOver) {
		t.Errorf("%v", err)
	}
}

// What the loop has not taken when the session ends, whatever ends it, is known not to have been sent.
func TestInProcessUnsent(t *testing.T) {
	n := start(t, Config{Addr: "none", DefaultTTL: time.Minute})
	s := n.inside(InProcessConfig{}, "in")
	goOn := standStill(n, s.conn.loop)
	defer goOn()
	s.conn.loop.post(s.conn.end) // before it reads
	sent := make(chan error, 1)
	s.SendAsync(patient(t), "in", "in", nil, func(_ []byte, err error) { sent <- err })
	goOn()
	if err := <-sent; !errors.Is(err, ErrUnreachable) {
		t.Errorf("%v", err)
	}
}
