package engine

import (
	"context"
	"errors"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// endedContexts are contexts that have ended, by what errors.Is says of them.
func endedContexts(t *testing.T) map[error]context.Context {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	t.Cleanup(cancelLate)
	return map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: late}
}

// A context that has ended before the call does nothing, and is the error.
func TestInProcessEndedContext(t *testing.T) {
	n := start(t, Config{Loops: 2})
	got, kicked := make(chan string, 10), make(chan string, 10)
	n.inside(InProcessConfig{
		Handler: func(m *Message) { got <- string(m.Payload) },
		OnKick:  func(id string, _ uint64) { kicked <- id },
	}, "you")
	s := n.inside(InProcessConfig{}, "me")
	for want, ctx := range endedContexts(t) {
		for name, call := range map[string]func() error{
			"OpenInProcess": func() error { _, err := n.OpenInProcess(ctx, InProcessConfig{}); return err },
			"Bind":          func() error { return s.Bind(ctx, "you") },
			"Bind bad":      func() error { return s.Bind(ctx, "") },
			"Unbind":        func() error { return s.Unbind(ctx, "me") },
			"Lookup":        func() error { _, err := s.Lookup(ctx, "you"); return err },
			"Lookup none":   func() error { _, err := s.Lookup(ctx); return err },
			"Watch":         func() error { _, err := s.Watch(ctx, "you"); return err },
			"Send":          func() error { _, err := s.Send(ctx, "me", "you", []byte("late")); return err },
			"SendAsync": func() error {
				done := make(chan error, 1)
				s.SendAsync(ctx, "me", "you", []byte("late"), func(_ []byte, err error) { done <- err })
				return <-done
			},
			"Post":  func() error { return s.Post(ctx, "me", "you", []byte("late")) },
			"Drain": func() error { return n.Drain(ctx) },
		} {
			if err := call(); !errors.Is(err, want) || errors.As(err, new(*SendError)) {
				t.Errorf("%s with a context that has ended (%v): %v", name, want, err)
			}
		}
	}
	if n.Draining() {
		t.Error("the node drains")
	}
	if _, err := s.Send(patient(t), "me", "you", []byte("now")); err != nil {
		t.Error(err)
	}
	if text := <-got; text != "now" || len(kicked) > 0 {
		t.Errorf("%q was delivered, %d kicks", text, len(kicked))
	}
	if st := n.counters(); st.IDs != 2 || st.Watched != 0 {
		t.Errorf("%d IDs, %d watched", st.IDs, st.Watched)
	}
}

// Whenever the context of a call is why it failed, errors.Is says so, and names the cause that it
// was given as well.
func TestInProcessContextIsWhy(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 1})
	release := make(chan struct{})
	s := n.inside(InProcessConfig{Handler: func(*Message) { <-release }}, "me")
	defer close(release)
	for range 20 { // the node and the context notice at about the same moment
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := s.Send(ctx, "me", "me", nil); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrTimeout) {
			t.Errorf("Send: %v", err)
		}
		cancel()
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		done := make(chan error, 1)
		s.SendAsync(ctx, "me", "me", nil, func(_ []byte, err error) { done <- err })
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SendAsync: %v", err)
		}
		cancel()
	}
	tired := errors.New("tired")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(tired) })
	if _, err := s.Send(ctx, "me", "me", nil); !errors.Is(err, context.Canceled) || !errors.Is(err, tired) {
		t.Errorf("Send: %v", err)
	}
}

// gatedRegistry holds up binds.
type gatedRegistry struct {
	routing.Registry
	gate chan struct{}
}

func (r *gatedRegistry) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	<-r.gate
	return r.Registry.Bind(ctx, ops)
}

// A Bind that gave up is taken back when the registry has done it after all: nobody would answer
// for the ID.
func TestInProcessLateBind(t *testing.T) {
	reg := &gatedRegistry{routing.NewMemory(routing.MemoryConfig{}), make(chan struct{})}
	n := start(t, Config{Loops: 1, Registry: reg})
	s := n.inside(InProcessConfig{})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Bind(ctx, "me", "you"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Bind: %v", err)
	}
	second := make(chan error, 1)
	go func() { second <- s.Bind(patient(t), "you") }() // this one is not given up
	n.eventually("the second bind", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.held["you"] != nil
	})
	close(reg.gate)
	if err := <-second; err != nil {
		t.Error(err)
	}
	n.eventually("the ID to be given back", func() bool {
		found, err := s.Lookup(patient(t), "me", "you")
		return err == nil && found[0].Code == codec.CodeNoRoute && found[1].Code == codec.CodeOK
	})
}

// Close waits for callbacks no longer than its context says, and ends the session in any case.
func TestInProcessCloseContext(t *testing.T) {
	n := start(t, Config{Loops: 1})
	entered, release := make(chan struct{}), make(chan struct{})
	s := n.inside(InProcessConfig{Handler: func(*Message) { close(entered); <-release }}, "me")
	if err := s.Post(patient(t), "me", "me", nil); err != nil {
		t.Fatal(err)
	}
	<-entered
	for want, ctx := range endedContexts(t) {
		if err := s.Close(ctx); !errors.Is(err, want) {
			t.Errorf("Close: %v, want %v", err, want)
		}
	}
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the session goes on")
	}
	if _, err := s.Lookup(patient(t), "me"); err != ErrSessionOver {
		t.Errorf("after Close: %v", err)
	}
	close(release)
	if err := s.Close(patient(t)); err != nil {
		t.Errorf("Close when the handler has returned: %v", err)
	}
}

// Run with a context that has ended starts nothing.
func TestRunEndedContext(t *testing.T) {
	for _, ctx := range endedContexts(t) {
		e, err := New(Config{Addr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(ctx); err != nil || e.acceptor.listener != nil {
			t.Errorf("Run: %v, listener %v", err, e.acceptor.listener)
		}
		if _, err := e.OpenInProcess(t.Context(), InProcessConfig{}); !errors.Is(err, ErrStopped) {
			t.Errorf("OpenInProcess: %v", err)
		}
	}
}
