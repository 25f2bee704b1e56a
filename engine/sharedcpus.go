package engine

import "distmsg/internal/cpus"

// UsableCPUs returns how many CPUs the process may use at the same time: those that it may run on,
// or fewer if GOMAXPROCS says so, which follows the CPU limit of a container. Any goroutine may
// call it. A program that raises GOMAXPROCS to have a spare P asks before that, and gives the
// answer to Config.CPUs.
func UsableCPUs() int { return cpus.Usable() }

// sharedCPUs makes loops take turns if there are more of them than CPUs. A loop takes a CPU when an
// iteration begins and gives it back when the iteration has ended. Those that wait get one in the
// order in which they came.
//
// Without that, a loop that has the CPU makes several short iterations in a row, while input and
// mail pile up at the others. Each iteration writes to each of its destinations, so short
// iterations need more writes for the same messages.
type sharedCPUs struct {
	free chan struct{}   // holds one element for each CPU that no loop has; nil: no loop waits
	over <-chan struct{} // when it is closed, the engine stops, and no loop waits any more
}

// share lets loops share a number of CPUs until over is closed.
func (s *sharedCPUs) share(loops, cpus int, over <-chan struct{}) {
	if loops <= cpus {
		return
	}
	s.free, s.over = make(chan struct{}, cpus), over
	for range cpus {
		s.give()
	}
}

// take waits for a CPU.
func (s *sharedCPUs) take() {
	if s.free == nil {
		return
	}
	select {
	case <-s.free:
	case <-s.over: // a loop that has ended may have kept its CPU
	}
}

// give gives the CPU back. A loop that did not wait because the engine stops may have none to give.
func (s *sharedCPUs) give() {
	if s.free == nil {
		return
	}
	select {
	case s.free <- struct{}{}:
	default:
	}
}
