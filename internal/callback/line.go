package callback

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// StuckAfter is how long a call may take before it counts as stuck. A stuck call is detected after
// one to two times StuckAfter.
const StuckAfter = time.Second

// Group is the shared state of the lines of one owner. Any goroutine may call its methods.
type Group struct {
	log     *slog.Logger
	prefix  string // of its log messages
	failed  func() // counts a call that did not return
	pending atomic.Int64
	stuck   atomic.Int64
	armed   atomic.Bool // the timer runs, or is about to
	timer   *time.Timer

	mu      sync.Mutex
	lookers []Looker
	empty   chan struct{} // closed when nothing is pending
}

// Looker is an object that a group checks every StuckAfter while any of the group's calls wait or
// run.
type Looker interface {
	// Look detects stuck calls. It returns false if it need not be called again until something new
	// comes.
	Look() bool
}

// NewGroup returns a group without lines. It logs calls that are stuck, and calls that panicked or
// called runtime.Goexit; each message begins with prefix. It calls failed for each call that
// panicked or called runtime.Goexit, on the goroutine of that call.
func NewGroup(log *slog.Logger, prefix string, failed func()) *Group {
	g := &Group{log: log, prefix: prefix, failed: failed}
	g.timer = time.AfterFunc(time.Hour, g.look)
	g.timer.Stop()
	return g
}

// Watch adds a Looker to the group. Its owner calls Awake when there is something to check.
func (g *Group) Watch(l Looker) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lookers = append(g.lookers, l)
}

// Awake makes the group check its lines from now on, until it finds nothing that could become
// stuck.
func (g *Group) Awake() {
	if !g.armed.Load() && g.armed.CompareAndSwap(false, true) {
		g.timer.Reset(StuckAfter)
	}
}

func (g *Group) look() {
	g.armed.Store(false) // before the check: a call that comes after it arms the timer again
	g.mu.Lock()
	lookers := g.lookers
	g.mu.Unlock()
	again := false
	for _, l := range lookers {
		again = l.Look() || again
	}
	if again {
		g.Awake()
	}
}

// Pending returns how many calls wait or run.
func (g *Group) Pending() int { return int(g.pending.Load()) }

// Stuck returns how many calls have not returned for StuckAfter or longer.
func (g *Group) Stuck() int { return int(g.stuck.Load()) }

// Drained returns a channel that is closed when no call waits or runs.
func (g *Group) Drained() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	empty := g.empty
	g.checkEmpty()
	return empty
}

// The caller of checkEmpty must hold g.mu.
func (g *Group) checkEmpty() {
	if g.empty != nil && g.pending.Load() == 0 {
		close(g.empty)
		g.empty = nil
	}
}

func (g *Group) done() {
	if g.pending.Add(-1) == 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.checkEmpty()
	}
}

// warn logs that something is stuck. A panic of the logger has no effect.
func (g *Group) warn(text string, args ...any) {
	defer func() { _ = recover() }()
	g.log.Warn(g.prefix+text, args...)
}

// Line makes calls one at a time and in order, on a goroutine that exists only while there are
// calls.
type Line[T any] struct {
	// Static after construction.
	g     *Group
	name  string
	call  func(T)
	most  int
	spare int

	mu     sync.Mutex
	queue  []T // queue[head:] waits
	head   int
	active *runner // nil: nothing runs, except runners that were passed by
	free   *runner // for reuse
	passed int     // runners that were passed by and have not come back
	turn   uint64  // counts the calls begun
	seen   uint64  // the value of turn at the latest Look
	noted  bool    // the current call counts as stuck, but was not passed by
}

// runner is a goroutine that makes calls.
type runner struct {
	work    func()
	calling bool // guarded by Line.mu
	passed  bool // guarded by Line.mu
}

// NewLine returns a line of g. name is its name in logs. At most most calls wait in it; 0 means any
// number. Up to spare stuck calls are passed by: the calls behind them start on another goroutine
// although the stuck ones have not returned.
func NewLine[T any](g *Group, name string, most, spare int, call func(T)) *Line[T] {
	l := &Line[T]{g: g, name: name, call: call, most: most, spare: spare}
	g.Watch(l)
	return l
}

