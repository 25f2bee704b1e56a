package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
)

// inside opens an in-process session and binds ids.
func (n *node) inside(cfg InProcessConfig, ids ...string) *InProcess {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := n.OpenInProcess(ctx, cfg)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		closed := make(chan struct{})
		go func() { _ = s.Close(context.Background()); close(closed) }()
		select {
		case <-closed:
		case <-time.After(patience):
			n.t.Error("Close does not return")
		}
	})
	if err := s.Bind(ctx, ids...); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// outcomeOf is the code that an error of the in-process API stands for.
func outcomeOf(err error) codec.Code {
	var failed *SendError
	if errors.As(err, &failed) {
		return failed.Code
	}
	if err == nil {
		return codec.CodeAcked
	}
	return codec.CodeOK
}

// patient is a context for calls that should not take long.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// testHandler does what messages say.
func testHandler(m *Message) {
	switch p := string(m.Payload); {
	case p == "reject":
		m.Reject("as you wish")
		m.Ack([]byte("too late"))
	case p == "panic":
		panic("as you wish")
	case p == "silent":
	case p == "huge":
		m.Ack(make([]byte, 2<<20))
	case p == "long reason":
		m.Reject(strings.Repeat("r", 1000))
	default:
		m.Ack([]byte(m.From + " to " + m.To + ": " + p))
		m.Reject("too late")
	}
}

// The handler's answer is the sender's outcome, wherever the sender is.
func TestInProcessReceives(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		s := n.inside(InProcessConfig{Handler: testHandler}, "in")
		mute := n.inside(InProcessConfig{}, "mute")
		remote := n.join("out")
		for _, c := range []struct {
			to, payload string
			code        codec.Code
			reason      string
			reply       string
		}{
			{"in", "hi", codec.CodeAcked, "", "out to in: hi"},
			{"in", "reject", codec.CodeRejected, "as you wish", ""},
			{"in", "panic", codec.CodeRejected, "the handler panicked", ""},
			{"in", "silent", codec.CodeAcked, "", ""},
			{"in", "huge", codec.CodeRejected, "the reply is too large", ""},
			{"in", "long reason", codec.CodeRejected, strings.Repeat("r", codec.MaxReason), ""},
			{"mute", "hi", codec.CodeRejected, "this session handles no messages", ""},
			{"nobody", "hi", codec.CodeNoRoute, "", ""},
		} {
			seq := remote.send("out", c.to, c.payload)
			if o := remote.hears(seq, c.code); string(o.Reason) != c.reason || string(o.Reply) != c.reply {
				t.Errorf("%s: %q %q", c.payload, o.Reason, o.Reply)
			}
			reply, err := mute.Send(patient(t), "mute", c.to, []byte(c.payload))
			var failed *SendError
			errors.As(err, &failed)
			if outcomeOf(err) != c.code || string(reply) != strings.Replace(c.reply, "out to", "mute to", 1) || failed != nil && failed.Reason != c.reason {
				t.Errorf("%s in process: %q %v", c.payload, reply, err)
			}
		}
		// Without ack.
		remote.post("out", "in", "panic", codec.FlagReport)
		remote.exchange("out", remote, "out")
		select {
		case <-s.Done():
			t.Error("the session is over")
		default:
		}
	})
}

