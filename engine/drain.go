package engine

import (
	"context"
	"errors"
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
// period is over. By then the other nodes know where those clients are, and have everything that
// this node has sent them. Drain returns an error that wraps ctx's error if ctx ends first, and
// another error if the engine has stopped. If ctx has ended before the call, Drain does nothing.
// The engine keeps running until Run's context ends. It keeps draining, unless an operator ends
// that (see Operator.Undrain), which is not possible while a call of Drain waits.
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
	grace := defaultDrainTime
	if deadline, ok := ctx.Deadline(); ok {
		grace = max(0, time.Until(deadline)*3/4)
	}
	if err := e.drain.await(ctx, grace); err != nil {
		return err
	}
	defer e.drain.forget()
	began := time.Now()
	err := e.drain.wait(ctx)
	e.drain.report(err, time.Since(began))
	return err
}

// wait returns when Drain does. Once nothing is pending here, other nodes may still have messages
// under way to sessions that have left. Behind the first echo, these have arrived and go back.
// Behind the second, the other nodes have them.
func (d *draining) wait(ctx context.Context) error {
	for range 2 {
		if err := d.untilQuiet(ctx); err != nil {
			return err
		}
		if err := d.untilHeard(ctx); err != nil {
			return err
		}
	}
	return nil
}

// untilQuiet waits until nothing is pending at this node.
func (d *draining) untilQuiet(ctx context.Context) error {
	poll := time.NewTicker(tickEvery)
	defer poll.Stop()
	for !d.quiet(ctx) {
		select {
		case <-ctx.Done():
			return contextError(ctx)
		// The engine cuts pending sends off; they do not finish.
		case <-d.eng.serving.Done():
			return errDrainStopped
		case <-poll.C:
		}
	}
	if d.eng.serving.Err() != nil {
		return errDrainStopped
	}
	return nil
}

// untilHeard waits for an echo of every open link.
func (d *draining) untilHeard(ctx context.Context) error {
	all := make(chan struct{})
	var left atomic.Int64
	left.Store(1) // for the question itself
	heard := func() {
		if left.Add(-1) == 0 {
			close(all)
		}
	}
	_, ok := ask(ctx, d.eng, func(l *loop) struct{} {
		for _, h := range l.links.open() {
			left.Add(1)
			l.echoes.ask(h, heard)
		}
		return struct{}{}
	})
	if ok {
		heard()
	}
	select {
	case <-all:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	case <-d.eng.serving.Done():
		return errDrainStopped
	}
}

// draining holds whether the node drains, and since when its clients may not send any more.
type draining struct {
	eng *Engine // static

	begun atomic.Bool
	// Sends end with draining from this time on: 1 + milliseconds on the engine's clock. It is 0
	// while the node does not drain.
	at atomic.Int64

	// turn, of capacity 1, holds a token while a drain begins or is undone.
	turn    chan struct{}
	waiting int // calls of Engine.Drain; owned by who has the turn
}

// defaultDrainTime is the grace period of Drain if its context has no deadline.
const defaultDrainTime = 5 * time.Second

// announceTimeout bounds how long Drain waits for the membership to accept the announcement.
const announceTimeout = time.Second

// take waits for the turn to begin or to undo a drain. It returns an error if ctx ends first.
func (d *draining) take(ctx context.Context) error {
	select {
	case d.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return contextError(ctx)
	}
}

func (d *draining) give() { <-d.turn }

// await begins a drain for a call of Engine.Drain, which waits for its end and then calls forget.
func (d *draining) await(ctx context.Context, grace time.Duration) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	d.waiting++
	d.begin(ctx, grace)
	return nil
}

// forget says that such a call returns.
func (d *draining) forget() {
	d.turn <- struct{}{} // whoever has the turn soon gives it back
	defer d.give()
	d.waiting--
}

