package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"distmsg/codec"
	"distmsg/engine"
)

// notes is a log that a test reads while others write it.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) has(t *testing.T, all ...string) {
	t.Helper()
	for _, want := range all {
		eventually(t, want+" in the log", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return strings.Contains(n.b.String(), want)
		})
	}
}

func (n *notes) logger() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

// TestStuckCallbacks: callbacks that do not return stop neither sends, nor what is received, nor
// the callbacks of other sends. They are logged and counted until they return.
func TestStuckCallbacks(t *testing.T) {
	long(t)
	t.Parallel()
	n := startNode(t, engine.Config{})
	var log notes
	release := make(chan struct{})
	s := holder(t, Config{
		Handler: accept, MaxInFlight: 4, Logger: log.logger(),
		OnOutcome: func(Outcome) { <-release },
		OnState:   func(State) { <-release },
	}, n.addr, "me")
	t.Cleanup(sync.OnceFunc(func() { close(release) })) // before Close
	ctx := testContext(t)
	m := Message{To: "me", From: "me", TTL: patience}
	entered := make(chan struct{})
	s.SendAsync(ctx, m, func(Reply, error) { close(entered); <-release })
	receive(t, entered, "the callback")
	for range 20 {
		if _, err := s.Send(ctx, m); err != nil {
			t.Fatal(err)
		}
	}
	for range 10 { // more than MaxInFlight
		outcome := make(chan error, 1)
		s.SendAsync(ctx, m, func(_ Reply, err error) { outcome <- err })
		if err := receive(t, outcome, "a callback behind one that is stuck"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all that is stuck to count", func() bool { return s.Stats().Stuck == 3 })
	log.has(t, "the callback of a SendAsync or MulticastAsync does not return", "OnOutcome does not return", "OnState does not return")
	eventually(t, "nothing in flight", func() bool { return s.Stats().InFlight == 0 && s.State().Attached })
}

// TestCallbacksAreBounded: callbacks that are stuck do not make memory grow. Senders wait for them,
// as long as they want to.
func TestCallbacksAreBounded(t *testing.T) {
	long(t)
	t.Parallel()
	n := startNode(t, engine.Config{})
	release := make(chan struct{})
	s := holder(t, Config{Handler: accept, MaxInFlight: 3, Workers: 1}, n.addr, "me")
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	var calls, expired atomic.Int32
	done := func(_ Reply, err error) {
		if errors.Is(err, ErrExpired) && errors.Is(err, context.DeadlineExceeded) {
			expired.Add(1)
			return
		}
		calls.Add(1)
		<-release
	}
	for expired.Load() == 0 {
		s.SendAsync(testContext(t), Message{To: "me", From: "me", TTL: 2500 * time.Millisecond}, done)
	}
	// At most two are called, one of them passed by, and three wait.
	if st := s.Stats(); st.Sent > 5 || calls.Load() > 2 {
		t.Errorf("%d sent, %d calls", st.Sent, calls.Load())
	}
}

// TestCallbacksMayCall: callbacks may call whatever they like, also when the window is full and
// others wait for room in it.
func TestCallbacksMayCall(t *testing.T) {
	n := startNode(t, engine.Config{})
	s := holder(t, Config{Handler: accept, MaxInFlight: 2}, n.addr, "me")
	ctx := testContext(t)
	m := Message{To: "me", From: "me", TTL: patience}
	over, stop := context.WithCancel(ctx)
	var others, calls sync.WaitGroup
	for range 8 {
		others.Go(func() {
			for over.Err() == nil {
				s.SendAsync(ctx, m, func(Reply, error) {})
			}
		})
	}
	var failed atomic.Pointer[error]
	check := func(err error) {
		if err != nil {
			failed.CompareAndSwap(nil, &err)
		}
	}
	calls.Add(1)
	var again func(n int)
	again = func(n int) {
		s.SendAsync(ctx, m, func(_ Reply, err error) {
			check(err)
			_, err = s.Send(ctx, m)
			check(err)
			check(s.Bind(ctx, "you"))
			_, err = s.Lookup(ctx, "you")
			check(err)
			check(s.Unbind(ctx, "you"))
			s.MulticastAsync(ctx, Message{From: "me", TTL: patience}, []string{"me", "me", "me"}, func(_ []Result, err error) { check(err) })
			if n > 0 {
				again(n - 1)
			} else {
				calls.Done()
			}
		})
	}
	again(50)
	done := make(chan struct{})
	go func() { calls.Wait(); close(done) }()
	receive(t, done, "the last callback")
	stop()
	others.Wait()
	if err := failed.Load(); err != nil {
		t.Error(*err)
	}
}

// TestCallbackOrder: callbacks come in the order of the outcomes, and OnOutcome as well.
func TestCallbackOrder(t *testing.T) {
	n := newFakeNode(t).start()
	const sends = 50
	codes := []Code{codec.CodeAcked, codec.CodeNoRoute, codec.CodeOverflow}
	heard := make(chan Code, sends)
	s, c := attachFake(t, n, Config{OnOutcome: func(o Outcome) { heard <- o.Code }})
	got := make(chan int, sends)
	for i := range sends {
		s.SendAsync(testContext(t), Message{To: "you"}, func(Reply, error) { got <- i })
	}
	seqs := make([]uint64, sends)
	for i := range seqs {
		seqs[i] = c.expectSend().Seq
	}
	for i := range seqs {
		c.outcome(seqs[sends-1-i], codes[i%len(codes)])
	}
	for i := range sends {
		if from, code := receive(t, got, "a callback"), receive(t, heard, "an outcome"); from != sends-1-i || code != codes[i%len(codes)] {
			t.Fatalf("callback %d is that of send %d, outcome %v", i, from, code)
		}
	}
}

// TestCallbacksPassHandlers: callbacks of the session do not wait for handlers, nor one kind
// of callback for another.
func TestCallbacksPassHandlers(t *testing.T) {
	long(t)
	t.Parallel()
	n := startNode(t, engine.Config{})
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	kicks, seen := make(chan Kick, 1), make(chan []Presence, 1)
	var log notes
	s := holder(t, Config{
		Workers: 1,
		Logger:  log.logger(),
		Handler: func(context.Context, *Delivery) { entered <- struct{}{}; <-release },
		OnState: func(State) { <-release },
		OnKick:  func(k Kick) { kicks <- k },
		OnPresence: func(all []Presence) {
			if all[0].ID == "you" {
				seen <- all
			}
		},
	}, n.addr, "me", "other")
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	ctx := testContext(t)
	if _, err := s.Watch(ctx, "you"); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"me", "other"} {
		if _, err := s.Post(ctx, Message{To: id, From: "me"}); err != nil {
			t.Fatal(err)
		}
	}
	receive(t, entered, "the handler")
	thief := dial(t, Config{}, n.addr)
	if err := thief.Bind(ctx, "me", "you"); err != nil {
		t.Fatal(err)
	}
	if k := receive(t, kicks, "the kick"); k.ID != "me" {
		t.Errorf("%+v", k)
	}
	receive(t, seen, "what became of a watched ID")
	log.has(t, "all workers run handlers that do not return")
	if st := s.Stats(); st.Handlers != 1 || st.Queued < 2 {
		t.Errorf("%+v", st)
	}
}

// TestHandlerDoesNotReturn: whatever a handler does in place of returning is the receiver's own
// trouble: its sender hears rejected at once but not why, the log says why and where, and the next
// message is handled.
func TestHandlerDoesNotReturn(t *testing.T) {
	n := startNode(t, engine.Config{})
	for name, tc := range map[string]struct {
		ends        func()
		reason, log string
	}{
		"panic":  {func() { panic("a secret") }, "the receiver's handler panicked", "a secret"},
		"error":  {func() { panic(errors.New("a secret")) }, "the receiver's handler panicked", "a secret"},
		"goexit": {runtime.Goexit, "the receiver's handler called runtime.Goexit", "a handler called runtime.Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			var log notes
			s := holder(t, Config{Logger: log.logger(), Workers: 1, Handler: func(_ context.Context, d *Delivery) {
				if len(d.Payload) > 0 {
					defer func() { _ = d.To }() // as an application may have
					tc.ends()
				}
			}}, n.addr, "me")
			for range 3 {
				var e *Error
				if _, err := s.Send(testContext(t), Message{To: "me", From: "me", TTL: patience, Payload: []byte("x")}); !errors.As(err, &e) ||
					e.Code != codec.CodeRejected || e.Reason != tc.reason {
					t.Fatalf("%v", err)
				}
				if _, err := s.Send(testContext(t), Message{To: "me", From: "me"}); err != nil {
					t.Fatal(err)
				}
			}
			log.has(t, tc.log, "TestHandlerDoesNotReturn", "stack=")
			eventually(t, "all to count", func() bool { st := s.Stats(); return st.Panics == 3 && st.Handlers == 0 })
		})
	}
}

