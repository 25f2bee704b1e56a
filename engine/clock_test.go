package engine

import (
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
)

// asleep makes the clocks of a node show that its machine slept. The monotonic clock does not show
// it.
type asleep struct {
	slept, set atomic.Int64 // nanoseconds; set: how far somebody has set the wall clock
}

func (a *asleep) on(c *clock) {
	read, boot := c.read, c.boot
	c.read = func() (int64, time.Duration) {
		wall, awake := read()
		return wall + a.slept.Load() + a.set.Load(), awake
	}
	c.boot = func() time.Duration { return boot() + time.Duration(a.slept.Load()) }
}

// The clock counts sleep. It does not count a change of the wall clock.
func TestClockCountsSleep(t *testing.T) {
	c := newClock()
	var a asleep
	a.on(c)
	near := func(what string, want time.Duration) {
		t.Helper()
		_, awake := c.read()
		if got := c.now() - awake; got < want-10*time.Millisecond || got > want+time.Second {
			t.Errorf("%s: %v counted as sleep, want %v", what, got, want)
		}
	}
	near("awake", 0)
	a.slept.Store(int64(time.Hour))
	near("after an hour of sleep", time.Hour)
	a.set.Store(int64(-24 * time.Hour))
	near("after the clock was set back", time.Hour)
	a.set.Store(int64(24 * time.Hour))
	near("after the clock was set forward", time.Hour)
	a.slept.Add(int64(time.Minute))
	near("after another minute of sleep", time.Hour+time.Minute)
	if n := testing.AllocsPerRun(100, func() { c.now() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The kernel's own clocks, read without a sleep, show no sleep.
func TestClockAwake(t *testing.T) {
	c := newClock()
	c.apart.Store(int64(time.Hour)) // so that it looks
	c.now()
	if slept := time.Duration(c.slept.Load()); slept > time.Second {
		t.Errorf("slept for %v", slept)
	}
}

// A node whose machine slept counts as stopped (S24), although its monotonic clock stood still.
func TestFenceAfterSleep(t *testing.T) {
	var a asleep
	n := start(t, Config{Loops: 2}, func(e *Engine) { a.on(e.clk) })
	before := n.Incarnation()
	c, d := n.joinOn(0, "c"), n.joinOn(1, "d")
	a.slept.Store(int64(10 * time.Second))
	c.fails(codec.FaultFenced)
	d.fails(codec.FaultFenced)
	if n.Incarnation() <= before {
		t.Errorf("incarnation %d after %d", n.Incarnation(), before)
	}
	again := n.dial()
	again.hello(c.resume())
	again.alive()
}

// A short sleep is no stop, but it counts towards the deadlines of messages.
func TestDeadlinesRunInSleep(t *testing.T) {
	var a asleep
	n := start(t, Config{Loops: 1, LoopGap: time.Minute}, func(e *Engine) { a.on(e.clk) })
	from, to := n.join("from"), n.join("to")
	from.write(sendFrame(1, "from", "to", "x", codec.FlagAck, 20_000))
	to.gets("from", "to", "x")
	a.slept.Store(int64(25 * time.Second))
	from.hears(1, codec.CodeTimeout)
}
