package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
)

// shrinkLinks makes the kernel's buffers of a node's links small, so that what waits on them waits
// in the node.
func (n *node) shrinkLinks() {
	n.t.Helper()
	ask(context.Background(), n.Engine, func(l *loop) bool {
		for _, c := range l.links.all {
			gc := c.wire.(*socket).gc
			if err := errors.Join(gc.SetReadBuffer(64<<10), gc.SetWriteBuffer(64<<10)); err != nil {
				n.t.Error(err)
			}
		}
		return true
	})
}

// A client that answers again and again, or gives back again and again, neither closes the link to
// the node where the message came from nor takes it from others.
func TestRelayedAreShared(t *testing.T) {
	const payload, times = 1 << 14, 256
	for name, frame := range map[string]func(codec.Deliver) []byte{
		"answers": func(d codec.Deliver) []byte {
			return codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked, Reply: make([]byte, payload)})
		},
		"given back": func(d codec.Deliver) []byte {
			d.Payload = make([]byte, payload)
			return codec.AppendNotHere(nil, &d)
		},
		"given back, many": func(d codec.Deliver) []byte {
			many := codec.DeliverMany{From: d.From, TTL: d.TTL, Flags: d.Flags, Payload: make([]byte, payload)}
			return codec.AppendDeliverMany(nil, codec.KindNotHereMany, &many, []codec.Recipient{{Token: d.Token, To: d.To, Epoch: d.Epoch}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			eachLoops(t, func(t *testing.T, loops int) {
				g := startGroupWith(t, 2, loops, func(c *Config) {
					c.MaxPayload, c.MaxPending, c.MaxInFlight, c.DefaultTTL = payload, 2*payload, 64, time.Minute
					c.MaxIDs, c.LoopGap = 64, time.Minute
				})
				from, greedy, modest := g.nodes[0].join("from"), g.nodes[1].join("greedy"), g.nodes[1].join("modest")
				greedys := from.send("from", "greedy", "x")
				// What becomes of it may be heard at any time.
				ends := func(seq uint64) codec.Outcome {
					o := from.outcome()
					for o.Seq == greedys {
						o = from.outcome()
					}
					if o.Seq != seq {
						t.Fatalf("the outcome of %d, want that of %d", o.Seq, seq)
					}
					return o
				}
				d := greedy.gets("from", "greedy", "x")
				seq := from.send("from", "modest", "x")
				other := modest.gets("from", "modest", "x")

				all := strings.Repeat(string(frame(d)), times)
				for _, n := range g.nodes {
					n.shrinkLinks()
				}
				goOn := make(chan struct{})
				for _, l := range g.nodes[0].loops { // nothing is read from the link meanwhile
					l.post(func() { <-goOn })
				}
				greedy.write([]byte(all))
				greedy.arrived()
				modest.ack(other, "modest")
				modest.alive()
				close(goOn)
				if o := ends(seq); o.Code != codec.CodeAcked || string(o.Reply) != "modest" {
					t.Errorf("the other client's answer ended %v: %s", o.Code, o.Reason)
				}
				s := g.nodes[1].counters()
				if s.LinkOverShare == 0 || s.Faults[codec.FaultSlowConsumer] != 0 || s.Links != 1 {
					t.Errorf("%d did not fit, %d were closed as slow, %d links", s.LinkOverShare, s.Faults[codec.FaultSlowConsumer], s.Links)
				}
				seq = from.send("from", "modest", "y")
				modest.ack(modest.gets("from", "modest", "y"), "")
				if o := ends(seq); o.Code != codec.CodeAcked {
					t.Errorf("a later message ended %v: %s", o.Code, o.Reason)
				}
			})
		})
	}
}
