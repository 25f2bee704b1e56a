package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// Drain makes the node leave (S23): it is announced as draining, new sessions are refused, and
// clients hear drain, with the other nodes' addresses. Until three quarters of the time that ctx
// gives have passed (5 s without a deadline) they send and receive as before, so that they can move
// without a gap; after that, and at once if there is nowhere to go, sends end draining. Drain
// returns nil when all clients have moved, or the time for that is over, and nothing is pending any
// more; or an error that wraps ctx's if that ends first, or one that says that the engine has
// stopped. With a context that has ended before, it does nothing. The engine goes on running until
// Run's context ends.
func (e *Engine) Drain(ctx context.Context) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	select {
	case <-e.ready:
	case <-e.stopped:
		return errDrainStopped
	case <-ctx.Done():
		return contextError(ctx)
	}
	if e.serving.Err() != nil {
		return errDrainStopped
	}
	if !e.drain.begun.Swap(true) {
		e.drain.begin(ctx)
	}
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for !e.drain.quiet(ctx) {
		select {
		case <-ctx.Done():
			return contextError(ctx)
		case <-e.serving.Done(): // what is pending now is cut off, not finished
			return errDrainStopped
		case <-poll.C:
		}
	}
	if e.serving.Err() != nil {
		return errDrainStopped
	}
	return nil
}

// draining is whether a node leaves, and since when its clients may send no more.
type draining struct {
	eng *Engine // static

	begun atomic.Bool
	at    atomic.Int64 // 1 + the milliseconds on the engine's clock from which sends end draining; 0: not draining
}

// defaultDrainTime is what Drain takes its context to allow if that does not say.
const defaultDrainTime = 5 * time.Second

// announceTimeout is how long a drain waits for the membership to hear of it.
const announceTimeout = time.Second

func (d *draining) begin(ctx context.Context) {
	e := d.eng
	var addrs []string
	var grace time.Duration
	spread := e.cfg.DrainSpread
	if e.cluster != nil {
		addrs = e.cluster.peers.Members.Addrs()
		announced, cancel := context.WithTimeout(ctx, announceTimeout)
		e.cluster.peers.Announcer.Announce(announced) // first, so that nobody is sent here any more
		cancel()
	}
	if len(addrs) > 0 {
		grace = defaultDrainTime
		if deadline, ok := ctx.Deadline(); ok {
			grace = max(0, time.Until(deadline)*3/4)
		}
		spread = min(spread, grace/2)
	}
	d.at.Store(1 + (e.clock() + grace).Milliseconds())
	d.tell(ctx, &codec.Drain{
		Spread:   uint64(spread.Milliseconds()),
		Deadline: uint64(grace.Milliseconds()),
		Addrs:    addrs,
	})
}

var errDrainStopped = fmt.Errorf("%w, and drains no more", ErrStopped)

// Draining reports whether Drain was called.
func (e *Engine) Draining() bool { return e.drain.begun.Load() }

// leaving reports whether no new sessions are taken: the engine drains, or stops.
func (d *draining) leaving() bool { return d.begun.Load() || d.eng.serving.Err() != nil }

// over reports whether the drain deadline has passed; now is on the engine's clock.
func (d *draining) over(now int64) bool {
	at := d.at.Load()
	return at != 0 && now >= at-1
}

func (d *draining) tell(ctx context.Context, f *codec.Drain) {
	frame := codec.AppendDrain(nil, f)
	_, _ = ask(ctx, d.eng, func(l *loop) bool {
		for _, c := range l.conns {
			if c != nil && c.state == stateOpen && c.kind == clientConn {
				c.out.wroteControl(append(c.out.buf(), frame...))
			}
		}
		return true
	})
}

// quiet reports whether nothing is under way. The first look makes sure that the second sees what
// was in the mail.
func (d *draining) quiet(ctx context.Context) bool {
	first := d.idle(ctx)
	return d.idle(ctx) && first
}

// idle reports whether nothing waits for an ack or to be written, and the clients have moved or had
// the time to.
func (d *draining) idle(ctx context.Context) bool {
	busy, ok := ask(ctx, d.eng, func(l *loop) bool {
		if l.park.sends > 0 || l.park.returnedBytes > 0 || l.settle.acks.Len() > 0 || l.inbox.bytes.Load() > 0 {
			return true
		}
		for _, c := range l.conns {
			if c != nil && (c.out.queued() > 0 || (c.state == stateOpen && c.kind == clientConn && !d.over(l.now))) {
				return true
			}
		}
		return false
	})
	for _, b := range busy {
		if b {
			return false
		}
	}
	return ok
}

// ask runs f on every loop and collects the answers; ok is false if ctx or the engine ends first.
func ask[T any](ctx context.Context, e *Engine, f func(*loop) T) (answers []T, ok bool) {
	ch := make(chan T, len(e.loops))
	for _, l := range e.loops {
		l.post(func() { ch <- f(l) })
	}
	for range e.loops {
		select {
		case v := <-ch:
			answers = append(answers, v)
		case <-ctx.Done():
			return answers, false
		case <-e.ctx.Done():
			return answers, false
		}
	}
	return answers, true
}
