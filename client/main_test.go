package client

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"distmsg/engine"
)

// The two exceptions are goroutines that a dependency of the engine starts when it is linked in.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"))
}

// patience bounds every wait of a test; it is never reached on a good day.
const patience = time.Minute

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// node is an engine that runs in the test's process.
type node struct {
	*engine.Engine
	addr string
	stop func() // ends it and waits; harmless when repeated
}

// startNode runs an engine on cfg.Addr, a free port of 127.0.0.1 by default, until the test ends.
func startNode(t testing.TB, cfg engine.Config) *node {
	t.Helper()
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	e, err := engine.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := e.Run(ctx)
		done <- err
		close(done)
	}()
	n := &node{Engine: e, stop: func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("engine:", err)
		}
	}}
	t.Cleanup(n.stop)
	select {
	case <-e.Ready():
	case err := <-done:
		t.Fatal("engine:", err)
	}
	n.addr = e.Addr().String()
	return n
}

// dial attaches a session that is closed at the end of the test.
func dial(t testing.TB, cfg Config, addrs ...string) *Session {
	t.Helper()
	cfg.Nodes = addrs
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	s, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeSession(t, s) })
	return s
}

func closeSession(t testing.TB, s *Session) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// holder dials a session that holds the IDs.
func holder(t testing.TB, cfg Config, addr string, ids ...string) *Session {
	t.Helper()
	s := dial(t, cfg, addr)
	if err := s.Bind(testContext(t), ids...); err != nil {
		t.Fatal(err)
	}
	return s
}

// waitedFor is a context whose deadline passes when somebody begins to wait for it. A short timeout
// may be over before the call begins, if the machine is busy.
type waitedFor struct {
	context.Context
	end context.CancelFunc
}

func newWaitedFor() waitedFor {
	ctx, cancel := context.WithCancel(context.Background())
	return waitedFor{ctx, cancel}
}

func (c waitedFor) Done() <-chan struct{} {
	c.end()
	return c.Context.Done()
}

func (c waitedFor) Err() error {
	if c.Context.Err() != nil {
		return context.DeadlineExceeded
	}
	return nil
}

// receive takes one value from ch.
func receive[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

// eventually waits until ok holds. It is for states that nothing announces.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-poll.C:
		case <-end:
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

// long marks a test that takes a second or more. go test -short, the first look, leaves it out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes a second or more: run it without -short")
	}
}
