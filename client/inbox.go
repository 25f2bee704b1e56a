package client

import (
	"context"
	"log/slog"
	"sync"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// inbox runs the handlers. Each ID has a lane of its own, whose jobs run one at a time and in
// order. A pool of goroutines serves the lanes in turn. So a slow handler delays only its own ID,
// as long as fewer than Workers handlers are slow at once.
//
// Lock order: inbox.mu comes last. Code that holds it takes no other lock.
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
	waking  bool // one worker is about to start; the next is woken after that
	stop    bool
	jobs    int // waiting or running
	running int
	begun   uint64 // jobs
	seen    uint64 // begun at the last call of Look
	full    bool   // Look has logged that all workers are busy
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
	from        string // the last sender's ID; owned by the worker that runs the lane's job
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
	shared  *shared       // the body of a frame for several IDs; nil if frame is the body
	since   int64         // arrival, on the session's clock
	// it gets no span of its own: those of other IDs of the frame are enough
	spanless bool

	lane *lane
	next *job
}

// keepFrame bounds the buffer that a job keeps for reuse.
const keepFrame = 64 << 10

// jobSize is how many bytes a job counts in addition to its frame.
const jobSize = 512

// size returns how many bytes a job counts in its own lane.
func (j *job) size() int {
	n := jobSize + len(j.frame)
	if j.shared != nil {
		n += len(j.shared.body)
	}
	return n
}

// shared is the body of a frame that several jobs have views of. It counts once towards
// Config.QueueTotal.
type shared struct {
	body []byte
	jobs int // jobs that wait; guarded by inbox.mu
}

// adds returns how many bytes a job adds to inbox.bytes when it is queued, or removes when it is
// taken.
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

// push queues a message. It returns false if the queue of its ID or of the session is full. Then
// the caller keeps the job.
func (in *inbox) push(l *lane, j *job) bool {
	size := j.size()
	in.mu.Lock()
	defer in.mu.Unlock()
	// A message that is larger than a whole queue may pass if the queue is empty.
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

// Look logs a warning if all workers run handlers that do not return while messages wait for one.
func (in *inbox) Look() (again bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	busy := in.running == in.cfg.Workers && in.ready.first != nil
	if busy && in.begun == in.seen && !in.full {
		in.full = true
		go in.log.Warn("distmsg: all workers run handlers that do not return, so messages for other IDs wait",
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

// close drops the waiting jobs and lets the workers end. A worker that runs a handler ends after
// it.
func (in *inbox) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stop = true
	in.wake.Broadcast()
}

// The caller of the methods from here to call holds in.mu.

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

// call wakes or starts one more worker. Only one worker is about to start at a time, and it calls
// the next one. So in a burst of quick handlers a few workers do all the work, and most messages
// wake nobody.
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
		in.watch.Awake() // Look checks whether they make progress
	}
}

// work is a worker's goroutine. If the goroutine of another worker ended in a job, this one
// replaces it, and l is the lane of that job. Otherwise l is nil.
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

// take ends the job that ran in l, if l is not nil, and waits for another one. It returns nil if
// the worker is no longer needed.
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
		l.from = string(f.From) // so that successive messages of one sender share a string
	}
	d := all.next()
	d.set(j)
	in.handle(j.handler, d, j.conn.s.handlerSpan(j, d))
}

// handle calls a handler and answers if the handler has not: it accepts the message if the handler
// returned, and rejects it if not. The sender does not get the value of a panic. span may be nil.
func (in *inbox) handle(h Handler, d *Delivery, span *spanning) {
	s := d.answer.conn.s
	returned := callback.Contain(func() { h(d.context(in.ctx), d) }, func(f callback.Failure) {
		in.count.panics.Add(1)
		_ = d.Reject("the receiver's handler " + f.How())
		s.endHandler(span, d, false)
		d.Payload = nil
		f.Log(in.log, "distmsg: a handler", "to", d.To, "from", d.From)
	})
	if returned {
		_ = d.Accept() // ErrAnswered is the usual case for request/reply
		s.endHandler(span, d, true)
		d.Payload = nil
	}
}
