package redis

import (
	"context"
	"sync"
	"time"

	"distmsg/routing"
)

const (
	removeBatch = 1000 // bindings removed in one round trip
	removePause = 10 * time.Millisecond
	// maxRemovals bounds the bindings that wait to be removed. The walk removes any beyond that.
	maxRemovals = 1 << 20
)

// removals are the bindings of ended sessions. They are removed in batches, and the sessions take
// turns: a session that held very many does not delay the others. A batch that could not be removed
// is tried again.
type removals struct {
	wake chan struct{} // room for one: there is something to remove

	mu    sync.Mutex
	line  []removal // guarded by mu
	count int       // guarded by mu: bindings in line
}

func (q *removals) left() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.line) > 0
}

// removal is the remaining bindings of one session.
type removal struct {
	session routing.SessionID
	bound   []routing.BoundID
}

// add queues the bindings of an ended session. Any goroutine may call it.
func (q *removals) add(session routing.SessionID, bound []routing.BoundID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	bound = bound[:min(len(bound), maxRemovals-q.count)] // the walk will find the rest
	if len(bound) == 0 {
		return
	}
	q.line = append(q.line, removal{session, bound})
	q.count += len(bound)
	notify(q.wake)
}

// take returns a batch of the session whose turn it is.
func (q *removals) take() removal {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.line) == 0 {
		return removal{}
	}
	next := q.line[0]
	q.line[0] = removal{}
	q.line = q.line[1:]
	n := min(len(next.bound), removeBatch)
	if n < len(next.bound) {
		q.line = append(q.line, removal{next.session, next.bound[n:]})
	}
	q.count -= n
	next.bound = next.bound[:n]
	return next
}

// removeSome removes one batch. More reports whether there is more to remove.
func (s *sweep) removeSome(ctx context.Context) (more bool, err error) {
	q := &s.removals
	batch := q.take()
	v, _ := s.registry.losses.snapshot()
	swaps := make([]swap, len(batch.bound))
	for i, b := range batch.bound {
		swaps[i] = swap{bucket: s.registry.keys.bucketOf(v.key, b.ID), id: b.ID, binding: routing.Binding{Session: batch.session, Epoch: b.Epoch}}
	}
	if _, err = s.registry.swap(ctx, swaps); err != nil {
		q.add(batch.session, batch.bound)
	}
	return q.left(), err
}

// maxCondemned bounds the bindings that are condemned. With so many, the walk waits.
const maxCondemned = 1 << 17

// condemned is the bindings that the walk has found and that must be removed, in that order. They
// are not removed at once, because Bind may be about to restore what a dead session's bindings have
// replaced.
type condemned struct {
	line  []sentence
	count int
}

type sentence struct {
	swaps []swap
	found time.Time
}

func (c *condemned) add(swaps []swap) {
	if len(swaps) > 0 {
		c.line = append(c.line, sentence{swaps, time.Now()})
		c.count += len(swaps)
	}
}

func (c *condemned) full() bool { return c.count >= maxCondemned }

// removeCondemned removes the bindings that have waited long enough, until the deadline. The next
// step removes the rest.
func (s *sweep) removeCondemned(ctx context.Context, deadline time.Time) error {
	c := &s.condemned
	wait := 2 * s.registry.config.Timeout // for the bind, and for restoring
	for len(c.line) > 0 && time.Since(c.line[0].found) > wait {
		first := &c.line[0]
		n := min(len(first.swaps), removeBatch)
		if _, err := s.registry.swap(ctx, first.swaps[:n]); err != nil {
			return err
		}
		c.count -= n
		if first.swaps = first.swaps[n:]; len(first.swaps) == 0 {
			c.line = c.line[1:]
		}
		if !time.Now().Before(deadline) {
			break
		}
	}
	return nil
}
