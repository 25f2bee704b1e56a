package engine

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// clock tells the time since it was made, and also runs while the machine sleeps (S24): the other
// nodes' time passes while a virtual machine or laptop is suspended, but its own monotonic clock
// stands still.
//
// Linux has such a clock, CLOCK_BOOTTIME, but to read it is a system call, and a loop reads the
// time in every iteration. So now reads the monotonic clock, and with it the wall clock, which the
// kernel sets forward after a sleep. Only when the two have moved apart, it reads CLOCK_BOOTTIME,
// to tell a sleep from somebody setting the wall clock. A loop calls now when an iteration begins,
// and glance, which reads the monotonic clock alone, for what else it wants to know in the
// iteration.
type clock struct {
	// static
	read func() (wall int64, awake time.Duration) // nanoseconds since 1970, and the monotonic time since it was made
	boot func() time.Duration                     // how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC
	born time.Time                                // when it was made
	wall int64                                    // the same on the wall clock
	base time.Duration                            // what boot returned then

	// shared
	apart atomic.Int64 // nanoseconds that the wall clock had moved from the monotonic one at the latest look
	slept atomic.Int64 // nanoseconds that the machine had slept at the latest look
}

// drift is how far the wall clock may move from the monotonic one before the clock looks why. NTP
// adjusts the wall clock more slowly, and a sleep that matters is longer.
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

// now is the time since the clock was made, asleep or awake. Any goroutine may call it.
func (c *clock) now() time.Duration {
	wall, awake := c.read()
	apart := wall - c.wall - int64(awake)
	if moved := time.Duration(apart - c.apart.Load()); moved > drift || moved < -drift {
		slept := int64(c.boot() - c.base)
		for old := c.slept.Load(); old < slept && !c.slept.CompareAndSwap(old, slept); old = c.slept.Load() {
		} // the greatest of what all callers have read
		c.apart.Store(apart) // last: whoever sees that nothing has moved since sees the sleep as well
	}
	return awake + time.Duration(c.slept.Load())
}

// glance is now without a look for sleeps: what now has not found yet is not in it. Any goroutine
// may call it.
func (c *clock) glance() time.Duration {
	return time.Since(c.born) + time.Duration(c.slept.Load())
}

// bootAhead is how far CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time that the machine has
// slept. A thread that loses its CPU between the two readings makes it less, so the greatest of a
// few is taken. It is 0 where the kernel does not say.
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