// TestCallbacksDoNotReturn: no callback that panics or ends its goroutine takes anything with it,
// and each is called again.
func TestCallbacksDoNotReturn(t *testing.T) {
	for name, ends := range map[string]func(){"panic": func() { panic("a secret") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t).start()
			var states, kicks, seen, failed, outcomes, answers, drains atomic.Int32
			count := func(n *atomic.Int32) {
				n.Add(1)
				ends()
			}
			var log notes
			s, c := attachFake(t, n, Config{
				Logger:       log.logger(),
				OnState:      func(State) { count(&states) },
				OnKick:       func(Kick) { count(&kicks) },
				OnDrain:      func(Drain) { count(&drains) },
				OnPresence:   func([]Presence) { count(&seen) },
				OnPostFailed: func(uint64, *Error) { count(&failed) },
				OnOutcome:    func(Outcome) { count(&outcomes) },
			})
			bindFake(t, s, c, "a", "b")
			watch := startWatch(testContext(t), s, "you")
			c.watched(c.expectWatch(1)[0], codec.Result{Code: codec.CodeNoRoute})
			receive(t, watch, "the watch")
			for i := range uint64(2) {
				s.SendAsync(testContext(t), Message{To: "you"}, func(Reply, error) { count(&answers) })
				c.outcome(c.expectSend().Seq, codec.CodeNoRoute)
				s.MulticastAsync(testContext(t), Message{}, []string{"x"}, func([]Result, error) { count(&answers) })
				c.outcome(c.expectMulticast().Seq, codec.CodeNoRoute)
				if _, err := s.Post(testContext(t), Message{To: "you"}); err != nil {
					t.Fatal(err)
				}
				c.outcome(c.expectSend().Seq, codec.CodeNoRoute)
				c.put(codec.AppendKick(nil, []string{"a", "b"}[i], 1000))
				c.changed(codec.Change{ID: []byte("you"), Code: codec.CodeOK, Epoch: i + 1})
				eventually(t, "a change", func() bool { return seen.Load() == int32(i)+1 })
			}
			c.put(codec.AppendDrain(nil, &codec.Drain{Deadline: 1, Spread: 1_000_000}))
			eventually(t, "all callbacks", func() bool {
				return states.Load() == 1 && kicks.Load() == 2 && failed.Load() == 2 && outcomes.Load() == 4 && answers.Load() == 4 && drains.Load() == 1
			})
			eventually(t, "all to count", func() bool { return s.Stats().Panics == 16 && s.Stats().Queued == 0 })
			log.has(t, "OnKick", "OnPresence", "OnPostFailed", "OnOutcome", "OnState", "OnDrain", "stack=", "TestCallbacksDoNotReturn")
			reader := make(chan error, 1)
			go func() { _, err := s.Send(testContext(t), Message{To: "you"}); reader <- err }()
			c.outcome(c.expectSend().Seq, codec.CodeAcked)
			if err := receive(t, reader, "the outcome"); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCloseDoesNotWaitForStuck: Close ends with its context although a callback is stuck, and every
// callback is called all the same.
func TestCloseDoesNotWaitForStuck(t *testing.T) {
	long(t)
	t.Parallel()
	n := startNode(t, engine.Config{})
	release := make(chan struct{})
	defer close(release)
	s, err := Dial(testContext(t), Config{Nodes: []string{n.addr}, Logger: quiet(), Handler: accept})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(testContext(t), "me"); err != nil {
		t.Fatal(err)
	}
	var calls atomic.Int32
	entered := make(chan struct{}, 1)
	m := Message{To: "me", From: "me", TTL: patience}
	s.SendAsync(testContext(t), m, func(Reply, error) { entered <- struct{}{}; <-release })
	receive(t, entered, "the callback")
	for range 10 {
		s.SendAsync(testContext(t), m, func(Reply, error) { calls.Add(1) })
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "callbacks") {
		t.Errorf("Close: %v", err)
	}
	eventually(t, "all callbacks", func() bool { return calls.Load() == 10 })
}

// troubled is a value whose encoder and decoder are the application's and do what a test says.
type troubled struct{ do func() }

func (v troubled) EncodeMsgpack(e *msgpack.Encoder) error { v.do(); return e.EncodeInt(1) }

type secretive struct{}

func (*secretive) DecodeMsgpack(*msgpack.Decoder) error { panic("a secret") }

// TestEncoders: what an encoder of the application's does happens to its caller alone: not to the
// other side, which hears at once, and not to the session's other senders and its reader.
func TestEncoders(t *testing.T) {
	n := startNode(t, engine.Config{})
	var s *Session
	var log notes
	value := make(chan any, 1)
	s = holder(t, Config{Logger: log.logger(), Handler: func(_ context.Context, d *Delivery) {
		select {
		case v := <-value:
			_ = d.ReplyValue(v)
		default:
		}
	}}, n.addr, "me", "you")
	ctx := testContext(t)
	m := Message{To: "me", From: "me", TTL: patience}
	for name, do := range map[string]func(){"panic": func() { panic("a secret") }, "goexit": runtime.Goexit} {
		value <- troubled{do}
		var e *Error
		if _, err := s.Send(ctx, m); !errors.As(err, &e) || e.Code != codec.CodeRejected || strings.Contains(e.Reason, "secret") {
			t.Errorf("%s in ReplyValue: %v", name, err)
		}
		for _, send := range []func(Message){
			func(m Message) { _, _ = s.Send(ctx, m) },
			func(m Message) { s.SendAsync(ctx, m, func(Reply, error) {}) },
			func(m Message) { _, _ = s.Post(ctx, m) },
			func(m Message) { m.To = ""; _, _ = s.Multicast(ctx, m, []string{"me"}) },
		} {
			ended := make(chan bool, 1)
			go func() {
				defer func() { _ = recover(); ended <- true }()
				send(Message{To: "me", From: "me", Value: troubled{do}})
				ended <- false
			}()
			if !receive(t, ended, "the sender") {
				t.Errorf("%s: a sender did not see it", name)
			}
		}
	}
	eventually(t, "all to be given back", func() bool {
		st := s.Stats()
		return st.InFlight == 0 && st.InFlightBytes == 0 && st.Queued == 0
	})
	// calls the session
	value <- troubled{func() { _, _ = s.Send(ctx, Message{To: "you", From: "me"}) }}
	if reply, err := s.Send(ctx, m); err != nil || !slices.Equal(reply.Payload, []byte{1}) {
		t.Errorf("%v, %v", reply, err)
	}
	stuck, release := make(chan struct{}), make(chan struct{})
	go func() {
		_, _ = s.Post(ctx, Message{To: "you", From: "me", Value: troubled{func() { close(stuck); <-release }}})
	}()
	receive(t, stuck, "the encoder")
	if _, err := s.Send(ctx, m); err != nil {
		t.Errorf("beside an encoder that is stuck: %v", err)
	}
	close(release)
}

// TestDecoderPanics: the sender does not hear what a decoder panicked with; the log does.
func TestDecoderPanics(t *testing.T) {
	n := startNode(t, engine.Config{})
	var log notes
	s := holder(t, Config{Logger: log.logger(), Handler: HandleValue(func(context.Context, *Delivery, *secretive) {})}, n.addr, "me")
	var e *Error
	if _, err := s.Send(testContext(t), Message{To: "me", From: "me", Value: 1}); !errors.As(err, &e) || e.Code != codec.CodeRejected ||
		strings.Contains(e.Reason, "secret") {
		t.Errorf("%v", err)
	}
	log.has(t, "a secret", "stack=", "DecodeMsgpack")
}

// TestDeliveryIsOver: a delivery that a goroutine holds on to answers nobody once its handler has
// returned, whoever's turn it is then.
func TestDeliveryIsOver(t *testing.T) {
	n := startNode(t, engine.Config{})
	var old []*Delivery
	seen := make(map[*Delivery]bool)
	var mu sync.Mutex
	s := holder(t, Config{Workers: 1, Handler: func(ctx context.Context, d *Delivery) {
		mu.Lock()
		defer mu.Unlock()
		for _, o := range old { // as goroutines of the former handlers would
			for _, err := range []error{o.Reply([]byte("not yours")), o.ReplyValue(1), o.Accept(), o.Reject("no"), o.Defer().Accept()} {
				if err != ErrAnswered {
					t.Errorf("answered after the handler's return: %v", err)
				}
			}
			if o.Payload != nil {
				t.Errorf("the payload of a delivery that is over is %q", o.Payload)
			}
		}
		if seen[d] {
			t.Error("a delivery that is over stands for another message")
		}
		old, seen[d] = append(old, d), true
		if string(d.Payload) == "panic" {
			panic("on purpose")
		}
		_ = d.Reply(append([]byte("to "), d.Payload...))
	}}, n.addr, "me")
	for range 20 {
		for _, payload := range []string{"a", "panic", "b"} {
			reply, err := s.Send(testContext(t), Message{To: "me", From: "me", Payload: []byte(payload)})
			if payload == "panic" && !errors.Is(err, ErrRejected) || payload != "panic" && string(reply.Payload) != "to "+payload {
				t.Fatalf("%q, %v", reply.Payload, err)
			}
		}
		// without ack
		if _, err := s.Post(testContext(t), Message{To: "me", From: "me"}); err != nil {
			t.Fatal(err)
		}
	}
}
