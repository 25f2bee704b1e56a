package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// rebalancing moves clients to other nodes on an operator's order. It asks each of them to move
// with a drain frame, a few at a time. The node itself does not drain: a client that stays is
// served as before.
type rebalancing struct {
	eng  *Engine       // static
	wake chan struct{} // static; of capacity 1: there is a new move

	mu     sync.Mutex
	latest *move // guarded by mu; nil: there was none
}

// move is one order. All but asked and done is static.
type move struct {
	conns     []routing.Handle
	over      time.Duration
	startedAt time.Time
	asked     atomic.Int64
	done      atomic.Bool
}

const (
	// moveTick is the time between two batches of clients that are asked to move.
	moveTick = 100 * time.Millisecond
	// moveTime is what the drain frame names as its deadline. Nothing happens at that time.
	moveTime = time.Minute
	// longestMove bounds the time over which clients are asked to move.
	longestMove = time.Hour
)

// info describes the latest move. It returns nil if there was none.
func (r *rebalancing) info() *RebalanceInfo {
	r.mu.Lock()
	m := r.latest
	r.mu.Unlock()
	if m == nil {
		return nil
	}
	return &RebalanceInfo{StartedAt: m.startedAt, Chosen: len(m.conns), Asked: int(m.asked.Load()), Done: m.done.Load()}
}

// begin chooses clients at random and begins to move them. It takes the place of a move that has
// not ended.
func (r *rebalancing) begin(ctx context.Context, share float64, over time.Duration) (chosen int, err error) {
	e := r.eng
	switch {
	case math.IsNaN(share) || share < 0 || share > 1:
		return 0, fmt.Errorf("a share is from 0 to 1, not %v", share)
	case over < 0 || over > longestMove:
		return 0, fmt.Errorf("the time is from 0 to %v, not %v", longestMove, over)
	case e.cluster == nil || len(e.cluster.peers.Members.Addrs()) == 0:
		return 0, errors.New("there is no other node that takes clients")
	}
	conns, err := r.choose(ctx, share)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	if r.latest != nil {
		r.latest.done.Store(true)
	}
	r.latest = &move{conns: conns, over: over, startedAt: time.Now().UTC()}
	r.mu.Unlock()
	wake.Nudge(r.wake)
	e.cfg.Logger.Info("an operator moves clients to other nodes", "clients", len(conns), "over", over)
	return len(conns), nil
}

// choose returns a share of the connections that clients use.
func (r *rebalancing) choose(ctx context.Context, share float64) ([]routing.Handle, error) {
	found := make([][]routing.Handle, len(r.eng.loops))
	s := survey{ctx, r.eng, func(c *conn) {
		if c.kind == clientConn && c.standing == inSession {
			found[c.loop.idx] = append(found[c.loop.idx], c.handle())
		}
	}}
	if !s.everywhere() {
		return nil, unanswered(ctx)
	}
	var all []routing.Handle
	for _, mine := range found {
		all = append(all, mine...)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:int(math.Round(share*float64(len(all))))], nil
}

// run carries moves out until ctx ends.
func (r *rebalancing) run(ctx context.Context) {
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		r.mu.Lock()
		m := r.latest
		r.mu.Unlock()
		began := time.Now()
		for next := 0; !m.done.Load(); {
			end := len(m.conns)
			if gone := time.Since(began); gone < m.over {
				end = int(float64(len(m.conns)) * float64(gone) / float64(m.over))
			}
			r.ask(ctx, m, m.conns[next:end])
			if next = end; next == len(m.conns) {
				m.done.Store(true)
				break
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}
}

// ask asks some clients to move. If there is no other node any more, or this one drains by now, it
// ends the move.
func (r *rebalancing) ask(ctx context.Context, m *move, conns []routing.Handle) {
	if len(conns) == 0 {
		return
	}
	addrs := r.eng.cluster.peers.Members.Addrs()
	if len(addrs) == 0 || r.eng.drain.begun.Load() {
		m.done.Store(true)
		return
	}
	frame := codec.AppendDrain(nil, &codec.Drain{
		Spread: uint64(moveTick.Milliseconds()), Deadline: uint64(moveTime.Milliseconds()), Addrs: addrs,
	})
	s := survey{ctx, r.eng, func(c *conn) {
		c.out.wroteControl(append(c.out.buf(), frame...))
		m.asked.Add(1)
	}}
	s.some(conns)
}