// What in-process senders hear.
func TestInProcessSends(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxPayload: 100_000, DefaultTTL: time.Minute})
		s := n.inside(InProcessConfig{}, "in")
		remote := n.join("out")
		type result struct {
			reply []byte
			err   error
		}
		send := func(ctx context.Context, from, to, payload string) chan result {
			ch := make(chan result, 1)
			go func() {
				reply, err := s.Send(ctx, from, to, []byte(payload))
				ch <- result{reply, err}
			}()
			return ch
		}
		ch := send(patient(t), "in", "out", "hi")
		d := remote.gets("in", "out", "hi")
		if d.TTL == 0 || d.TTL > uint32(patience.Milliseconds()) {
			t.Errorf("ttl %d", d.TTL)
		}
		remote.ack(d, "yes")
		if r := <-ch; string(r.reply) != "yes" || r.err != nil {
			t.Errorf("%+v", r)
		}
		ch = send(context.Background(), "in", "out", "reject")
		d = remote.gets("in", "out", "reject")
		remote.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeRejected, Reason: []byte("no")}))
		if r := <-ch; r.err.Error() != "engine: rejected: no" {
			t.Errorf("%+v", r)
		}
		for _, c := range []struct {
			from, to, payload string
			code              codec.Code
		}{
			{"out", "out", "x", codec.CodeDenied},
			{"", "out", "x", codec.CodeDenied},
			{"in", "nobody", "x", codec.CodeNoRoute},
			{"in", "out", strings.Repeat("x", 100_001), codec.CodeTooLarge},
			{"in", "out", strings.Repeat("x", 10<<20), codec.CodeTooLarge},
		} {
			if _, err := s.Send(patient(t), c.from, c.to, []byte(c.payload)); outcomeOf(err) != c.code {
				t.Errorf("%q -> %q: %v, want %v", c.from, c.to, err, c.code)
			}
		}
		// What would be no frame is an error, not the end of the session.
		for _, ids := range [][2]string{{"in", ""}, {"in", longID}, {longID, "out"}} {
			if _, err := s.Send(patient(t), ids[0], ids[1], nil); err == nil || outcomeOf(err) != codec.CodeOK {
				t.Errorf("%q: %v", ids, err)
			}
			if err := s.Post(patient(t), ids[0], ids[1], nil); err == nil {
				t.Errorf("%q was posted", ids)
			}
		}
		// The context ends first; its deadline is the message's.
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		ch = send(ctx, "in", "out", "slow")
		if d := remote.gets("in", "out", "slow"); d.TTL > 100 {
			t.Errorf("ttl %d", d.TTL)
		}
		if r := <-ch; !errors.Is(r.err, context.DeadlineExceeded) && outcomeOf(r.err) != codec.CodeTimeout {
			t.Errorf("%v", r.err)
		}
		// The receiver dies.
		ch = send(context.Background(), "in", "out", "die")
		remote.gets("in", "out", "die")
		remote.nc.Close()
		if r := <-ch; outcomeOf(r.err) != codec.CodeLost {
			t.Errorf("%v", r.err)
		}
		if _, err := s.Send(patient(t), "in", "out", nil); outcomeOf(err) != codec.CodeUnreachable {
			t.Errorf("%v", err)
		}
		if err := s.Post(patient(t), "in", "in", []byte("to myself")); err != nil {
			t.Error(err)
		}
		if _, err := s.Send(patient(t), "in", "in", nil); outcomeOf(err) != codec.CodeRejected {
			t.Errorf("%v", err)
		}
	})
}

