package engine

import (
	"testing"
	"time"

	"distmsg/codec"
)

// parked has sends of a connection wait for the registry's word on an ID, which nobody asks for.
func (l *loop) parkedFor(t *testing.T, c *client, id string, ttl uint32, n int) {
	conn := l.conn(c.n.table.Session(c.sessionID()).Handles()[0])
	for range n {
		c.seq++
		var m codec.Send
		body := sendFrame(c.seq, "from", id, "x", codec.FlagAck, ttl)[codec.PrefixLen:]
		c.decoded(codec.DecodeSend(body, &m))
		w, v := conn.sender.retain(body, &m)
		if v.code != codec.CodeOK {
			t.Fatalf("it is not parked: %v", v)
		}
		l.stats.sends++
		conn.sender.inFlight.Use()
		l.park.line(id, w)
	}
}

// What waits for one answer of the registry goes on a step at a time. What comes in between does
// not pass it, and is asked for anew: the answer is older.
func TestParkedGoOnInSteps(t *testing.T) {
	const many = 2*resolvedStep + 1
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	from := n.join("from")
	first := from.seq + 1
	var left []*resolution
	n.on(0, func(l *loop) {
		l.parkedFor(t, from, "x", 60_000, many)
		left = l.park.resumeSome([]*resolution{{id: "x", code: codec.CodeRegistryUnavailable}, {id: "y", code: codec.CodeNoRoute}})
		if ended := l.stats.outcomes[codec.CodeRegistryUnavailable]; len(left) != 2 || ended != resolvedStep {
			t.Errorf("%d have ended in a step of %d, %d words are left", ended, resolvedStep, len(left))
		}
	})
	last := from.send("from", "x", "behind them")
	n.eventually("it waits", func() bool { return n.counters().Parked == many-resolvedStep+1 })
	n.on(0, func(l *loop) { l.park.resolved(left) })
	for seq := first; seq < last; seq++ {
		from.hears(seq, codec.CodeRegistryUnavailable)
	}
	from.hears(last, codec.CodeNoRoute)
	from.silent()
}

// To end what is past its deadline costs nothing for the rest of what waits: it is not looked at.
func TestExpiryOfOneOfManyParked(t *testing.T) {
	const many = 3000
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	from := n.join("from")
	first := from.seq + 1
	n.on(0, func(l *loop) {
		l.parkedFor(t, from, "x", 60_000, many)
		l.parkedFor(t, from, "x", 50_000, 1)
		now := l.now
		defer func() { l.now = now }()
		l.now += 50_000
		l.pace.part(time.Hour)
		l.pace.stamp()
		l.park.expire()
		if l.pace.work != 1 || l.park.sends != many {
			t.Errorf("%d units of work, %d wait; want 1 and %d", l.pace.work, l.park.sends, many)
		}
	})
	from.hears(first+many, codec.CodeExpired)
	n.on(0, func(l *loop) { l.park.resolved([]*resolution{{id: "x", code: codec.CodeNoRoute}}) })
	for seq := first; seq < first+many; seq++ {
		from.hears(seq, codec.CodeNoRoute)
	}
	from.silent()
}

// More than the iteration has room for ends in the next ones.
func TestExpiryOfManyParked(t *testing.T) {
	const many = 4 * stampWork
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	from := n.join("from")
	first := from.seq + 1
	n.on(0, func(l *loop) {
		l.parkedFor(t, from, "x", 60_000, many)
		now := l.now
		defer func() { l.now = now }()
		l.now += 60_000
		l.pace.part(-time.Hour)
		if more := l.park.expire(); !more || l.park.sends == 0 || l.park.sends < many-stampWork {
			t.Errorf("%d of %d wait when the share is over after %d units", l.park.sends, many, stampWork)
		}
		l.pace.part(time.Hour)
		if more := l.park.expire(); more || l.park.sends != 0 {
			t.Errorf("%d wait past their deadlines", l.park.sends)
		}
	})
	for seq := first; seq < first+many; seq++ {
		from.hears(seq, codec.CodeExpired)
	}
	from.silent()
}
