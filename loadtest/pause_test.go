package loadtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"distmsg/loadtest/internal/ledger"
)

// The pause before a new connection grows while no connection lasts. So a node that accepts every
// connection and closes it is not kept busy.
func TestPausesGrow(t *testing.T) {
	w := &wire{t: &traffic{ledger: new(ledger.Ledger)}}
	c := &wireConn{wire: w}
	var longest time.Duration
	for n := range 50 {
		w.t.ledger.Time.Now += int64(time.Second)
		longest = max(longest, (&leg{conn: c, madeAt: w.t.ledger.Time.Now - int64(time.Second)}).pause())
		if c.short != n+1 {
			t.Fatalf("%d of %d short connections were counted", c.short, n+1)
		}
	}
	if longest <= minBackoff || longest > maxBackoff {
		t.Errorf("the longest pause was %v", longest)
	}
	w.t.ledger.Time.Now += int64(lasting)
	if pause := (&leg{conn: c, madeAt: w.t.ledger.Time.Now - int64(lasting)}).pause(); c.short != 0 || pause > minBackoff {
		t.Errorf("after a connection that has lasted: a pause of %v, %d short ones", pause, c.short)
	}
}

// If its context has ended before the call, Run does nothing.
func TestRunEndedContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := Run(ended, Config{Conns: 2}); !errors.Is(err, context.Canceled) || report != nil {
		t.Errorf("%v, %v", report, err)
	}
}
