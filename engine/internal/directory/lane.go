package directory

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/routing"
)

// Registry operations run off the loops, in lanes: all of one ID, and all of one session, in one
// lane and one after the other, so that the table hears the answers in the order in which the
// registry gave them (S12).
//
// A lane is shared by all connections of the node, so it has shares (S32). Each connection has a
// line of its own, and the lane serves the lines in turn. So a client waits for what it has asked
// for itself, and for one turn of the others. What is alike in the lines goes to the registry
// together, in one call. Sessions have lanes of their own: who says hello does not wait for binds
// and lookups.

const (
	laneCount = 8
	// laneDepth bounds the jobs that wait in one line; a client's request beyond it is answered
	// overflow.
	laneDepth = 1 << 16
	// joinMost is about how many IDs go into one call to the registry: with more, everybody else
	// would wait for long. joinScan bounds how many lines are passed over because they have
	// something else first.
	joinMost = 1024
	joinScan = 256
	// quickAtOnce is how many of the node's own jobs a lane does before the others have a turn, and
	// urgentAtOnce the same for jobs of lines that are served first.
	quickAtOnce  = 1024
	urgentAtOnce = 16
)

// account says in whose line a job waits: a client connection's, a session's, or, if it is zero,
// the node's own.
type account struct {
	conn    routing.Handle
	session routing.SessionID
}

// job is what waits in a line: a part of a request, or anything else.
type job struct {
	do   func()
	verb Verb // if do is nil
	part part
}

// part is what one lane has of a request: the indices of its IDs.
type part struct {
	*Request
	mine []int
}

// line is the jobs of one account that wait in a lane, in order.
type line struct {
	who    account
	jobs   []job
	first  [1]job // where jobs begins, as most lines never have two
	urgent bool   // it is served before those that are not
}

// lane runs jobs on one goroutine.
type lane struct {
	mu     sync.Mutex
	wake   sync.Cond
	quick  []func()          // guarded by mu, as all below; jobs that ask nobody, which come first
	lines  map[account]*line // those in which something waits
	turns  [2][]*line        // the same, urgent ones first, in the order of their turns
	inRow  int               // how many urgent jobs were done in a row
	closed bool

	// 1 + when the job under way began, in nanoseconds since lanes.born; 0: there is none
	began atomic.Int64
}

// lanes is the set of all: laneCount for IDs, and behind them as many for sessions.
type lanes struct {
	seed maphash.Seed
	born time.Time
	work func(Verb, []part) // does parts of requests
	all  [2 * laneCount]lane
	done sync.WaitGroup
}

func newLanes(work func(Verb, []part)) *lanes {
	ls := &lanes{seed: maphash.MakeSeed(), born: time.Now(), work: work}
	for i := range ls.all {
		l := &ls.all[i]
		l.wake.L = &l.mu
		l.lines = make(map[account]*line)
	}
	return ls
}

