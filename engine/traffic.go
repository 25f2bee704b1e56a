package engine

import (
	"slices"
	"strings"

	"distmsg/codec"
)

// Traffic is what passes through connections of one kind.
type Traffic struct {
	BytesIn, BytesOut uint64
	// Queued is how many bytes wait to be written, because the other side does not read them.
	Queued int
}

// LoopStats is what one event loop counts.
type LoopStats struct {
	// Clients, Inside and Links are the connections of clients over the network, of clients in
	// this process, and of other nodes.
	Clients, Inside, Links Traffic
	// Unhandled is how many bytes were read and wait for their connection's turn.
	Unhandled int
	// Mail is how many bytes other loops have left for this one.
	Mail int
}

// LinkStats is what the link to one node counts since it opened.
type LinkStats struct {
	Node string
	Traffic
}

// slowReason says why a client counts as slow.
type slowReason uint8

const (
	slowAnswers slowReason = iota // it does not read its answers
	slowSilent                    // it has read nothing for SlowConsumerTimeout
	slowFull                      // its queue was full for as long
	slowReasons                   // how many there are
)

// slowNames are the keys of Stats.SlowConsumers.
var slowNames = [slowReasons]string{slowAnswers: "answers_unread", slowSilent: "nothing_read", slowFull: "queue_full"}

// closeSlow ends the connection of a client, or of a node, that is slow.
func (c *conn) closeSlow(reason slowReason) {
	patience := c.loop.eng.cfg.SlowConsumerTimeout.String()
	c.loop.stats.slow[reason]++
	why := [slowReasons]string{
		slowAnswers: "the client does not read its answers",
		slowSilent:  "no byte was read for " + patience,
		slowFull:    "the queue was full for " + patience,
	}[reason]
	c.loop.eng.clients.warn("closed a connection that does not read", append(c.who(), "bytes", c.out.queued(), "reason", why)...)
	c.close(codec.FaultSlowConsumer, why)
}

// publishLinks publishes what the links of the loop count. The loop holds pubMu.
func (l *loop) publishLinks() {
	l.pubLinks = l.pubLinks[:0]
	for _, c := range l.links.all {
		if c.state == stateOpen {
			l.pubLinks = append(l.pubLinks, LinkStats{c.link.node, Traffic{c.link.bytesIn, uint64(c.out.written), c.out.queued()}})
		}
	}
}

// addLoop adds what one loop has published, and how much mail waits for it.
func (s *Stats) addLoop(p *loopStats, mail int64) {
	t := &p.traffic
	s.PerLoop = append(s.PerLoop, LoopStats{
		Clients: t[clientConn], Inside: t[insideConn], Links: t[linkConn],
		Unhandled: p.unhandled, Mail: int(mail),
	})
	for i := range t {
		s.BytesIn += t[i].BytesIn
		s.BytesOut += t[i].BytesOut
	}
	for reason, n := range p.slow {
		s.SlowConsumers[slowNames[reason]] += n
	}
}

// sortLinks sorts the links by their nodes. While one link replaces another, a node has two, which
// become one.
func (s *Stats) sortLinks() {
	slices.SortFunc(s.PerLink, func(a, b LinkStats) int { return strings.Compare(a.Node, b.Node) })
	all := s.PerLink[:0]
	for _, k := range s.PerLink {
		if n := len(all); n > 0 && all[n-1].Node == k.Node {
			t := &all[n-1].Traffic
			t.BytesIn, t.BytesOut, t.Queued = t.BytesIn+k.BytesIn, t.BytesOut+k.BytesOut, t.Queued+k.Queued
			continue
		}
		all = append(all, k)
	}
	s.PerLink = all
}
