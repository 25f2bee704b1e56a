package engine

import (
	"context"

	"distmsg/routing"
)

// surveyStep is how many connections a loop looks at for a question before it turns to other work.
const surveyStep = 512

// survey looks at open connections for a question, in steps between which a loop does its other
// work. It calls visit on the connection's loop. visit must touch only what belongs to that loop.
type survey struct {
	ctx   context.Context
	eng   *Engine
	visit func(*conn)
}

// everywhere visits all connections. It returns false if ctx or the engine ends first. Then a loop
// may be calling visit.
func (s *survey) everywhere() bool {
	return onLoops(s.ctx, s.eng, func(l *loop, done func()) { s.from(l, 0, done) })
}

func (s *survey) from(l *loop, slot int, done func()) {
	if s.ctx.Err() != nil {
		return
	}
	end := min(slot+surveyStep, len(l.conns))
	for ; slot < end; slot++ {
		if c := l.conns[slot]; c != nil && c.state == stateOpen {
			s.visit(c)
		}
	}
	if slot >= len(l.conns) {
		done()
		return
	}
	l.post(func() { s.from(l, slot, done) })
}

// some visits some connections. It returns what everywhere does.
func (s *survey) some(all []routing.Handle) bool {
	mine := make([][]routing.Handle, len(s.eng.loops))
	for _, h := range all {
		mine[h.Loop] = append(mine[h.Loop], h)
	}
	return onLoops(s.ctx, s.eng, func(l *loop, done func()) { s.next(l, mine[l.idx], done) })
}

func (s *survey) next(l *loop, all []routing.Handle, done func()) {
	if s.ctx.Err() != nil {
		return
	}
	n := min(surveyStep, len(all))
	for _, h := range all[:n] {
		if c := l.conn(h); c != nil && c.state == stateOpen {
			s.visit(c)
		}
	}
	if n == len(all) {
		done()
		return
	}
	l.post(func() { s.next(l, all[n:], done) })
}

// onLoops calls f on each loop, and waits until each has called done. It returns false if ctx or
// the engine ends first.
func onLoops(ctx context.Context, e *Engine, f func(l *loop, done func())) bool {
	ch := make(chan struct{}, len(e.loops))
	for _, l := range e.loops {
		l.post(func() { f(l, func() { ch <- struct{}{} }) })
	}
	for range e.loops {
		select {
		case <-ch:
		case <-ctx.Done():
			return false
		case <-e.ctx.Done():
			return false
		}
	}
	return true
}
