package engine

import (
	"context"
	"errors"
	"time"

	"distmsg/codec"
)

// Drain makes the node leave (S23): clients hear drain, new sessions are refused, and what is
// under way is finished. It returns nil when nothing is pending any more, or an error that wraps
// ctx's if that ends first, or one that says that the engine has stopped. The engine goes on running until Run's context ends.
//
// This node has no others to send its clients to yet, so sends end draining at once.
func (e *Engine) Drain(ctx context.Context) error {
	select {
	case <-e.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !e.draining.Swap(true) {
		e.drainAt.Store(max(1, e.clock().Milliseconds()))
		e.tellDrain(ctx)
	}
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for !e.quiet(ctx) {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-e.serving.Done(): // what is pending now is cut off, not finished
			return errStopped
		case <-poll.C:
		}
	}
	if e.serving.Err() != nil {
		return errStopped
	}
	return nil
}

var errStopped = errors.New("engine: stopped while draining")

// Draining reports whether Drain was called.
func (e *Engine) Draining() bool { return e.draining.Load() }

// leaving reports whether no new sessions are taken: the engine drains, or stops.
func (e *Engine) leaving() bool { return e.draining.Load() || e.serving.Err() != nil }

// drained reports whether the drain deadline has passed; now is on the engine's clock.
func (e *Engine) drained(now int64) bool {
	at := e.drainAt.Load()
	return at != 0 && now >= at
}

func (e *Engine) tellDrain(ctx context.Context) {
	frame := codec.AppendDrain(nil, &codec.Drain{Spread: uint64(e.cfg.DrainSpread.Milliseconds())})
	_, _ = ask(ctx, e, func(l *loop) bool {
		for _, c := range l.conns {
			if c != nil && c.state == stateOpen {
				c.wroteControl(append(c.out(), frame...))
			}
		}
		return true
	})
}

// quiet reports whether nothing is under way. The first look makes sure that the second sees what was in the mail.
func (e *Engine) quiet(ctx context.Context) bool {
	first := e.idle(ctx)
	return e.idle(ctx) && first
}

// idle reports whether nothing waits for an ack or to be written.
func (e *Engine) idle(ctx context.Context) bool {
	busy, ok := ask(ctx, e, func(l *loop) bool {
		if l.acks.Len() > 0 || l.inbox.bytes.Load() > 0 {
			return true
		}
		for _, c := range l.conns {
			if c != nil && c.queued() > 0 {
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
