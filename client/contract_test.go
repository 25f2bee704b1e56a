package client

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine"
)

// TestDialerAndMembershipDoNotReturn: application code that finds and opens connections can stop
// one attempt, and not the search.
func TestDialerAndMembershipDoNotReturn(t *testing.T) {
	for name, ends := range map[string]func(){"panic": func() { panic("on purpose") }, "goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, engine.Config{})
			var failing atomic.Bool
			var dials, looks atomic.Int32
			fail := func(n *atomic.Int32) {
				if failing.Load() && n.Add(1) <= 2 {
					ends()
				}
			}
			var log notes
			s, err := Dial(testContext(t), Config{
				Logger: log.logger(), MaxBackoff: time.Millisecond,
				Membership: lookedUp(func() []discovery.Node { fail(&looks); return []discovery.Node{{Addr: n.addr}} }),
				Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
					fail(&dials)
					if failing.Load() && dials.Load() == 3 {
						return nil, nil
					}
					return new(net.Dialer).DialContext(ctx, "tcp", addr)
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { closeSession(t, s) })
			failing.Store(true)
			s.attachments.first().close(errors.New("cut on purpose"))
			eventually(t, "the end of the attachment", func() bool { return dials.Load() > 3 })
			if err := s.Bind(testContext(t), "me"); err != nil {
				t.Error(err)
			}
			log.has(t, "Config.Dialer", "Config.Membership", "stack=")
		})
	}
	_, err := Dial(testContext(t), Config{Nodes: []string{"127.0.0.1:1"}, Logger: quiet(), Dialer: func(context.Context, string) (net.Conn, error) { panic("x") }})
	if err == nil || !strings.Contains(err.Error(), "Config.Dialer panicked") {
		t.Errorf("%v", err)
	}
}

type lookedUp func() []discovery.Node

func (f lookedUp) Nodes() ([]discovery.Node, <-chan struct{}) { return f(), nil }

