package asynclog

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// stuck is a handler that takes nothing until it is released, and lets nobody ask it anything
// either.
type stuck struct {
	slog.Handler
	gate *sync.RWMutex
}

func (s stuck) Enabled(ctx context.Context, level slog.Level) bool {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Handler.Enabled(ctx, level)
}

func (s stuck) Handle(ctx context.Context, r slog.Record) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Handler.Handle(ctx, r)
}

// A handler that blocks holds up nobody who logs; what it has no room for is dropped, counted, and
// said.
func TestStuckHandler(t *testing.T) {
	var out bytes.Buffer
	var gate sync.RWMutex
	log := Wrap(slog.New(stuck{slog.NewTextHandler(&out, nil), &gate}))
	gate.Lock()
	const n = 10 * capacity
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		for i := range n {
			log.Info("line", "i", i)
		}
	}()
	select {
	case <-logged:
	case <-time.After(patience):
		t.Fatal("who logs is held up by the handler")
	}
	if log.Flush(50 * time.Millisecond) {
		t.Error("flushed into a handler that takes nothing")
	}
	gate.Unlock()
	if !log.Flush(patience) {
		t.Fatal("not flushed")
	}
	lines := strings.Count(out.String(), "msg=line")
	if got := log.Dropped(); got == 0 || got+uint64(lines) != n {
		t.Errorf("%d lines and %d dropped, of %d", lines, got, n)
	}
	if !strings.Contains(out.String(), "log records were dropped") {
		t.Errorf("nobody says that records were dropped: %s", out.String()[max(0, out.Len()-200):])
	}
	log.Info("after")
	if !log.Flush(patience) || !strings.HasSuffix(strings.TrimSpace(out.String()), "msg=after") {
		t.Error("the handler has recovered, and what is logged then does not arrive")
	}
}

// Levels that the handler does not take are not queued, and a level that changes is noticed.
func TestLevels(t *testing.T) {
	var level slog.LevelVar
	log := Wrap(slog.New(slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: &level})))
	if log.Enabled(t.Context(), slog.LevelDebug) || !log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("debug is enabled, or info is not")
	}
	level.Set(slog.LevelDebug)
	for deadline := time.Now().Add(patience); !log.Enabled(t.Context(), slog.LevelDebug); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new level is not noticed")
		}
	}
	level.Set(slog.LevelError)
	log.LevelChanged()
	if log.Enabled(t.Context(), slog.LevelWarn) || !log.Enabled(t.Context(), slog.LevelError) {
		t.Error("what LevelChanged tells is not noticed at once")
	}
	log.Flush(patience)
}

func TestWrapTwice(t *testing.T) {
	log := Wrap(slog.New(slog.NewTextHandler(&bytes.Buffer{}, nil)))
	if again := Wrap(log.With("a", 1)); again.queue != log.queue {
		t.Error("a logger with a queue got another one")
	}
}

// What comes out is what the handler would have got without the queue.
func TestHandlerContract(t *testing.T) {
	var out bytes.Buffer
	log := Wrap(slog.New(slog.NewJSONHandler(&out, nil)))
	err := slogtest.TestHandler(log.Handler(), func() []map[string]any {
		if !log.Flush(patience) {
			t.Fatal("not flushed")
		}
		var all []map[string]any
		for line := range strings.Lines(out.String()) {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		return all
	})
	if err != nil {
		t.Error(err)
	}
}

// fails does in place of handling a record, or of answering, what the record's message says.
type fails struct {
	slog.Handler
	enabled func()
}

func (f fails) Enabled(ctx context.Context, level slog.Level) bool {
	f.enabled()
	return f.Handler.Enabled(ctx, level)
}

func (f fails) Handle(ctx context.Context, r slog.Record) error {
	switch r.Message {
	case "panic":
		panic("on purpose")
	case "goexit":
		runtime.Goexit()
	}
	return f.Handler.Handle(ctx, r)
}

// A handler that panics, or ends its goroutine, loses that record and nothing else.
func TestHandlerDoesNotReturn(t *testing.T) {
	var out bytes.Buffer
	enabled := func() {}
	log := Wrap(slog.New(fails{slog.NewTextHandler(&out, nil), func() { enabled() }}))
	for range 3 {
		for _, text := range []string{"goexit", "panic", "goexit", "fine"} {
			log.Info(text)
		}
		if !log.Flush(patience) {
			t.Fatal("the log stands still")
		}
	}
	if got := strings.Count(out.String(), "fine"); got != 3 || log.Dropped() != 9 {
		t.Errorf("%d records came through, %d were dropped:\n%s", got, log.Dropped(), &out)
	}
	for _, enabled = range []func(){runtime.Goexit, func() { panic("on purpose") }} {
		log.Info("fine")
		if !log.Flush(patience) {
			t.Fatal("the log stands still")
		}
	}
	if got := strings.Count(out.String(), "fine"); got != 5 {
		t.Errorf("%d records came through:\n%s", got, &out)
	}
}

// What is logged again and again takes no more than half of the queue: other records still get
// through.
func TestSameText(t *testing.T) {
	var out bytes.Buffer
	var gate sync.RWMutex
	log := Wrap(slog.New(stuck{slog.NewTextHandler(&out, nil), &gate}))
	gate.Lock()
	for i := range 10 * capacity {
		log.Warn("again", "i", i)
	}
	for i := range capacity / 8 {
		log.Warn("something else", "i", i)
	}
	gate.Unlock()
	if !log.Flush(patience) {
		t.Fatal("the queue does not become empty")
	}
	if n := strings.Count(out.String(), "something else"); n != capacity/8 {
		t.Errorf("%d of %d other records got through", n, capacity/8)
	}
	if n := strings.Count(out.String(), "msg=again"); n < capacity/2 || uint64(n) != 10*capacity-log.Dropped() {
		t.Errorf("%d got through, %d were dropped", n, log.Dropped())
	}
}
