package loadtest

import (
	"context"
	"time"

	"distmsg/loadtest/internal/drive"
)

// churnEvery is how often the run looks what has to change.
const churnEvery = 20 * time.Millisecond

// churn changes connections at the rates that the configuration asks for, until quit is closed.
func (r *run) churn(quit <-chan struct{}) {
	d := r.d.(drive.Churner) // validated: the kind of driver can
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
		r.d.Do(func() {
			r.t.Tick()
			for ; c.Binds > 0 && binds < c.Binds*elapsed; binds += float64(r.t.PerConn) {
				d.Rebind()
			}
			for ; moves < c.Moves*elapsed; moves++ {
				d.Move()
			}
			for ; cuts < c.Reconnects*elapsed; cuts++ {
				d.Cut()
			}
		})
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
		r.d.Do(func() { down = r.t.DownConns() })
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
