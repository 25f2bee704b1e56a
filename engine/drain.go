package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// Drain makes the node leave the cluster without a gap in service (S23). The node announces that it
// drains, refuses new sessions, and sends clients a drain frame with the addresses of the other
// nodes.
//
// During a grace period, clients send and receive as before, so that they can move. The grace
// period is three quarters of the time until ctx's deadline, or 5 s if ctx has no deadline. It is
// zero if there is no other node. After it, sends end with draining.
//
// Drain returns nil when nothing is pending any more and either all clients have moved or the grace
// period is over. It returns an error that wraps ctx's error if ctx ends first, and another error
// if the engine has stopped. If ctx has ended before the call, Drain does nothing. The engine keeps
// running until Run's context ends.
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
		// The engine cuts pending sends off; they do not finish.
		case <-e.serving.Done():
			return errDrainStopped
		case <-poll.C:
		}
	}
	if e.serving.Err() != nil {
		return errDrainStopped
	}
	return nil
}

// draining holds whether the node drains, and since when its clients may not send any more.
type draining struct {
	eng *Engine // static

	begun atomic.Bool
	// Sends end with draining from this time on: 1 + milliseconds on the engine's clock. It is 0
	// while the node does not drain.
	at atomic.Int64
}

// defaultDrainTime is the grace period of Drain if its context has no deadline.
const defaultDrainTime = 5 * time.Second

// announceTimeout bounds how long Drain waits for the membership to accept the announcement.
const announceTimeout = time.Second

func (d *draining) begin(ctx context.Context) {
	e := d.eng
	var addrs []string
	var grace time.Duration
	spread := e.cfg.DrainSpread
	if e.cluster != nil {
		addrs = e.cluster.peers.Members.Addrs()
		announced, cancel := context.WithTimeout(ctx, announceTimeout)
		// Announce first, so that other nodes stop sending clients here.
		e.cluster.peers.Announcer.Announce(announced)
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

var errDrainStopped = fmt.Errorf("%w before the drain ended", ErrStopped)

// Draining reports whether Drain was called.
func (e *Engine) Draining() bool { return e.drain.begun.Load() }

// leaving reports whether the engine refuses new sessions because it drains or stops.
func (d *draining) leaving() bool { return d.begun.Load() || d.eng.serving.Err() != nil }

// over reports whether the grace period of the drain has ended. now is on the engine's clock.
func (d *draining) over(now int64) bool {
	at := d.at.Load()
	return at != 0 && now >= at-1
}

// tell queues a drain frame for every client that has a session.
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

// quiet reports whether nothing is pending. The first check lets the loops open their mail, so that
// the second check sees what was in it.
func (d *draining) quiet(ctx context.Context) bool {
	first := d.idle(ctx)
	return d.idle(ctx) && first
}

// idle reports whether no message waits for an ack or to be written, and every client has either
// moved or used up the grace period.
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

// ask runs f on every loop and collects the results. ok is false if ctx or the engine ends first.
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
