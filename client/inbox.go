package client

import (
	"context"
	"log/slog"
	"sync"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// inbox runs the handlers. Each ID has a lane of its own, whose jobs run one at a time and in
// order; a pool of goroutines serves the lanes in turn. So a slow handler holds up its own ID only,
// as long as fewer than Workers handlers are slow at once.
//
// Lock order: inbox.mu comes last, no lock is taken under it.
type inbox struct {
	// Static after construction.
	ctx     context.Context // the handlers'
	cfg     *Config
	log     *slog.Logger
	clock   func() int64
	holds   *holdings
	count   *counters
	watch   *callback.Group
	pool    sync.Pool // of *job
	stopped sync.WaitGroup

	mu      sync.Mutex
	wake    sync.Cond
	ready   laneList // lanes with jobs, none of which runs
	workers int
	idle    int
	waking  bool // one worker is on its way: the next is woken when it has arrived
	stop    bool
	jobs    int // waiting or running
	running int
	begun   uint64 // jobs
	seen    uint64 // begun, when Look looked last
	full    bool   // it has said that all workers are busy
	bytes   int    // of jobs waiting
	empty   chan struct{}
}

// lane is a queue of jobs that run in order. Guarded by inbox.mu.
type lane struct {
	first, last *job
	n           int
	bytes       int
	busy        bool // listed in inbox.ready, or one of its jobs runs
	next        *lane
	from        string // the last sender's name; owned by whoever runs the lane's job
}

type laneList struct{ first, last *lane }

func (l *laneList) push(v *lane) {
	v.next = nil
	if l.first == nil {
		l.first = v
	} else {
		l.last.next = v
	}
	l.last = v
}

func (l *laneList) pop() *lane {
	v := l.first
	l.first = v.next
	return v
}

// job is a message for a handler.
type job struct {
	conn    *conn
	binding *binding
	handler Handler
	frame   []byte        // the body, copied out of the reader's buffer
	deliver codec.Deliver // views into frame, or into shared
	shared  *shared       // the body of a frame for several IDs; nil: frame is the body
	since   int64         // arrival, on the session's clock

	lane *lane
	next *job
}

// keepFrame bounds what a job for reuse holds on to.
const keepFrame = 64 << 10

// jobSize is what a job takes beside its frame.
const jobSize = 512

// size is what a job counts in its own lane.
func (j *job) size() int {
	n := jobSize + len(j.frame)
	if j.shared != nil {
		n += len(j.shared.body)
	}
	return n
}

// shared is the body of a frame that several jobs have views of. It counts once among all that
// waits.
type shared struct {
	body []byte
	jobs int // that wait; guarded by inbox.mu
}

// adds is what a job counts among all that waits when it comes, or has counted when it goes.
func (j *job) adds() int {
	n := j.size()
	if j.shared != nil && j.shared.jobs > 0 {
		n -= len(j.shared.body)
	}
	return n
}

// keepIdle is how many goroutines wait for work after a burst.
const keepIdle = 16

func newInbox(ctx context.Context, s *Session) *inbox {
	in := &inbox{
		ctx: ctx, cfg: &s.cfg, log: s.cfg.Logger, clock: s.now, holds: &s.holds, count: &s.count, watch: s.cb.group,
	}
	in.wake.L = &in.mu
	in.pool.New = func() any { return new(job) }
	in.watch.Watch(in)
	return in
}

// newJob copies a frame's body.
func (in *inbox) newJob(body []byte) *job {
	j := in.pool.Get().(*job)
	j.frame = append(j.frame[:0], body...)
	return j
}

// newSharedJob makes a job for one of the IDs that a frame is for.
func (in *inbox) newSharedJob(frame *shared) *job {
	j := in.pool.Get().(*job)
	j.frame, j.shared = j.frame[:0], frame
	return j
}

func (in *inbox) recycle(j *job) {
	frame := j.frame
	if cap(frame) > keepFrame {
		frame = nil
	}
	*j = job{frame: frame}
	in.pool.Put(j)
}

// push queues a message unless its ID's queue or the session's is full. On false the job is still
// the caller's.
func (in *inbox) push(l *lane, j *job) bool {
	size := j.size()
	in.mu.Lock()
	defer in.mu.Unlock()
	// A message larger than a whole queue may pass when it is alone in it.
	full := l.n > 0 && (l.n >= in.cfg.QueueMessages || l.bytes+size > in.cfg.QueueBytes) ||
		in.bytes > 0 && in.bytes+j.adds() > in.cfg.QueueTotal
	if full || in.stop {
		return false
	}
	in.append(l, j)
	return true
}

// queued returns how many jobs wait or run, and how many run.
func (in *inbox) queued() (jobs, running int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.jobs, in.running
}

// Look warns when all workers are in handlers that do not return while messages wait for one.
func (in *inbox) Look() (again bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	busy := in.running == in.cfg.Workers && in.ready.first != nil
	if busy && in.begun == in.seen && !in.full {
		in.full = true
		go in.log.Warn("distmsg: all handlers that may run at once are busy: what comes for other IDs waits",
			"workers", in.cfg.Workers, "for", callback.StuckAfter, "waiting", in.jobs-in.running)
	}
	in.full = in.full && busy
	in.seen = in.begun
	return busy
}

// drained returns a channel that is closed when no job waits or runs.
func (in *inbox) drained() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.empty == nil {
		in.empty = make(chan struct{})
	}
	empty := in.empty
	in.checkEmpty()
	return empty
}

