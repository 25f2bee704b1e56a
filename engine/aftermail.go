package engine

import (
	"sync"
	"sync/atomic"
)

// mailRounds calls functions once all mail that was under way between loops has arrived. A round
// costs every loop some tasks, so all functions that are added during one round share the next
// (S32). A client that unbinds again and again thus does not fill the loops' mail.
type mailRounds struct {
	eng *Engine // static

	mu      sync.Mutex
	waiting []func() // guarded by mu
	running bool     // guarded by mu
}

// after calls f, on some loop, once all mail that was under way between loops before the call has
// arrived.
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

// begin starts a round for the waiting functions. A round takes three passes, because a loop may
// have looked up a route a moment ago. In the first pass the loop ends that iteration, in the
// second it hands over its mail, and in the third the receiving loop opens it.
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

// passLoops posts a task to every loop. The last one to run calls f.
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
