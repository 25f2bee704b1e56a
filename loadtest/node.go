package loadtest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"distmsg/engine"
)

// drainTimeout limits the drain of the node in this process. Nobody sends any more by then.
const drainTimeout = 5 * time.Second

// node is a relay node in this process.
type node struct {
	addr   string
	engine *engine.Engine
	cancel context.CancelFunc
	ended  chan error
}

// startNode starts a node on a free port of loopback.
func startNode(loops int) (*node, error) {
	// The report says what an operator would read in the node's log, but for troubles.
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0", Loops: loops, Logger: log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{engine: e, cancel: cancel, ended: make(chan error, 1)}
	go func() { n.ended <- e.Run(ctx) }()
	select {
	case <-e.Ready():
		n.addr = e.Addr().String()
		return n, nil
	case err := <-n.ended:
		cancel()
		return nil, err
	}
}

// stop drains the node and stops it. The error says what the drain cut off.
func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	drained := n.engine.Drain(ctx)
	n.cancel()
	return errors.Join(drained, <-n.ended)
}
