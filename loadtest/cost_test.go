//go:build !race

package loadtest_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"distmsg/engine"
	"distmsg/loadtest"
)

// What a message may cost in this process. Driver and node count together, so the node alone costs
// less.
const (
	maxAllocsPerMessage = 0.015
	// for ticks and checks, even if a busy machine lets few messages through meanwhile
	maxAllocsPerSecond = 1000
)

// cost is what the process had spent at one moment.
type cost struct {
	mallocs, writes, sends uint64
	at                     time.Time
}

func costOf(e *engine.Engine) cost {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := e.Stats()
	return cost{m.Mallocs, s.Writes, s.Sends, time.Now()}
}

// TestCostPerMessage checks the cost of a message in steady state, with 200 connections and 50
// messages in flight on each. A message must cost (almost) no allocation.
//
// All loops share one P. So the node is always busy when it runs, as on a saturated core. The test
// prints the write calls per message. They depend on how many messages a noisy machine lets come
// together, so TestOneWriteForEachDestination of package engine holds what the node promises.
func TestCostPerMessage(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, loops := range []int{1, 2} {
		for _, noAck := range []bool{false, true} {
			t.Run(fmt.Sprintf("loops=%d,noAck=%v", loops, noAck), func(t *testing.T) {
				held(t, func() (first, last cost) { return runCost(t, loops, noAck) })
			})
		}
	}
}

func runCost(t *testing.T, loops int, noAck bool) (first, last cost) {
	e, err := engine.New(engine.Config{Addr: "127.0.0.1:0", Loops: loops, HelloTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- e.Run(ctx) }()
	<-e.Ready()
	defer func() {
		stop()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}()

	return measure(t, loadtest.Config{Nodes: []string{e.Addr().String()}, NoAck: noAck},
		func() cost { return costOf(e) }, func() bool { return e.Stats().Connections == 200 })
}

// The measurement begins after so many messages. It ends when so many more have been sent, however
// long that takes.
const (
	warmup   = 100_000
	measured = 500_000
)

// measure measures the cost of a load between its first and its last look. All connections are busy
// in that time. Start and end of the load do not count.
func measure(t *testing.T, cfg loadtest.Config, look func() cost, busy func() bool) (first, last cost) {
	t.Helper()
	done, enough, started := make(chan error, 1), make(chan struct{}), make(chan func() loadtest.Snapshot, 1)
	cfg.Conns, cfg.Window, cfg.Warmup, cfg.Duration, cfg.Until = 200, 50, -1, time.Hour, enough
	cfg.Started = func(snapshot func() loadtest.Snapshot) { started <- snapshot }
	go func() {
		report, err := loadtest.Run(t.Context(), cfg)
		if err == nil {
			if v, why := report.Verdict(); v != 0 {
				err = fmt.Errorf("verdict %v: %s", v, why)
			}
		}
		done <- err
	}()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	var snapshot func() loadtest.Snapshot
	for last.sends == 0 {
		select {
		case err := <-done:
			t.Fatalf("the load ended early: %v", err)
		case snapshot = <-started:
		case <-poll.C: // to look allocates, too: there are two looks
			switch {
			case snapshot == nil || snapshot().Sent < warmup:
			case first.sends == 0:
				first = look()
			// the node's count may be a little behind
			case snapshot().Sent > first.sends+measured*11/10 && busy():
				last = look()
			}
		}
	}
	close(enough)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return first, last
}

// held runs a load until it costs no more than the limit, three times at most. What else goes on in
// this process can only add to the allocations. So one run within the limit proves that the code
// can do it.
func held(t *testing.T, run func() (first, last cost)) {
	t.Helper()
	for try := 1; ; try++ {
		first, last := run()
		err := last.check(t, first)
		if err == nil {
			return
		}
		if try == 3 {
			t.Fatal(err)
		}
		t.Log(err, "(once more)")
	}
}

// check compares the cost since first with the limit.
func (last cost) check(t *testing.T, first cost) error {
	t.Helper()
	sends := float64(last.sends - first.sends)
	if first.sends == 0 || sends < measured {
		return fmt.Errorf("only %.0f messages were counted", sends)
	}
	allocs, writes := float64(last.mallocs-first.mallocs)/sends, float64(last.writes-first.writes)/sends
	most := maxAllocsPerMessage + maxAllocsPerSecond*last.at.Sub(first.at).Seconds()/sends
	t.Logf("%.0f messages: %.4f allocations and %.4f write calls of the node each", sends, allocs, writes)
	if allocs > most {
		return fmt.Errorf("%.4f allocations per message, at most %.4f are promised", allocs, most)
	}
	return nil
}