// Messages of one sender to one ID stay in order, in and out of the process, and are what was sent. Buffers
// that have been through an in-process session go back to the loops, so there had better be nothing left in them.
func TestInProcessOrder(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		const each = 2000
		var mu sync.Mutex
		next := make(map[string]int)
		var wrong atomic.Int64
		done := make(chan struct{}, 8)
		handler := func(m *Message) {
			mu.Lock()
			defer mu.Unlock()
			key := m.From + ">" + m.To
			if want := fmt.Sprintf("%s %d", key, next[key]); string(m.Payload) != want {
				if wrong.Add(1) < 5 {
					t.Errorf("got %q, want %q", m.Payload, want)
				}
			}
			if next[key]++; next[key] == each {
				done <- struct{}{}
			}
		}
		a, b := n.inside(InProcessConfig{Handler: handler}, "a"), n.inside(InProcessConfig{Handler: handler}, "b")
		out := n.join("out")
		streams := 0
		stream := func(from, to string, post func(payload string)) {
			streams++
			go func() {
				for i := range each {
					post(fmt.Sprintf("%s>%s %d", from, to, i))
				}
			}()
		}
		for _, s := range []struct {
			*InProcess
			from string
		}{{a, "a"}, {b, "b"}} {
			for _, to := range []string{"a", "b"} {
				stream(s.from, to, func(p string) {
					if err := s.Post(patient(t), s.from, to, []byte(p)); err != nil {
						t.Error(err)
					}
				})
			}
		}
		for range streams {
			<-done
		}
		// The remote one last, so that it gets the buffers that the others have used.
		var all []byte
		for i := range each {
			all = append(all, sendFrame(uint64(i), "out", "a", fmt.Sprintf("out>a %d", i), codec.FlagAck, 60_000)...)
		}
		out.write(all)
		for i := range each {
			out.hears(uint64(i), codec.CodeAcked)
		}
		<-done
		go func() {
			for i := range each {
				if err := a.Post(patient(t), "a", "out", fmt.Appendf(nil, "%d", i)); err != nil {
					t.Error(err)
				}
			}
		}()
		for i := range each {
			out.gets("a", "out", fmt.Sprint(i))
		}
	})
}

// A handler that is slow costs its senders an overflow, and nobody else anything.
func TestInProcessSlow(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, MaxPayload: 1 << 12, MaxPending: 1 << 16, DefaultTTL: time.Minute, SlowConsumerTimeout: time.Second})
		by := n.watchOver()
		hold := make(chan struct{})
		n.inside(InProcessConfig{Handler: func(*Message) { <-hold }}, "slow")
		quick := n.inside(InProcessConfig{Handler: testHandler}, "quick")
		from := n.join("from")
		const sends = 100
		for range sends {
			from.send("from", "slow", strings.Repeat("x", 1<<12))
		}
		overflows := 0
		n.settle()
		for _, f := range from.arrived() {
			var o codec.Outcome
			from.decoded(codec.DecodeOutcome(f.body, &o))
			if o.Code != codec.CodeOverflow {
				t.Errorf("%v while the handler stands still", o.Code)
			}
			overflows++
		}
		if overflows < sends/2 || overflows == sends {
			t.Errorf("%d of %d overflow", overflows, sends)
		}
		if _, err := quick.Send(patient(t), "quick", "quick", nil); outcomeOf(err) != codec.CodeRejected && err != nil {
			t.Error(err)
		}
		by.unharmed()
		close(hold)
		for range sends - overflows {
			if o := from.outcome(); o.Code != codec.CodeAcked {
				t.Errorf("%v", o.Code)
			}
		}
		from.hears(from.send("from", "slow", "again"), codec.CodeAcked)
	})
}

// An in-process session whose queue was in use once must not keep a drain from ending.
func TestInProcessDrain(t *testing.T) {
	n := start(t, Config{Loops: 2})
	busy, release := make(chan struct{}), make(chan struct{})
	s := n.inside(InProcessConfig{Handler: func(m *Message) {
		if string(m.Payload) == "first" {
			close(busy)
			<-release
		}
	}}, "in")
	from := n.join("from")
	from.post("from", "in", "first", 0)
	<-busy
	for range 10 {
		from.post("from", "in", "queued", 0)
		from.alive()
	}
	drained := make(chan error, 1)
	go func() { drained <- n.Drain(patient(t)) }()
	from.expect(codec.KindDrain)
	select {
	case err := <-drained:
		t.Errorf("drained with a full queue: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	if _, err := s.Send(patient(t), "in", "from", nil); outcomeOf(err) != codec.CodeDraining {
		t.Errorf("%v", err)
	}
	if _, err := n.OpenInProcess(patient(t), InProcessConfig{}); outcomeOf(err) != codec.CodeDraining {
		t.Errorf("%v", err)
	}
}

func TestInProcessKick(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		type kick struct {
			id    string
			epoch uint64
		}
		kicks := make(chan kick, 10)
		s := n.inside(InProcessConfig{Handler: testHandler, OnKick: func(id string, epoch uint64) {
			kicks <- kick{id, epoch}
			panic("in OnKick")
		}}, "x", "y")
		remote := n.join("out")
		for range 3 {
			epoch := remote.bind("x")
			if got := <-kicks; got != (kick{"x", epoch}) {
				t.Errorf("%v, want x %d", got, epoch)
			}
			if _, err := s.Send(patient(t), "x", "y", nil); outcomeOf(err) != codec.CodeDenied {
				t.Errorf("sent from a kicked ID: %v", err)
			}
			remote.exchange("x", remote, "out")
			if err := s.Bind(patient(t), "x"); err != nil {
				t.Fatal(err)
			}
			if _, later, err := codec.DecodeKick(remote.expect(codec.KindKick)); err != nil || later <= epoch {
				t.Errorf("kick %d, %v", later, err)
			}
			remote.hears(remote.send("out", "x", "hi"), codec.CodeAcked)
		}
		if len(kicks) > 0 {
			t.Errorf("%d more kicks", len(kicks))
		}
		remote.hears(remote.send("out", "y", "hi"), codec.CodeAcked)
	})
}

