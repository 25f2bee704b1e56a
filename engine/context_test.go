package engine

import (
	"context"
	"errors"
	"testing"
	"time"
)

// endedContexts returns contexts that have ended, by the error that errors.Is matches.
func endedContexts(t *testing.T) map[error]context.Context {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	t.Cleanup(cancelLate)
	return map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: late}
}

// A call with a context that has ended does nothing and returns the context's error.
func TestEndedContext(t *testing.T) {
	n := start(t, Config{Loops: 2})
	for want, ctx := range endedContexts(t) {
		if err := n.Drain(ctx); !errors.Is(err, want) {
			t.Errorf("Drain: %v, want %v", err, want)
		}
		if _, err := n.Dialer()(ctx, InProcessAddr); !errors.Is(err, want) {
			t.Errorf("Dialer: %v, want %v", err, want)
		}
	}
	if n.Draining() || n.counters().Connections > 0 {
		t.Error("the node drains, or has a connection")
	}
}

// Run starts nothing if its context has ended.
func TestRunEndedContext(t *testing.T) {
	for _, ctx := range endedContexts(t) {
		e, err := New(Config{Addr: "127.0.0.1:0"})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Run(ctx); err != nil || e.acceptor.listener != nil {
			t.Errorf("Run: %v, listener %v", err, e.acceptor.listener)
		}
		if _, err := e.Dialer()(t.Context(), InProcessAddr); !errors.Is(err, ErrStopped) {
			t.Errorf("Dialer: %v", err)
		}
	}
}

// patient returns a context for calls that should not take long.
func patient(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
