package engine

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// clock measures the time since it was made, and includes time that the machine was asleep (S24).
// While a virtual machine or laptop is suspended, its monotonic clock stands still, but time passes
// for the other nodes.
//
// Linux has a clock for this, CLOCK_BOOTTIME, but reading it is a system call, and a loop reads the
// time in every iteration. So now reads the monotonic clock and the wall clock together. The kernel
// sets the wall clock forward after a sleep. Only when the two clocks have moved apart does now
// read CLOCK_BOOTTIME, to tell a sleep from a change of the wall clock. A loop calls now when an
// iteration begins. For further readings in the same iteration it calls glance, which reads only
// the monotonic clock.
type clock struct {
	// read returns nanoseconds since 1970, and the monotonic time since the clock was made.
	read func() (wall int64, awake time.Duration)
	boot func() time.Duration // how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
	born time.Time            // when the clock was made
	wall int64                // the same moment on the wall clock
	base time.Duration        // what boot returned at that moment

	// by how many nanoseconds the wall clock had moved from the monotonic one at the latest check
	apart atomic.Int64
	// how many nanoseconds the machine had slept at the latest check
	slept atomic.Int64
}

// drift is how far the wall clock may move from the monotonic one before the clock checks for a
// sleep. NTP adjusts the wall clock more slowly than that, and a sleep that matters is longer.
const drift = 100 * time.Millisecond

func newClock() *clock {
	born := time.Now()
	c := &clock{boot: bootAhead, born: born, wall: born.UnixNano(), base: bootAhead()}
	c.read = func() (int64, time.Duration) {
		now := time.Now()
		return now.UnixNano(), now.Sub(born)
	}
	return c
}

// now returns the time since the clock was made, time asleep included. Any goroutine may call it.
func (c *clock) now() time.Duration {
	wall, awake := c.read()
	apart := wall - c.wall - int64(awake)
	if moved := time.Duration(apart - c.apart.Load()); moved > drift || moved < -drift {
		slept := int64(c.boot() - c.base)
		for old := c.slept.Load(); old < slept && !c.slept.CompareAndSwap(old, slept); old = c.slept.Load() {
		} // keep the greatest value of all callers
		// Store apart last: a caller that sees no new movement then also sees the sleep.
		c.apart.Store(apart)
	}
	return awake + time.Duration(c.slept.Load())
}

// glance is like now, but does not check for a sleep. It includes only the sleeps that now has
// found before. Any goroutine may call it.
func (c *clock) glance() time.Duration {
	return time.Since(c.born) + time.Duration(c.slept.Load())
}

// bootAhead returns how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC, which is the time that the
// machine has slept. If a thread loses its CPU between the two readings, the result is too small,
// so bootAhead takes the greatest of a few. It returns 0 if the kernel does not support the clock.
func bootAhead() (ahead time.Duration) {
	for range 3 {
		var boot, mono unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
			return 0
		}
		ahead = max(ahead, time.Duration(boot.Nano()-mono.Nano()))
	}
	return ahead
}
