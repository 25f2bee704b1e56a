package engine

import (
	"sync"
	"sync/atomic"
)

// mailRounds has functions called once all mail between loops has arrived that was under way
// before. Each round costs every loop some tasks. So all that come during one round share the next
// (S32): a client that unbinds again and again does not fill the loops' mail.
type mailRounds struct {
	eng *Engine // static

	mu      sync.Mutex
	waiting []func() // guarded by mu
	running bool     // guarded by mu
}

// after calls f, on some loop, once all mail between loops from before the call has arrived.
func (r *mailRounds) after(f func()) {
	r.mu.Lock()
	r.waiting = append(r.waiting, f)
	begin := !r.running
	r.running = true
	r.mu.Unlock()
	if begin {
		r.begin()
	}
}

// begin begins a round for those that wait. It takes three passes, because a loop may have
// looked a route up a moment ago: in the first pass the loop ends that iteration, in the second it
// hands over its mail, and in the third the other loop opens it.
func (r *mailRounds) begin() {
	r.mu.Lock()
	all := r.waiting
	r.waiting, r.running = nil, len(all) > 0
	r.mu.Unlock()
	if len(all) == 0 {
		return
	}
	f := func() {
		for _, f := range all {
			f()
		}
		r.begin()
	}
	for range 3 {
		next := f
		f = func() { r.passLoops(next) }
	}
	f()
}

// passLoops posts to every loop, and the last one to come to it calls f.
func (r *mailRounds) passLoops(f func()) {
	e := r.eng
	var left atomic.Int32
	left.Store(int32(len(e.loops)))
	for _, l := range e.loops {
		l.post(func() {
			if left.Add(-1) == 0 {
				f()
			}
		})
	}
}
