// Package asynclog lets goroutines log that must not wait. A slog.Handler may block for any time:
// on a pipe that nobody reads, on a full disk, on a lock of its own. But event loops and holders of
// locks need to log, too.
//
// [Wrap] puts a bounded queue in front of a handler. Logging appends to the queue and never waits.
// A goroutine, which exists only while there is work, passes the records on in order. Records that
// do not fit are dropped and counted. After the next record that gets through, the queue logs how
// many were dropped.
package asynclog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/internal/callback"
)

// capacity is how many records may wait. As many again may be on their way to the handler. Once the
// queue is half full, records with the same message may take only as many places as are still free.
// So a message that some client causes again and again cannot crowd out all others.
const capacity = 1024

// refreshEvery is how long an answer of the wrapped handler's Enabled is reused, because Enabled
// may block, too.
const refreshEvery = time.Second

// Logger is a logger that never waits. All methods may be called from any goroutine.
type Logger struct {
	*slog.Logger
	queue *queue
}

// Wrap returns a logger that passes records to l's handler, later and on another goroutine. If l is
// already wrapped, the result shares its queue. The handler reads the values of attributes later,
// too, so they must not change. Wrap itself calls the handler's Enabled, which may block.
func Wrap(l *slog.Logger) *Logger {
	if h, ok := l.Handler().(*handler); ok {
		return &Logger{Logger: l, queue: h.queue}
	}
	q := &queue{first: l.Handler(), texts: make(map[string]int)}
	q.look()
	return &Logger{Logger: slog.New(newHandler(q, l.Handler())), queue: q}
}

// Dropped returns how many records were dropped because the handler was too slow or panicked.
func (l *Logger) Dropped() uint64 { return l.queue.dropped.Load() }

// LevelChanged is for whoever has changed which levels the wrapped handler has enabled. Without it,
// that takes effect up to a second later. Like Wrap, it calls the handler's Enabled, which may
// block.
func (l *Logger) LevelChanged() { l.queue.look() }

// Flush waits until the queue is empty and the handler has returned, but at most for within. It
// returns false if within was too short.
func (l *Logger) Flush(within time.Duration) bool {
	idle := l.queue.whenIdle()
	timeout := time.NewTimer(within)
	defer timeout.Stop()
	select {
	case <-idle:
		return true
	case <-timeout.C:
		return false
	}
}

// handler is the slog.Handler in front of a queue.
type handler struct {
	queue  *queue
	next   slog.Handler
	prompt bool // next's Enabled never waits
}

func newHandler(q *queue, next slog.Handler) *handler {
	_, prompt := next.(interface{ Prompt() })
	return &handler{queue: q, next: next, prompt: prompt}
}

// Enabled implements [slog.Handler]. It never blocks: it returns the latest answer of the wrapped
// handler. If that answer is older than a second, another goroutine calls Enabled again. A handler
// that has a method Prompt promises that its Enabled never waits, and is asked each time.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	if h.prompt {
		return h.next.Enabled(ctx, level)
	}
	return h.queue.enabled(level)
}

// Handle implements [slog.Handler]. It never blocks and returns no error.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.queue.add(entry{ctx: ctx, next: h.next, record: r.Clone()})
	return nil
}

// WithAttrs implements [slog.Handler]. It calls the wrapped handler, so it is not for those who
// must not wait.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return newHandler(h.queue, h.next.WithAttrs(attrs))
}

// WithGroup implements [slog.Handler]. It calls the wrapped handler, so it is not for those who
// must not wait.
func (h *handler) WithGroup(name string) slog.Handler {
	return newHandler(h.queue, h.next.WithGroup(name))
}

type entry struct {
	ctx    context.Context
	next   slog.Handler
	record slog.Record
}

