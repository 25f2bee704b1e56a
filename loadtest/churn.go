package loadtest

import (
	"context"
	"math/rand/v2"
	"time"
)

// churnEvery is how often the run looks what has to change.
const churnEvery = 20 * time.Millisecond

// churn changes connections at the rates that the configuration asks for, until quit is closed.
func (r *run) churn(quit <-chan struct{}) {
	w := r.d.(*wire) // validated: the driver is relay
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	begin := time.Now()
	var binds, moves, cuts float64 // how many there were
	for {
		select {
		case <-quit:
			return
		case <-tick.C:
		}
		elapsed := time.Since(begin).Seconds()
		c := &r.cfg.Churn
		w.do(func() {
			w.t.tick()
			for ; c.Binds > 0 && binds < c.Binds*elapsed; binds += float64(w.t.per) {
				w.rebind(w.any())
			}
			for ; moves < c.Moves*elapsed; moves++ {
				w.move(w.any())
			}
			for ; cuts < c.Reconnects*elapsed; cuts++ {
				w.cut(w.any())
			}
		})
	}
}

// any returns a random connection.
func (w *wire) any() *wireConn { return &w.conns[rand.IntN(len(w.conns))] }

// rebind binds all IDs of a connection again, unless it is down or binds already.
func (w *wire) rebind(c *wireConn) {
	if c.cur == nil {
		return
	}
	if r, ok := c.cur.proto.(*relay); ok && !r.binding {
		r.begin()
	}
}

// move moves a connection to another node, or else to another connection at its node. It does
// nothing if the connection is down or moves already.
func (w *wire) move(c *wireConn) {
	switch {
	case c.cur == nil:
	case len(w.addresses.after(c.addr, nil, false)) > 0:
		w.attach(c, nil, true, 0)
	default:
		w.attach(c, []string{c.addr}, false, 0)
	}
}

// cut closes a connection, as a network that breaks does. It does nothing if the connection is down
// or moves.
func (w *wire) cut(c *wireConn) {
	if c.cur != nil && c.next == nil && !c.dialing {
		c.cur.gc.Close()
	}
}

// rest waits until all connections are up again after the churn, but not longer than the grace.
func (r *run) rest(ctx context.Context) {
	tick := time.NewTicker(churnEvery)
	defer tick.Stop()
	patience := time.NewTimer(r.cfg.Grace)
	defer patience.Stop()
	for {
		down := 0
		r.d.do(func() { down = r.t.downConns() })
		if down == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}