// Push queues a call with each of vs in turn. It queues none and returns false if as many calls
// wait as are allowed. It never waits. Any goroutine may call it.
func (l *Line[T]) Push(vs ...T) bool {
	if !l.add(vs) {
		return false
	}
	l.g.Awake()
	return true
}

func (l *Line[T]) add(vs []T) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.most > 0 && len(l.queue)-l.head >= l.most {
		return false
	}
	l.g.pending.Add(int64(len(vs)))
	if l.head > 0 && len(l.queue)+len(vs) > cap(l.queue) {
		n := copy(l.queue, l.queue[l.head:])
		clear(l.queue[n:])
		l.queue, l.head = l.queue[:n], 0
	}
	l.queue = append(l.queue, vs...)
	l.start()
	return true
}

// Len returns how many calls wait or run. Any goroutine may call it.
func (l *Line[T]) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.waiting() + l.passed
	if l.active != nil && l.active.calling {
		n++
	}
	return n
}

// The caller of waiting must hold l.mu.
func (l *Line[T]) waiting() int { return len(l.queue) - l.head }

// The caller of start must hold l.mu.
func (l *Line[T]) start() {
	if l.active != nil || l.waiting() == 0 {
		return
	}
	r := l.free
	if r == nil {
		r = new(runner)
		r.work = func() { l.run(r) }
	}
	l.active, l.free = r, nil
	go r.work()
}

// run is the function of a runner's goroutine.
func (l *Line[T]) run(me *runner) {
	calling := false
	defer func() {
		if calling { // only runtime.Goexit gets here: this goroutine ends
			l.after(me, true)
		}
	}()
	for {
		v, ok := l.next(me)
		if !ok {
			return
		}
		calling = true
		Contain(func() { mark(func() { l.call(v) }) }, l.failed)
		calling = false
		if !l.after(me, false) {
			return
		}
	}
}

func (l *Line[T]) failed(f Failure) {
	l.g.failed()
	f.Log(l.g.log, l.g.prefix+l.name)
}

// keepQueue bounds the memory of an empty queue that is kept. A full window of the SDK (4,096)
// fits.
const keepQueue = 8192

// next returns the next call. If there is none, the runner me ends.
func (l *Line[T]) next(me *runner) (v T, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting() == 0 {
		l.active, l.free = nil, me
		return v, false
	}
	var zero T
	v, l.queue[l.head] = l.queue[l.head], zero
	if l.head++; l.waiting() == 0 {
		l.queue, l.head = l.queue[:0], 0
		if cap(l.queue) > keepQueue {
			l.queue = nil
		}
	}
	l.turn++
	me.calling = true
	return v, true
}

// after records the end of a call and reports whether me makes the next one. If me's goroutine has
// ended, another takes its place.
func (l *Line[T]) after(me *runner, ended bool) bool {
	defer l.g.done() // without l.mu
	l.mu.Lock()
	defer l.mu.Unlock()
	me.calling = false
	if me.passed {
		l.passed--
		l.g.stuck.Add(-1)
		return false
	}
	if l.noted {
		l.noted = false
		l.g.stuck.Add(-1)
	}
	if ended {
		l.active, l.free = nil, me
		l.start()
	}
	return true
}

// Look detects a call that was already running at the previous Look, and passes it by if that is
// allowed.
func (l *Line[T]) Look() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.waiting()
	if l.active == nil || !l.active.calling {
		return waiting > 0
	}
	if l.turn != l.seen {
		l.seen = l.turn
		return true
	}
	wasNoted := l.noted
	switch {
	case l.passed < l.spare:
		l.active.passed, l.active, l.noted = true, nil, false
		l.passed++
		l.start()
	case wasNoted:
		return waiting > 0
	default:
		l.noted = true
	}
	if !wasNoted {
		l.g.stuck.Add(1)
		go l.g.warn(l.name+" does not return", "for", StuckAfter, "waiting", waiting)
	}
	return waiting > 0
}
