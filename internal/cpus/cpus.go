// Package cpus knows how many CPUs the process may use, and gives event loops a P to spare. Both
// are about GOMAXPROCS: the runtime says a container's limit with it, and [Spare] raises it. So
// this package remembers what it was before.
package cpus

import (
	"os"
	"runtime"
	"sync"
)

// raised is what [Spare] has done. It belongs to the process, as GOMAXPROCS does.
var raised struct {
	mu    sync.Mutex
	procs int // GOMAXPROCS since then, 0 if it was not raised; guarded by mu
	limit int // what Usable returned before; guarded by mu
}

// Usable returns how many CPUs the process may use at the same time: those that it may run on, or
// fewer if GOMAXPROCS says so, which follows the CPU limit of a container. Spare changes nothing
// about that. Any goroutine may call it.
func Usable() int {
	raised.mu.Lock()
	defer raised.mu.Unlock()
	return usable()
}

// usable is Usable. The caller holds raised.mu.
func usable() int {
	procs := runtime.GOMAXPROCS(0)
	if procs == raised.procs {
		return raised.limit
	}
	return min(runtime.NumCPU(), procs)
}

// Spare ensures that GOMAXPROCS is greater than the number of event loops, unless the environment
// sets it, and returns its value. Without an idle P, the runtime takes the loops' Ps away in the
// middle of their system calls, again and again (docs/decisions/0006-one-p-more-than-loops.md).
func Spare(loops int) int {
	raised.mu.Lock()
	defer raised.mu.Unlock()
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= loops {
		raised.limit, raised.procs = usable(), loops+1
		runtime.GOMAXPROCS(raised.procs)
	}
	return runtime.GOMAXPROCS(0)
}
