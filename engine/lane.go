package engine

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"
)

// Registry operations run off the loops, each ID and each session in a lane of its own choice: one
// after the other, so that the table hears the answers in the order in which the registry gave them (S12).

const (
	laneCount = 8
	// laneDepth bounds the jobs that wait in a lane; a client's request beyond it is answered overflow.
	laneDepth = 1 << 16
)

// lane runs jobs in order on one goroutine.
type lane struct {
	mu     sync.Mutex
	wake   sync.Cond
	jobs   []func() // guarded by mu
	closed bool     // guarded by mu

	began atomic.Int64 // 1 + when the job under way began, in nanoseconds since lanes.born; 0: there is none
}

// lanes is the set of all.
type lanes struct {
	seed maphash.Seed
	born time.Time
	all  [laneCount]lane
	done sync.WaitGroup
}

func newLanes() *lanes {
	ls := &lanes{seed: maphash.MakeSeed(), born: time.Now()}
	for i := range ls.all {
		l := &ls.all[i]
		l.wake.L = &l.mu
	}
	return ls
}

// start runs the lanes until stop.
func (ls *lanes) start() {
	for i := range ls.all {
		ls.done.Go(func() { ls.all[i].run(ls.born) })
	}
}

// stop lets the lanes finish what they have and waits for them.
func (ls *lanes) stop() {
	for i := range ls.all {
		l := &ls.all[i]
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.wake.Signal()
	}
	ls.done.Wait()
}

// busy is for how long the job under way that began first has run; 0: there is none.
func (ls *lanes) busy() (longest time.Duration) {
	now := time.Since(ls.born)
	for i := range ls.all {
		if began := ls.all[i].began.Load(); began != 0 {
			longest = max(longest, now-time.Duration(began-1))
		}
	}
	return longest
}

// of returns the index of the lane of a key: a client ID or the bytes of a session ID.
func (ls *lanes) of(key []byte) int {
	return int(maphash.Bytes(ls.seed, key) % laneCount)
}

// try queues a job that a client has asked for; false: the lane is full or closed.
func (ls *lanes) try(i int, job func()) bool { return ls.all[i].add(job, laneDepth) }

// must queues a job that the node itself owes; false: the lane is closed, the engine is stopping.
func (ls *lanes) must(i int, job func()) bool { return ls.all[i].add(job, int(^uint(0)>>1)) }

func (l *lane) add(job func(), depth int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.jobs) >= depth {
		return false
	}
	l.jobs = append(l.jobs, job)
	l.wake.Signal()
	return true
}

func (l *lane) run(born time.Time) {
	var batch []func()
	for {
		l.mu.Lock()
		for len(l.jobs) == 0 && !l.closed {
			l.wake.Wait()
		}
		if len(l.jobs) == 0 {
			l.mu.Unlock()
			return
		}
		batch, l.jobs = l.jobs, batch[:0]
		l.mu.Unlock()
		for _, job := range batch {
			l.began.Store(1 + int64(time.Since(born)))
			job()
		}
		l.began.Store(0)
		clear(batch)
	}
}
