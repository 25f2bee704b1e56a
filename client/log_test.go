package client

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"distmsg/engine"
)

// stuckLog is a handler whose output takes nothing while the gate is locked.
type stuckLog struct {
	slog.Handler
	gate *sync.RWMutex
}

func (s stuckLog) Handle(ctx context.Context, r slog.Record) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Handler.Handle(ctx, r)
}

// The log's handler may block. The session still loses its node and finds it again, and
// whoever asks it something gets an answer all the while.
func TestStuckLogger(t *testing.T) {
	var gate sync.RWMutex
	gate.Lock()
	defer gate.Unlock()
	n := startNode(t, engine.Config{})
	states := make(chan State, 16)
	s := dial(t, Config{
		Logger:  slog.New(stuckLog{slog.NewTextHandler(io.Discard, nil), &gate}),
		OnState: func(state State) { states <- state },
		Handler: func(context.Context, *Delivery) {},
	}, n.addr)
	if err := s.Bind(testContext(t), "a"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n.stop()
		n = startNode(t, engine.Config{Addr: n.addr})
		for receive(t, states, "the loss of the node").Attached {
		}
		for !receive(t, states, "a node").Attached {
		}
	}
	if _, err := s.Send(testContext(t), Message{From: "a", To: "a"}); err != nil {
		t.Error(err)
	}
	began := time.Now()
	if err := s.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("Close took %v", took)
	}
}