// start runs the lanes until stop.
func (ls *lanes) start() {
	for i := range ls.all {
		ls.done.Go(func() { ls.run(&ls.all[i]) })
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

// of returns the index of the lane of a client ID.
func (ls *lanes) of(id []byte) int { return int(maphash.Bytes(ls.seed, id) % laneCount) }

// ofSession returns the index of the lane of a session.
func (ls *lanes) ofSession(id routing.SessionID) int { return laneCount + ls.of(id[:]) }

// try queues a part of a client's request. It returns false if the line is full, or the engine is
// stopping.
func (ls *lanes) try(i int, who account, v Verb, p part) bool {
	return ls.all[i].add(who, job{verb: v, part: p}, laneDepth, false)
}

// must queues a job of the node's own that may ask the registry. It returns false if the engine is
// stopping.
func (ls *lanes) must(i int, f func()) bool {
	return ls.all[i].add(account{}, job{do: f}, unbounded, false)
}

// should is must for what the node need not do: it also returns false if too much waits.
func (ls *lanes) should(i int, f func()) bool {
	return ls.all[i].add(account{}, job{do: f}, laneDepth, false)
}

// quick queues a job of the node's own that asks nobody. It returns false if the engine is
// stopping.
func (ls *lanes) quick(i int, f func()) bool { return ls.all[i].addQuick(f, unbounded) }

// tryQuick is quick for what the node need not do: it also returns false if too much waits.
func (ls *lanes) tryQuick(i int, f func()) bool { return ls.all[i].addQuick(f, laneDepth) }

// inSession queues a job that is about a session, behind those that are about it already. It
// returns false if the engine is stopping.
func (ls *lanes) inSession(id routing.SessionID, f func()) bool {
	return ls.all[ls.ofSession(id)].add(account{session: id}, job{do: f}, unbounded, false)
}

// tryJoin queues a hello that is about a session, with all that waits for the session before it, so
// that it comes before other sessions' jobs. It returns false as try does.
func (ls *lanes) tryJoin(id routing.SessionID, f func()) bool {
	return ls.all[ls.ofSession(id)].add(account{session: id}, job{do: f}, laneDepth, true)
}

const unbounded = int(^uint(0) >> 1)

func (l *lane) addQuick(f func(), depth int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.quick) >= depth {
		return false
	}
	l.quick = append(l.quick, f)
	l.wake.Signal()
	return true
}

func (l *lane) add(who account, j job, depth int, urgent bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.lines[who]
	if l.closed || ln != nil && len(ln.jobs) >= depth {
		return false
	}
	if ln == nil {
		ln = &line{who: who, urgent: urgent}
		ln.jobs = ln.first[:0]
		l.lines[who] = ln
		l.queue(ln)
	}
	ln.jobs = append(ln.jobs, j)
	if urgent && !ln.urgent {
		ln.urgent = true
		l.queue(ln) // and pop passes it over where it was
	}
	l.wake.Signal()
	return true
}

// queue gives a line its turn behind the others. mu is held, as in all below.
func (l *lane) queue(ln *line) {
	of := &l.turns[1]
	if ln.urgent {
		of = &l.turns[0]
	}
	*of = append(*of, ln)
}

// run does the jobs of a lane until it is closed and has none.
func (ls *lanes) run(l *lane) {
	var quick []func()
	var batch []job
	for {
		var more bool
		if quick, batch, more = l.next(quick, batch, ls.born); !more {
			return
		}
		for _, f := range quick {
			f()
		}
		if len(batch) > 0 {
			l.began.Store(1 + int64(time.Since(ls.born)))
			ls.do(batch)
		}
		clear(quick)
		clear(batch)
	}
}

// do does one job, or some that are alike together.
func (ls *lanes) do(batch []job) {
	if f := batch[0].do; f != nil {
		f()
		return
	}
	parts := make([]part, len(batch))
	for i := range batch {
		parts[i] = batch[i].part
	}
	ls.work(batch[0].verb, parts)
}

// next waits for jobs. It returns some of the node's own, and one or more of the lines. More is
// false if the lane is closed and has none.
func (l *lane) next(quick []func(), batch []job, born time.Time) (_ []func(), _ []job, more bool) {
	quick, batch = quick[:0], batch[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began.Store(0)
	for len(l.quick)+len(l.lines) == 0 && !l.closed {
		l.wake.Wait()
	}
	n := min(len(l.quick), quickAtOnce)
	quick = append(quick, l.quick[:n]...)
	clear(l.quick[:n])
	if l.quick = l.quick[n:]; len(l.quick) == 0 {
		l.quick = nil
	}
	batch = l.takeTurns(batch)
	more = len(quick)+len(batch) > 0
	if more {
		l.began.Store(1 + int64(time.Since(born)))
	}
	return quick, batch, more
}

// takeTurns takes the first job of the line whose turn it is. If that is a part of a request, it
// takes others that can be done with it: in each round one of each line.
func (l *lane) takeTurns(batch []job) []job {
	ln := l.pop()
	if ln == nil {
		return batch
	}
	first := ln.jobs[0]
	l.served(ln)
	batch = append(batch, first)
	if first.do != nil {
		return batch
	}
	turns := &l.turns[1] // there are no parts of requests in urgent lines
	ids, passed := len(first.part.mine), 0
	var kept []*line // those that have something else first: their turns come first
	for round := len(*turns); round > 0 && ids < joinMost && passed < joinScan; round = len(*turns) {
		taken := false
		for ; round > 0 && ids < joinMost && passed < joinScan; round-- {
			ln := (*turns)[0]
			(*turns)[0], *turns = nil, (*turns)[1:]
			if j := ln.jobs[0]; j.do == nil && j.verb == first.verb {
				batch, taken = append(batch, j), true
				ids += len(j.part.mine)
				l.served(ln)
			} else {
				kept = append(kept, ln)
				passed++
			}
		}
		if !taken {
			break
		}
	}
	if len(kept) > 0 {
		*turns = append(kept, *turns...)
	}
	return batch
}

// pop returns the line whose turn it is, nil if there is none. Lines that are not urgent have a
// turn now and then in any case.
func (l *lane) pop() *line {
	order := [2]int{0, 1}
	if l.inRow >= urgentAtOnce {
		order = [2]int{1, 0}
	}
	for _, k := range order {
		turns := &l.turns[k]
		for len(*turns) > 0 {
			ln := (*turns)[0]
			(*turns)[0], *turns = nil, (*turns)[1:]
			if len(ln.jobs) == 0 || ln.urgent != (k == 0) {
				continue // it has become urgent since
			}
			if l.inRow++; k == 1 {
				l.inRow = 0
			}
			return ln
		}
		*turns = nil
	}
	return nil
}

// served takes the first job out of a line, which has its next turn behind the others.
func (l *lane) served(ln *line) {
	ln.jobs[0] = job{}
	if ln.jobs = ln.jobs[1:]; len(ln.jobs) == 0 {
		delete(l.lines, ln.who)
		return
	}
	l.queue(ln)
}