// order begins a drain on an operator's order. It returns when the node has asked its clients to
// move.
func (d *draining) order(ctx context.Context) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	if !d.begun.Load() {
		d.eng.cfg.Logger.Info("an operator drains this node")
	}
	d.begin(ctx, max(defaultDrainTime, 2*d.eng.cfg.DrainSpread))
	return nil
}

// errLeaving is the error of Operator.Undrain while somebody waits for the end of the drain.
var errLeaving = errors.New("the node cannot take clients again: its process waits for the end of the drain, and is about to stop")

// undo ends a drain: the node takes clients and their sends again, and announces that. It returns
// an error while a call of Engine.Drain waits. If the node does not drain, it does nothing.
func (d *draining) undo(ctx context.Context) error {
	if err := d.take(ctx); err != nil {
		return err
	}
	defer d.give()
	switch {
	case !d.begun.Load():
		return nil
	case d.waiting > 0:
		return errLeaving
	}
	d.at.Store(0)
	d.begun.Store(false)
	d.announce(ctx)
	d.eng.cfg.Logger.Info("an operator has ended the drain: the node takes clients again")
	return nil
}

// announce announces whether this node drains. If the membership does not answer, the announcer
// tries again.
func (d *draining) announce(ctx context.Context) {
	if d.eng.cluster == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	d.eng.cluster.peers.Announcer.Announce(ctx)
	if ctx.Err() != nil {
		d.eng.cluster.peers.Announcer.Soon()
	}
}

// begin begins a drain, unless the node drains already. The caller has the turn.
func (d *draining) begin(ctx context.Context, grace time.Duration) {
	if d.begun.Swap(true) {
		return
	}
	e := d.eng
	var addrs []string
	spread := e.cfg.DrainSpread
	if e.cluster != nil {
		addrs = e.cluster.peers.Members.Addrs()
	}
	d.announce(ctx) // first, so that other nodes stop sending clients here
	if len(addrs) > 0 {
		spread = min(spread, grace/2)
	} else {
		grace = 0
	}
	s := e.Stats()
	e.cfg.Logger.Info("draining: clients are asked to move to other nodes", "clients", s.Connections, "sessions", s.Sessions,
		"ids", s.IDs, "pending", s.Pending, "nodes", len(addrs), "grace", grace)
	d.at.Store(1 + (e.clock() + grace).Milliseconds())
	d.tell(ctx, &codec.Drain{
		Spread:   uint64(spread.Milliseconds()),
		Deadline: uint64(grace.Milliseconds()),
		Addrs:    addrs,
	})
}

// report logs the end of a drain.
func (d *draining) report(err error, took time.Duration) {
	s := d.eng.Stats()
	args := []any{"took", took.Round(time.Millisecond), "clients", s.Connections, "sessions", s.Sessions, "ids", s.IDs, "pending", s.Pending}
	if err == nil {
		d.eng.cfg.Logger.Info("drained: nothing is under way any more", args...)
		return
	}
	d.eng.cfg.Logger.Warn("the drain has not ended: what is under way is cut off if the node ends now", append(args, "error", err)...)
}

var errDrainStopped = fmt.Errorf("%w before the drain ended", ErrStopped)

// Draining reports whether the node drains.
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

// idle reports whether no message waits for an ack or to be written, no frame has been handled only
// in part, and every client has either moved or used up the grace period.
func (d *draining) idle(ctx context.Context) bool {
	busy, ok := ask(ctx, d.eng, d.busy)
	for _, b := range busy {
		if b {
			return false
		}
	}
	return ok
}

// busy is the opposite of idle, for one loop.
func (d *draining) busy(l *loop) bool {
	if l.park.sends > 0 || l.park.returnedBytes > 0 || l.settle.acks.Len() > 0 || l.inbox.bytes.Load() > 0 {
		return true
	}
	for _, c := range l.conns {
		if c != nil && (c.out.queued() > 0 || c.in.hasLong() || (c.state == stateOpen && c.kind == clientConn && !d.over(l.now))) {
			return true
		}
	}
	return false
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