// Binding an ID again and again, here and there, while messages come: whoever has bound it last has it.
func TestInProcessRebind(t *testing.T) {
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		in := n.inside(InProcessConfig{Handler: testHandler}, "x", "in")
		from := n.join("from")
		for range 300 {
			done := make(chan error, 1)
			go func() { done <- in.Bind(patient(t), "x") }()
			// An ID that the session holds all the time is never out of reach.
			from.hears(from.send("from", "x", "hi"), codec.CodeAcked)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		other := n.inside(InProcessConfig{Handler: testHandler})
		for range 300 {
			var both sync.WaitGroup
			for _, s := range []*InProcess{in, other} {
				both.Go(func() {
					var failed *BindError
					if err := s.Bind(patient(t), "x"); err != nil && (!errors.As(err, &failed) || failed.Code != codec.CodeSuperseded) {
						t.Error(err)
					}
				})
			}
			both.Wait()
			// One of the two holds it, knows it, and answers.
			from.hears(from.send("from", "x", "hi"), codec.CodeAcked)
		}
	})
}

func TestInProcessBind(t *testing.T) {
	n := start(t, Config{Loops: 2, MaxIDs: 10, Hooks: Hooks{Bind: func(identity, id string) error {
		if identity != "me" || id == "forbidden" {
			return errors.New("no")
		}
		return nil
	}}})
	var ids []string
	for i := range 55 { // more than fit into one frame
		ids = append(ids, fmt.Sprint("id", i))
	}
	s := n.inside(InProcessConfig{Identity: "me", Handler: testHandler}, ids...)
	if got := n.Stats().IDs; got != 55 {
		t.Errorf("%d IDs", got)
	}
	err := s.Bind(patient(t), "fine", "forbidden", "", longID, strings.Repeat("x", 5<<20))
	codes := map[codec.Code]int{}
	for _, e := range flatten(err) {
		var failed *BindError
		if !errors.As(e, &failed) {
			t.Fatal(e)
		}
		codes[failed.Code]++
	}
	if codes[codec.CodeBadID] != 3 || codes[codec.CodeDenied] != 1 || len(codes) != 2 {
		t.Errorf("%v: %v", codes, err)
	}
	if err := s.Unbind(patient(t), append(ids, "nobody", "", longID)...); err != nil {
		t.Error(err)
	}
	if got := n.Stats().IDs; got != 1 {
		t.Errorf("%d IDs", got)
	}
	remote := n.dial()
	remote.hello(codec.Hello{})
	if code := remote.lookupCode("id7"); code != codec.CodeNoRoute {
		t.Errorf("%v", code)
	}
	if _, err := s.Send(patient(t), "fine", "fine", nil); outcomeOf(err) != codec.CodeAcked {
		t.Error(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Bind(ended, "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// flatten is what errors.Join has joined.
func flatten(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// An ID that was given back while messages for it were in the session's queue.
func TestInProcessUnbindQueued(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute})
	busy, release := make(chan struct{}), make(chan struct{})
	s := n.inside(InProcessConfig{Handler: func(m *Message) {
		if string(m.Payload) == "block" {
			close(busy)
			<-release
		}
	}}, "x", "y")
	from := n.join("from")
	first := from.send("from", "y", "block")
	<-busy
	second := from.send("from", "x", "queued")
	n.settle()
	if err := s.Unbind(patient(t), "x"); err != nil {
		t.Fatal(err)
	}
	close(release)
	from.hears(first, codec.CodeAcked)
	from.hears(second, codec.CodeNoRoute)
}

func TestInProcessClose(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, DefaultTTL: time.Minute})
		remote := n.join("out")
		entered, release := make(chan struct{}), make(chan struct{})
		s := n.inside(InProcessConfig{Handler: func(*Message) { close(entered); <-release }}, "in")
		seq := remote.send("out", "in", "hi")
		<-entered
		queued := remote.send("out", "in", "queued")
		remote.alive() // so it has been handled, too
		sending := make(chan error, 1)
		go func() {
			_, err := s.Send(context.Background(), "in", "out", []byte("x"))
			sending <- err
		}()
		remote.gets("in", "out", "x")
		closed := make(chan struct{})
		go func() { _ = s.Close(context.Background()); close(closed) }()
		for _, want := range []uint64{seq, queued} {
			remote.hears(want, codec.CodeLost)
		}
		if err := <-sending; !errors.Is(err, ErrLost) {
			t.Errorf("%v", err)
		}
		<-s.Done()
		select {
		case <-closed:
			t.Error("Close returned while a handler ran")
		default:
		}
		close(release)
		<-closed
		n.settle()
		if code := remote.lookupCode("in"); code != codec.CodeNoRoute {
			t.Errorf("%v", code)
		}
		_ = s.Close(t.Context())
		if err := s.Bind(patient(t), "in"); err == nil {
			t.Error("bound after Close")
		}
		if _, err := s.Send(patient(t), "in", "out", nil); err == nil {
			t.Error("sent after Close")
		}
		if err := s.Post(patient(t), "in", "out", nil); !errors.Is(err, ErrSessionOver) {
			t.Errorf("posted after Close: %v", err)
		}
	})
}

