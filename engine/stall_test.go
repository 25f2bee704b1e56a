package engine

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

// stuckLog is a handler whose output takes nothing any more.
type stuckLog struct {
	slog.Handler
	gate *sync.RWMutex
}

func newStuckLog() (*slog.Logger, *sync.RWMutex) {
	gate := new(sync.RWMutex)
	return slog.New(stuckLog{slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}), gate}), gate
}

func (s stuckLog) Handle(ctx context.Context, r slog.Record) error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.Handler.Handle(ctx, r)
}

func (s stuckLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return stuckLog{s.Handler.WithAttrs(attrs), s.gate}
}

// Whatever takes the log may stand still: the loops go on, links too, and what does not fit is
// dropped and counted.
func TestStuckLogger(t *testing.T) {
	long(t)
	logger, gate := newStuckLog()
	g := startGroupWith(t, 2, 2, func(c *Config) { c.Logger = logger })
	gate.Lock()
	defer gate.Unlock()
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	for i := range 2000 { // each of them is a line: the connection was closed
		c := g.nodes[0].dial()
		c.write([]byte{0, 0, 0, 0})
		c.fault(codec.FaultZeroLength)
		c.nc.Close()
		if i%100 == 0 {
			a.exchange("a", b, "b")
		}
	}
	again := g.nodes[0].cluster.linkTo("n1")
	g.nodes[0].loops[again.handle.Loop].post(func() {
		g.nodes[0].loops[again.handle.Loop].conn(again.handle).close(codec.FaultReplaced, "for this test")
	})
	g.nodes[0].eventually("another link", func() bool {
		k := g.nodes[0].cluster.linkTo("n1")
		return k != nil && k != again
	})
	g.linked(2)
	a.exchange("a", b, "b")
	if s := g.nodes[0].Stats(); s.LogsDropped == 0 || s.LongestStall > time.Second {
		t.Errorf("%d log records were dropped, longest stall %v", s.LogsDropped, s.LongestStall)
	}
	began := time.Now()
	if err := g.nodes[1].stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v to stop", took)
	}
}

// A loop that does not run is in health and in the figures while it stands, and not only when it
// runs again.
func TestStandingLoop(t *testing.T) {
	long(t)
	t.Parallel()
	stuck := make(chan struct{})
	n := start(t, Config{Loops: 2, LoopGap: time.Minute, Hooks: Hooks{Send: func(string, *codec.Send) codec.Code {
		<-stuck
		return codec.CodeOK
	}}})
	if h, s := n.Health(), n.LoopSilence(); len(h) != 0 || s > stallAfter {
		t.Errorf("health %q, silence %v", h, s)
	}
	a := n.joinOn(1, "a")
	a.post("a", "a", "x", 0)
	n.eventually("health", func() bool { return len(n.Health()) == 1 })
	silence, which := n.loopSilence()
	want := fmt.Sprintf("event loop %d of 2 has not run", which)
	if h := n.Health(); !strings.Contains(h[0], want) {
		t.Errorf("health %q, want %q", h, want)
	}
	if s, inStats := n.LoopSilence(), n.Stats().LoopSilence; s < max(silence, stallAfter) || inStats < s {
		t.Errorf("silence %v, in the figures %v, want at least %v", s, inStats, silence)
	}
	close(stuck)
	n.eventually("health is well", func() bool { return len(n.Health()) == 0 })
}

// So is a lane that a hook holds up.
func TestStandingLane(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	stuck := make(chan struct{})
	n.dir.Probe().InLane(3, func() { <-stuck })
	n.eventually("a job is under way", func() bool { return n.Stats().LaneBusy > 0 })
	n.dir.Probe().Age(3, laneStallAfter) // as if that had been long ago
	if h := n.Health(); len(h) != 1 || !strings.Contains(h[0], "a lane has been busy") {
		t.Errorf("health %q", h)
	}
	close(stuck)
	n.eventually("health is well", func() bool { return len(n.Health()) == 0 && n.Stats().LaneBusy == 0 })
}
