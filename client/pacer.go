package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// A node refuses what is over a limit of this client, and says when to come back. Then the SDK
// sends more slowly by itself. It does not know the limit, and other sessions may use the same one.
// So it looks for a rate at which the node refuses little, as TCP does: it lowers the rate when the
// node refuses something, and raises it slowly while it is in use.

const (
	// paceStep is how long a rate stays before it is raised, and how long refusals of what was sent
	// before do not lower it again. A low rate stays for paceSome messages.
	paceStep = 50 * time.Millisecond
	paceSome = 8
	// paceCut and paceRaise are the factors by which the rate changes.
	paceCut, paceRaise = 0.7, 1.05
	// paceLeast is the lowest rate, in a second.
	paceLeast = 0.1
	// paceFor is how long after the latest refusal the pacer stops to slow anything down.
	paceFor = 30 * time.Second
	// paceAhead is for how long ahead of its time a message may go. Timers are not more precise.
	paceAhead = 2 * time.Millisecond
)

// pacer spaces what goes over one connection. Until the node refuses something, it costs one atomic
// load. Times are on the session's clock. Any goroutine may use it.
type pacer struct {
	on atomic.Bool

	mu       sync.Mutex
	rate     float64       // guarded by mu; in a second
	climbing bool          // guarded by mu; rate doubles until the node refuses again
	next     time.Duration // guarded by mu; when the next one may go
	cut      time.Duration // guarded by mu; when rate was lowered
	raised   time.Duration // guarded by mu; when it was last raised, or need not be
	sent     int           // guarded by mu; since cut
}

// over records that the node has refused something, and wants no more for wait.
func (p *pacer) over(wait, now time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = max(p.next, now+wait)
	switch {
	case !p.on.Load():
		p.rate, p.climbing = 1/wait.Seconds(), true
		p.on.Store(true)
	case now-p.cut < p.step()/2+wait:
		return
	default:
		if p.sent > paceSome { // the rate may never have been used up
			p.rate = min(p.rate, float64(p.sent)/(now-p.cut).Seconds())
		}
		p.rate, p.climbing = paceCut*p.rate, false
	}
	p.rate = max(p.rate, paceLeast)
	p.cut, p.raised, p.sent = now, now, 0
}

// reserve takes the place of n messages, and returns how long they must wait.
func (p *pacer) reserve(n int, now time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.on.Load() || now-p.cut > paceFor && now > p.next {
		p.on.Store(false)
		return 0
	}
	p.raise(now)
	at := max(p.next, now)
	p.next = at + time.Duration(float64(n)/p.rate*float64(time.Second))
	p.sent += n
	if at-now < paceAhead {
		return 0
	}
	return at - now
}

// step returns how long the rate stays. The caller holds mu.
func (p *pacer) step() time.Duration {
	return max(paceStep, time.Duration(paceSome/p.rate*float64(time.Second)))
}

// raise raises the rate for the time since it was last raised, if messages wait for their time. The
// caller holds mu.
func (p *pacer) raise(now time.Duration) {
	if p.next < now { // the rate is not used up
		p.raised = max(p.raised, now-p.step())
		return
	}
	for ; now-p.raised >= p.step(); p.raised += p.step() {
		if p.climbing {
			p.rate *= 2
		} else {
			p.rate *= paceRaise
		}
	}
}

// wait waits until n messages may go. It returns ctx's error if ctx ends first, and earlier if the
// connection ends.
func (p *pacer) wait(ctx context.Context, c *conn, n int) error {
	if !p.on.Load() {
		return nil
	}
	delay := p.reserve(n, time.Since(c.s.start))
	if delay == 0 {
		return nil
	}
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.dead:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// heard looks for a limit in the reason of an overflow.
func (p *pacer) heard(c *conn, reason string) {
	if _, millis := codec.ParseLimitReason(reason); millis > 0 {
		p.over(time.Duration(millis)*time.Millisecond, time.Since(c.s.start))
	}
}

// Limit returns the limit of this client that a node has applied, and for how long. The name is
// empty if there is none: then the error has another cause. The SDK slows down by itself.
func (e *Error) Limit() (name string, wait time.Duration) {
	if e.Code != codec.CodeOverflow {
		return "", 0
	}
	name, millis := codec.ParseLimitReason(e.Reason)
	return name, time.Duration(millis) * time.Millisecond
}
