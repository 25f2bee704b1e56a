package engine

import (
	"bytes"
	"context"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/limit"
)

// hearsOfPending sends until a message is refused because of what waits for the receiver's
// identity.
func (c *client) hearsOfPending(from, to string) {
	c.t.Helper()
	for range 500 {
		for range 16 {
			c.post(from, to, crowdPayload, codec.FlagAck)
		}
		c.n.settle()
		for _, f := range c.arrived() {
			var o codec.Outcome
			if f.kind == codec.KindOutcome && codec.DecodeOutcome(f.body, &o) == nil && bytes.Equal(o.Reason, reasonPending) {
				return
			}
		}
	}
	c.t.Fatal("no message was refused")
}

// canPend reports whether n shared bytes may wait for the identity of c.
func (c *client) canPend(n int) (ok bool) {
	h := c.n.table.Session(c.sessionID()).Handles()[0]
	c.n.on(int(h.Loop), func(l *loop) {
		account := l.conn(h).quota.account
		var a limit.Allowance
		ok = a.Reserve(limit.FreeBytes+n, account.Terms().PendingBytes, &account.PendingBytes)
		a.Close(&account.PendingBytes)
	})
	return ok
}

// All connections of an identity share the bytes that wait for them, on whatever loops they are.
// Each has a part of its own, and what was read is free again.
func TestPendingOfAnIdentity(t *testing.T) {
	const pending = 256 << 10
	cfg := Config{MaxPayload: len(crowdPayload), MaxPending: 1 << 20, MaxIDs: 16, SlowConsumerTimeout: time.Hour, LoopGap: time.Minute}
	cfg.Hooks.Authenticate = func(_ context.Context, login Login) (Identity, error) {
		if len(login.Credentials) > 0 {
			return Identity{Name: string(login.Credentials)}, nil
		}
		return Identity{Name: "shop", Limits: Limits{PendingBytes: pending}}, nil
	}
	acrossLoops(t, cfg, func(t *testing.T, n *node, from, to *client) {
		second := n.joinOn(1, "second")
		to.shrink()
		second.shrink()
		from.hearsOfPending("from", "to")
		if held := n.counters().MemoryHeld; held < pending || held > queueCost*(pending+2*limit.FreeBytes) {
			t.Errorf("%d bytes are held", held)
		}
		if n.counted("shop", "identity-pending-bytes") == 0 {
			t.Error("nobody counts what was refused")
		}
		seq := from.send("from", "second", "x")
		second.ack(second.gets("from", "second", "x"), "")
		from.hears(seq, codec.CodeAcked)
		other := n.as("other", "other")
		for range 24 { // more than the limit of shop
			from.post("from", "other", crowdPayload, 0)
		}
		for range 24 {
			other.gets("from", "other", crowdPayload)
		}
		n.settle()
		to.arrived()
		n.eventually("what was reserved is free", func() bool { return second.canPend(pending) })
		from.hearsOfPending("from", "second")
		second.nc.Close()
		n.eventually("what a closed connection had reserved is free", func() bool { return to.canPend(pending) })
	})
}

// A message of the largest size fits even if the limit is smaller.
func TestPendingOfOneMessage(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{PendingBytes: 1})}})
	from, to := n.as("a", "from"), n.as("b", "to")
	payload := string(make([]byte, n.cfg.MaxPayload))
	for range 3 {
		seq := from.send("from", "to", payload)
		to.ack(to.gets("from", "to", payload), "")
		from.hears(seq, codec.CodeAcked)
	}
}