// TestStateAfterClose: the last state of a session that was closed without loss carries no error,
// on however many nodes it was.
func TestStateAfterClose(t *testing.T) {
	n := startNode(t, engine.Config{})
	states := make(chan State, 10)
	s, err := Dial(testContext(t), Config{Nodes: []string{n.addr}, Logger: quiet(), OnState: func(v State) { states <- v }})
	if err != nil {
		t.Fatal(err)
	}
	if v := receive(t, states, "the first state"); !v.Attached || v.Err != nil {
		t.Errorf("%+v", v)
	}
	if err := s.Close(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if v := receive(t, states, "the last state"); v.Attached || v.Err != nil || s.State().Err != nil {
		t.Errorf("%+v", v)
	}
	// A connection that is lost is another matter.
	other, c := attachFake(t, newFakeNode(t).start(), Config{OnState: func(v State) { states <- v }})
	receive(t, states, "the attachment")
	c.Close()
	if v := receive(t, states, "the loss"); v.Attached || v.Err == nil {
		t.Errorf("%+v", v)
	}
	_ = other
}

// TestConfigUnits: a time without a unit is refused, and the error says what is wrong and what to
// write.
func TestConfigUnits(t *testing.T) {
	for field, cfg := range map[string]Config{
		"RequestTimeout": {RequestTimeout: 10}, "DialTimeout": {DialTimeout: 10}, "Heartbeat": {Heartbeat: 10}, "MaxBackoff": {MaxBackoff: 10},
	} {
		cfg.Nodes = []string{"127.0.0.1:1"}
		want := field + " is 10ns, less than a millisecond: give it a unit, as in 10*time.Second"
		if _, err := Dial(testContext(t), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := Dial(testContext(t), Config{Nodes: []string{"127.0.0.1:1"}, Heartbeat: -time.Second}); err == nil ||
		!strings.Contains(err.Error(), "Heartbeat is -1s") {
		t.Errorf("%v", err)
	}
}

// TestIDs: a session says which IDs it holds.
func TestIDs(t *testing.T) {
	n := startNode(t, engine.Config{})
	s := holder(t, Config{}, n.addr, "a", "b", "c")
	if err := s.Unbind(testContext(t), "b"); err != nil {
		t.Fatal(err)
	}
	holder(t, Config{}, n.addr, "c")
	eventually(t, "the kick", func() bool { return len(s.IDs()) == 1 })
	if ids := s.IDs(); !slices.Equal(ids, []string{"a"}) {
		t.Errorf("%v", ids)
	}
}

// TestRetry: it tries again what cannot arrive twice and may soon succeed, and what its caller
// allows.
func TestRetry(t *testing.T) {
	failed := func(code Code) error { return &Error{Code: code} }
	for _, tc := range []struct {
		name  string
		errs  []error // of the tries; the last one again and again
		o     RetryOptions
		tries int
		is    error
	}{
		{"success", []error{nil}, RetryOptions{}, 1, nil},
		{"temporary", []error{failed(CodeUnreachable), failed(CodeOverflow), failed(CodeExpired), failed(CodeDraining), failed(CodeRegistryUnavailable), nil},
			RetryOptions{}, 6, nil},
		{"offline", []error{failed(CodeNoRoute)}, RetryOptions{}, 1, ErrNoRoute},
		{"final", []error{failed(CodeUnreachable), failed(CodeDenied)}, RetryOptions{}, 2, ErrDenied},
		{"unknown", []error{failed(CodeLost)}, RetryOptions{}, 1, ErrLost},
		{"idempotent", []error{failed(CodeLost), failed(CodeTimeout), nil}, RetryOptions{Idempotent: true}, 3, nil},
		{"refused", []error{failed(CodeRejected)}, RetryOptions{Idempotent: true}, 1, ErrRejected},
		{"bounded", []error{failed(CodeOverflow)}, RetryOptions{Tries: 3}, 3, ErrOverflow},
		{"no outcome", []error{ErrClosed}, RetryOptions{}, 1, ErrClosed},
		{"IDs", []error{&IDError{Failed: []IDFailure{{"a", &Error{Code: CodeOverflow}}}}, &IDError{Failed: []IDFailure{
			{"a", &Error{Code: CodeOverflow}}, {"b", &Error{Code: CodeTaken}}}}}, RetryOptions{}, 2, ErrTaken},
	} {
		tries := 0
		tc.o.Pause = time.Microsecond
		err := Retry(testContext(t), tc.o, func(context.Context) error {
			tries++
			return tc.errs[min(tries, len(tc.errs))-1]
		})
		if tries != tc.tries || !errors.Is(err, tc.is) || tc.is == nil && err != nil {
			t.Errorf("%s: %v after %d tries", tc.name, err, tries)
		}
	}
	// The context ends a pause, and the error says both.
	ctx, cancel := context.WithCancel(testContext(t))
	err := Retry(ctx, RetryOptions{Pause: time.Hour, MaxPause: time.Hour}, func(context.Context) error { cancel(); return failed(CodeOverflow) })
	if !errors.Is(err, ErrOverflow) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	err = Retry(ctx, RetryOptions{}, func(context.Context) error { t.Error("called"); return nil })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestHandlerContext: the handler's context ends at the message's deadline, as do those that are
// made from it, and not when the handler returns.
func TestHandlerContext(t *testing.T) {
	long(t)
	n := newFakeNode(t).start()
	type key struct{}
	type seen struct {
		ctx, child context.Context
		deadline   time.Time
	}
	got := make(chan seen, 1)
	s, c := attachFake(t, n, Config{Handler: func(ctx context.Context, d *Delivery) {
		if ctx.Err() != nil || ctx.Value(key{}) != nil {
			t.Errorf("%v", ctx.Err())
		}
		child, cancel := context.WithCancel(ctx)
		context.AfterFunc(child, cancel)
		deadline, _ := d.Deadline()
		got <- seen{ctx, child, deadline}
	}})
	bindFake(t, s, c, "me")
	before := time.Now()
	c.deliver("me", 100, codec.FlagAck) // it has a second
	v := receive(t, got, "the handler")
	deadline, ok := v.ctx.Deadline()
	if !ok || !deadline.Equal(v.deadline) || deadline.Before(before.Add(900*time.Millisecond)) || deadline.After(time.Now().Add(time.Second)) {
		t.Errorf("deadline %v, %v; the delivery's is %v", deadline, ok, v.deadline)
	}
	c.expectAck()
	receive(t, v.child.Done(), "the end of the child")
	receive(t, v.ctx.Done(), "the end")
	if v.ctx.Err() != context.DeadlineExceeded || time.Now().Before(deadline) {
		t.Errorf("%v", v.ctx.Err())
	}
	c.put(codec.AppendDeliver(nil, &codec.Deliver{Token: []byte("t"), To: []byte("me"), From: []byte("x"), Flags: codec.FlagAck, Epoch: 100}))
	if _, ok := receive(t, got, "the handler").ctx.Deadline(); ok {
		t.Error("a message without a deadline has one")
	}
}

// TestExpiredIsNotHandled: a message that waited beyond its deadline is not handled, because its
// sender has heard timeout. It counts.
func TestExpiredIsNotHandled(t *testing.T) {
	n := newFakeNode(t).start()
	release := make(chan struct{})
	handled := make(chan string, 10)
	s, c := attachFake(t, n, Config{Handler: func(_ context.Context, d *Delivery) {
		handled <- string(d.Payload)
		<-release
	}})
	bindFake(t, s, c, "me")
	deliver := func(payload string, ttl uint32) {
		c.put(codec.AppendDeliver(nil, &codec.Deliver{Token: []byte(payload), To: []byte("me"), From: []byte("x"), TTL: ttl,
			Flags: codec.FlagAck, Epoch: 100, Payload: []byte(payload)}))
	}
	deliver("first", 60_000)
	receive(t, handled, "the handler")
	deliver("late", 1)
	deliver("last", 60_000)
	eventually(t, "all to wait", func() bool { return s.Stats().Queued == 3 })
	past := s.now()
	eventually(t, "the deadline to pass", func() bool { return s.now() > past+1 })
	close(release)
	if got := receive(t, handled, "the next message"); got != "last" {
		t.Errorf("%q is handled", got)
	}
	for _, want := range []string{"first", "last"} {
		if f := c.expectAck(); string(f.Token) != want {
			t.Errorf("%s is answered, want %s", f.Token, want)
		}
	}
	if st := s.Stats(); st.Expired != 1 || s.attachments.first().owed.Load() != 0 {
		t.Errorf("%+v; %d answers are owed", st, s.attachments.first().owed.Load())
	}
}

// TestDecode: a handler decodes for itself, and learns what is wrong.
func TestDecode(t *testing.T) {
	n := startNode(t, engine.Config{})
	got := make(chan error, 1)
	s := holder(t, Config{Handler: func(_ context.Context, d *Delivery) {
		var v []int
		err := d.Decode(&v)
		if err == nil {
			_ = d.ReplyValue(append(v, 3))
		}
		got <- err
	}}, n.addr, "me")
	sum, err := SendValue[[]int](testContext(t), s, Message{To: "me", From: "me"}, []int{1, 2})
	if err := errors.Join(err, receive(t, got, "the handler")); err != nil || !slices.Equal(sum, []int{1, 2, 3}) {
		t.Errorf("%v, %v", sum, err)
	}
	if _, err := s.Send(testContext(t), Message{To: "me", From: "me", Payload: []byte("no msgpack")}); err != nil {
		t.Error(err)
	}
	if err := receive(t, got, "the handler"); err == nil || !strings.HasPrefix(err.Error(), "client: payload: ") {
		t.Errorf("%v", err)
	}
}

// TestBindReason: whoever binds hears why the node's hook said no.
func TestBindReason(t *testing.T) {
	n := startNode(t, engine.Config{Hooks: engine.Hooks{Bind: func(_, id string) error {
		if id == "root" {
			return errors.New("root is not for you")
		}
		return nil
	}}})
	s := dial(t, Config{}, n.addr)
	err := s.Bind(testContext(t), "me", "root", "you")
	var failed *IDError
	if !errors.As(err, &failed) || len(failed.Failed) != 1 || failed.Failed[0].ID != "root" || failed.Failed[0].Err.Code != CodeDenied ||
		failed.Failed[0].Err.Reason != "root is not for you" || !strings.Contains(err.Error(), "root is not for you") {
		t.Errorf("%v", err)
	}
	if ids := s.IDs(); len(ids) != 2 {
		t.Errorf("%v", ids)
	}
}

// TestCodes: every outcome that the protocol knows has a name in this package, with the same number
// and word.
func TestCodes(t *testing.T) {
	ours := []Code{
		CodeOK, CodeAcked, CodeRejected, CodeNoRoute, CodeUnreachable, CodeOverflow, CodeExpired, CodeRegistryUnavailable, CodeDraining,
		CodeDenied, CodeTooLarge, CodeTaken, CodeSuperseded, CodeBadID, CodeTimeout, CodeLost,
	}
	for code := range codec.Code(128) {
		known := !strings.ContainsAny(code.String(), "0123456789")
		if known != slices.Contains(ours, code) {
			t.Errorf("%d %s", code, code)
		}
	}
}