func TestInProcessEngineStops(t *testing.T) {
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute, Addr: "none"})
	if n.Addr() != nil {
		t.Errorf("Addr is %v", n.Addr())
	}
	entered := make(chan struct{})
	release := make(chan struct{})
	s := n.inside(InProcessConfig{Handler: func(*Message) { close(entered); <-release }}, "in")
	sending := make(chan error, 1)
	go func() {
		_, err := s.Send(context.Background(), "in", "in", []byte("x"))
		sending <- err
	}()
	<-entered
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	if err := <-sending; err == nil {
		t.Error("acked")
	}
	<-s.Done()
	close(release)
	_ = s.Close(t.Context())
	if _, err := n.OpenInProcess(patient(t), InProcessConfig{}); err == nil {
		t.Error("opened on an engine that has stopped")
	}
	if s := n.Stats(); s.Connections != 0 || s.Pending != 0 {
		t.Errorf("%+v", s)
	}
}

func TestOpenInProcessContext(t *testing.T) {
	cfg := Config{Addr: "none", Logger: quiet(), Loops: 1}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.OpenInProcess(ended, InProcessConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("not running: %v", err)
	}
	// A loop that stands still.
	n := start(t, cfg)
	blocked, release := make(chan struct{}), make(chan struct{})
	n.loops[0].post(func() { close(blocked); <-release })
	<-blocked
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = n.OpenInProcess(soon, InProcessConfig{})
	close(release)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	n.eventually("it is gone", func() bool { return n.counters().Connections == 0 })
}
