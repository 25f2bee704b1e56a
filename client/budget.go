package client

import (
	"context"
	"sync"
)

// budget bounds how many messages and bytes are in flight. A caller that needs more than is free
// waits, first come, first served. It serves as the session's window, where an outcome releases
// what its send took, and as a connection's credit, where the node raises the limit.
type budget struct {
	mu       sync.Mutex
	maxMsgs  int
	maxBytes int
	msgs     int
	bytes    int
	// The waiting callers, in order. A later caller never overtakes them.
	first, last *waiter
	spare       *waiter // waiters for reuse, linked by next
	err         error   // set by close
	idle        chan struct{}
}

type waiter struct {
	msgs       int
	bytes      int
	ready      chan error // capacity 1; nil: granted
	next, prev *waiter
	listed     bool
}

// try takes msgs messages of n bytes in all if there is room and nobody waits.
func (b *budget) try(msgs, n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err == nil && b.first == nil && b.take(msgs, n)
}

// exceed takes msgs messages although there may be no room, as long as no more than extra are held
// beyond the limit.
func (b *budget) exceed(msgs, extra int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil || b.msgs+msgs > b.maxMsgs+extra {
		return false
	}
	b.msgs += msgs
	return true
}

// acquire waits until it can take msgs messages of n bytes in all. It returns the context's error,
// or the one given to close.
func (b *budget) acquire(ctx context.Context, msgs, n int) error {
	b.mu.Lock()
	if b.err != nil || b.first == nil && b.take(msgs, n) {
		defer b.mu.Unlock()
		return b.err
	}
	w := b.enlist(msgs, n)
	b.mu.Unlock()

	var err error
	select {
	case err = <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	if w.listed {
		b.unlist(w)
		b.grant() // perhaps only w blocked the next one
	} else if len(w.ready) > 0 { // decided while the context ended: the decision counts
		err = <-w.ready
	}
	w.next, b.spare = b.spare, w
	return err
}

// acquireInTime is acquire for callers that cannot use a grant that arrives at the moment when ctx
// ends.
func (b *budget) acquireInTime(ctx context.Context, msgs, n int) error {
	err := b.acquire(ctx, msgs, n)
	if err == nil {
		if err = over(ctx); err != nil {
			b.release(msgs, n)
		}
	}
	return err
}

// grow takes n more bytes for a message that already holds some, if there is room and nobody waits.
// A negative n releases bytes.
func (b *budget) grow(n int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > 0 && (b.first != nil || n > b.maxBytes-b.bytes) {
		return false
	}
	b.bytes += n
	b.grant()
	return true
}

// release releases msgs messages of n bytes in total.
func (b *budget) release(msgs, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.msgs -= msgs
	b.bytes -= n
	b.grant()
	if b.idle != nil && b.msgs == 0 && b.err != nil {
		close(b.idle)
		b.idle = nil
	}
}

// setLimits replaces the limits. What is held stays held.
func (b *budget) setLimits(msgs, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.maxMsgs, b.maxBytes = msgs, bytes
	b.grant()
}

// close makes all current and later callers fail with err. The channel is closed when everything
// held has been released.
func (b *budget) close(err error) <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	for b.first != nil {
		w := b.first
		b.unlist(w)
		w.ready <- err
	}
	idle := make(chan struct{})
	if b.msgs == 0 {
		close(idle)
	} else {
		b.idle = idle
	}
	return idle
}

func (b *budget) used() (msgs, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.msgs, b.bytes
}

// The caller of the methods below must hold b.mu.

// take lets a request that exceeds the limits pass if nothing else is held.
func (b *budget) take(msgs, n int) bool {
	if min(msgs, b.maxMsgs) > b.maxMsgs-b.msgs || n > b.maxBytes-b.bytes {
		return false
	}
	b.msgs += msgs
	b.bytes += n
	return true
}

func (b *budget) grant() {
	for b.first != nil && b.take(b.first.msgs, b.first.bytes) {
		w := b.first
		b.unlist(w)
		w.ready <- nil
	}
}

func (b *budget) enlist(msgs, n int) *waiter {
	w := b.spare
	if w == nil {
		w = &waiter{ready: make(chan error, 1)}
	} else {
		b.spare = w.next
	}
	w.msgs, w.bytes, w.next, w.prev, w.listed = msgs, n, nil, b.last, true
	if b.last == nil {
		b.first = w
	} else {
		b.last.next = w
	}
	b.last = w
	return w
}

func (b *budget) unlist(w *waiter) {
	if w.prev == nil {
		b.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		b.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev, w.listed = nil, nil, false
}
