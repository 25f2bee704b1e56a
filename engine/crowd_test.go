package engine

import (
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// crowdPayload is the payload of all messages in these tests. They have one size, because a full
// queue may still have room for a smaller one.
var crowdPayload = strings.Repeat("x", 1<<14)

func crowdConfig(c *Config) {
	c.MaxPayload, c.MaxPending, c.DefaultTTL, c.SlowConsumerTimeout = len(crowdPayload), 16*len(crowdPayload), time.Minute, time.Hour
	c.Credit, c.MaxIDs, c.LoopGap = 1<<30, 64, time.Minute
}

// fill sends to an ID until the node refuses messages.
func (c *client) fill(n *node, from, to string) {
	c.t.Helper()
	for round := 0; n.counters().Outcomes[codec.CodeOverflow] < 16; round++ {
		if round > 100 {
			c.t.Fatal("no message was refused")
		}
		for range 64 {
			c.post(from, to, crowdPayload, codec.FlagReport)
		}
		n.settle()
		c.arrived()
	}
}

// A sender that sends a client more than it reads leaves room in its queue for others.
func TestQueueIsShared(t *testing.T) {
	var cfg Config
	crowdConfig(&cfg)
	acrossLoops(t, cfg, func(t *testing.T, n *node, greedy, to *client) {
		to.shrink()
		modest := n.joinOn(0, "modest")
		greedy.fill(n, "from", "to")
		seq := modest.send("modest", "to", crowdPayload)
		n.settle()
		d := to.delivered()
		for string(d.From) != "modest" {
			d = to.delivered()
		}
		to.ack(d, "")
		modest.hears(seq, codec.CodeAcked)
		if n.counters().QueueOverShare == 0 {
			t.Error("nobody counts what was refused")
		}
	})
}

// A client that sends much to another node leaves room on the link for others.
func TestLinkQueueIsShared(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroupWith(t, 2, loops, crowdConfig)
		here, there := g.nodes[0], g.nodes[1]
		greedy, modest := here.join("from"), here.join("modest")
		far, other := there.join("far"), there.join("other")
		greedy.exchange("from", far, "far")
		modest.exchange("modest", other, "other")
		for _, n := range g.nodes {
			n.shrinkLinks()
		}
		release := there.hold()
		greedy.fill(here, "from", "far")
		seq := modest.send("modest", "other", crowdPayload)
		here.settle()
		release()
		other.ack(other.gets("modest", "other", crowdPayload), "")
		modest.hears(seq, codec.CodeAcked)
	})
}

// hold stops the node's loops until release is called.
func (n *node) hold() (release func()) {
	end := make(chan struct{})
	for _, l := range n.loops {
		l.post(func() { <-end })
	}
	return func() { close(end) }
}