// close drops what waits and lets the workers end; those that run a handler end after it.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stop = true
	in.wake.Broadcast()
}

// The next six need in.mu.

func (in *inbox) append(l *lane, j *job) {
	j.lane = l
	if l.first == nil {
		l.first = j
	} else {
		l.last.next = j
	}
	l.last = j
	l.n++
	l.bytes += j.size()
	in.jobs++
	in.bytes += j.adds()
	if j.shared != nil {
		j.shared.jobs++
	}
	if !l.busy {
		l.busy = true
		in.ready.push(l)
		in.call()
	}
}

// next takes the first job of the first lane that has one.
func (in *inbox) next() *job {
	l := in.ready.pop()
	j := l.first
	l.first, j.next = j.next, nil
	l.n--
	l.bytes -= j.size()
	if j.shared != nil {
		j.shared.jobs--
	}
	in.bytes -= j.adds()
	in.running++
	in.begun++
	if in.ready.first != nil {
		in.call()
	}
	return j
}

// done makes l's next job available.
func (in *inbox) done(l *lane) {
	in.jobs--
	in.running--
	if l.busy = l.first != nil; l.busy {
		in.ready.push(l)
	}
	in.checkEmpty()
}

func (in *inbox) checkEmpty() {
	if in.empty != nil && in.jobs == 0 {
		close(in.empty)
		in.empty = nil
	}
}

// call gets one more worker going. One call is under way at a time, and the worker that arrives
// calls the next: in a burst of quick handlers a few workers do it all, and most messages wake
// nobody.
func (in *inbox) call() {
	switch {
	case in.waking:
	case in.idle > 0:
		in.waking = true
		in.wake.Signal()
	case in.workers < in.cfg.Workers:
		in.waking = true
		in.workers++
		in.stopped.Add(1)
		go in.work(nil)
	default:
		in.watch.Awake() // it is for Look to see whether they get on
	}
}

// work is a worker's goroutine. l is nil, or the lane of the job in which another worker's
// goroutine has ended: this one takes its place.
func (in *inbox) work(l *lane) {
	defer func() {
		if l != nil { // only runtime.Goexit leads here
			go in.work(l)
			return
		}
		in.stopped.Done()
	}()
	var deliveries deliveries
	for {
		j := in.take(l)
		if j == nil {
			l = nil
			return
		}
		l = j.lane
		in.run(j, &deliveries)
	}
}

// take ends the job that ran in l, if l is not nil, and waits for another one. Nil: the worker is
// not needed.
func (in *inbox) take(l *lane) *job {
	in.mu.Lock()
	defer in.mu.Unlock()
	if l == nil {
		in.waking = false
	} else {
		in.done(l)
	}
	for !in.stop {
		if in.ready.first != nil {
			return in.next()
		}
		if in.idle >= keepIdle {
			break
		}
		in.idle++
		in.wake.Wait()
		in.idle--
		in.waking = false
	}
	in.workers--
	return nil
}

// run executes a job and recycles it.
func (in *inbox) run(j *job, all *deliveries) {
	defer in.recycle(j)
	f := &j.deliver
	if in.holds.isGone(j.binding) {
		j.conn.owed.Add(-int64(f.Flags & codec.FlagAck))
		j.conn.notHere(f, j.since)
		return
	}
	if f.TTL != 0 && in.clock() > j.since+int64(f.TTL) { // the sender has heard timeout
		j.conn.owed.Add(-int64(f.Flags & codec.FlagAck))
		in.count.expired.Add(1)
		return
	}
	if l := j.lane; l.from != string(f.From) {
		l.from = string(f.From) // one string serves a whole conversation
	}
	d := all.next()
	d.set(j)
	in.handle(j.handler, d)
}

// handle calls a handler and answers in its stead: accepted if it returned without an answer,
// rejected if it did not return. What it panicked with is not for the sender.
func (in *inbox) handle(h Handler, d *Delivery) {
	returned := callback.Contain(func() { h(d.context(in.ctx), d) }, func(f callback.Failure) {
		in.count.panics.Add(1)
		_ = d.Reject("the receiver's handler " + f.How())
		d.Payload = nil
		f.Log(in.log, "distmsg: a handler", "to", d.To, "from", d.From)
	})
	if returned {
		_ = d.Accept() // ErrAnswered is the usual case for request/reply
		d.Payload = nil
	}
}