// queue holds records until their handler has received them.
type queue struct {
	first   slog.Handler // the one that was wrapped
	dropped atomic.Uint64
	levels  atomic.Uint32 // bits as in levelBit; the levels that first has enabled
	looked  atomic.Int64  // when levels was last read, in nanoseconds since 1970

	batch []entry // owned by the goroutine that passes records on; batch[next:] remains
	next  int     // owned by the same goroutine

	mu      sync.Mutex
	waiting []entry        // guarded by mu
	texts   map[string]int // guarded by mu; how many waiting records have the same message
	unsaid  uint64         // guarded by mu; dropped records that have not been reported yet
	busy    bool           // guarded by mu; a goroutine passes records on
	// guarded by mu; closed when busy becomes false; nil: nobody waits for that
	idle chan struct{}
}

// levelBit is the bit of the highest of slog's levels that is not above level.
func levelBit(level slog.Level) uint32 {
	switch {
	case level < slog.LevelInfo:
		return 1
	case level < slog.LevelWarn:
		return 2
	case level < slog.LevelError:
		return 4
	}
	return 8
}

// enabled reports whether the handler wants records of a level.
func (q *queue) enabled(level slog.Level) bool {
	if time.Now().UnixNano()-q.looked.Load() > int64(refreshEvery) {
		q.mu.Lock()
		q.startLocked()
		q.mu.Unlock()
	}
	return q.levels.Load()&levelBit(level) != 0
}

// look asks the wrapped handler which levels it has enabled.
func (q *queue) look() {
	q.looked.Store(time.Now().UnixNano())
	var levels uint32
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if q.first.Enabled(context.Background(), level) {
			levels |= levelBit(level)
		}
	}
	q.levels.Store(levels)
}

func (q *queue) add(e entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	free, text := capacity-len(q.waiting), e.record.Message
	if free == 0 || free <= capacity/2 && q.texts[text] >= free {
		q.dropped.Add(1)
		q.unsaid++
		return
	}
	q.waiting = append(q.waiting, e)
	q.texts[text]++
	q.startLocked()
}

func (q *queue) startLocked() {
	if !q.busy {
		q.busy = true
		go q.passOn(true)
	}
}

// passOn passes records to their handlers until there are no more. A record whose handler panics
// counts as dropped. If a handler ends this goroutine, another takes its place. That one does not
// call look, because look may be what ended the goroutine.
func (q *queue) passOn(look bool) {
	over := false
	defer func() {
		if !over {
			go q.passOn(false)
		}
	}()
	for ; ; look = true {
		for q.next < len(q.batch) {
			e := q.batch[q.next]
			q.batch[q.next] = entry{}
			q.next++
			// slog's own loggers ignore the error as well
			q.contain(func() { _ = e.next.Handle(e.ctx, e.record) })
		}
		if look {
			callback.Contain(q.look, func(callback.Failure) {})
		}
		q.mu.Lock()
		var unsaid uint64
		unsaid, q.unsaid = q.unsaid, 0
		if len(q.waiting) == 0 && unsaid == 0 {
			q.busy = false
			if q.idle != nil {
				close(q.idle)
				q.idle = nil
			}
			over = true
			q.mu.Unlock()
			return
		}
		q.batch, q.waiting, q.next = q.waiting, q.batch[:0], 0
		clear(q.texts)
		q.mu.Unlock()
		if unsaid > 0 {
			q.contain(func() { q.say(unsaid) })
		}
	}
}

// contain calls a handler for a record. The record counts as dropped if the handler does not
// return.
func (q *queue) contain(handle func()) {
	callback.Contain(handle, func(callback.Failure) { q.dropped.Add(1) })
}

// say logs how many records were dropped.
func (q *queue) say(dropped uint64) {
	if !q.first.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log records were dropped because their reader was too slow", 0)
	r.AddAttrs(slog.Uint64("records", dropped))
	_ = q.first.Handle(context.Background(), r)
}

// whenIdle returns a channel that is closed when no record waits or is on its way to the handler.
func (q *queue) whenIdle() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	if !q.busy {
		close(q.idle)
		q.idle = nil
	}
	return idle
}
