package engine

import (
	"strconv"
	"testing"
	"time"

	"distmsg/codec"
)

// writesSeen is what a loop has seen of its own writes. The loop owns it until over is closed.
type writesSeen struct {
	loop             *loop
	writes, wakeups  uint64 // write calls and iterations until the last look
	most, iterations uint64 // the most write calls in an iteration, and how many iterations wrote
	end              bool   // the next look is the last one
	over             chan struct{}
}

// look counts the write calls since the last look. It runs in each iteration, unless the mail does
// not fit into one.
func (s *writesSeen) look() {
	now := &s.loop.stats
	if writes, wakeups := now.writes-s.writes, now.wakeups-s.wakeups; writes > 0 {
		s.iterations += wakeups
		s.most = max(s.most, (writes+wakeups-1)/wakeups)
	}
	s.writes, s.wakeups = now.writes, now.wakeups
	if s.end {
		close(s.over)
		return
	}
	s.loop.post(s.look)
}

// holdAll makes the loops stand still until arrived is closed. From then on they look at their
// writes.
func holdAll(n *node, arrived <-chan struct{}) []*writesSeen {
	all := make([]*writesSeen, len(n.loops))
	held := make(chan struct{})
	for i, l := range n.loops {
		s := &writesSeen{loop: l, over: make(chan struct{})}
		all[i] = s
		l.post(func() {
			held <- struct{}{}
			<-arrived
			s.writes, s.wakeups = l.stats.writes, l.stats.wakeups
			l.post(s.look)
		})
		<-held
	}
	return all
}

// In one iteration a loop writes to a connection once, however many messages there are for it. Only
// if input waits for its turn, the loop also writes before the turns begin. The loops stand still
// until all input is there, so the result depends neither on the scheduling of the node and its
// clients nor on the rest of the machine.
func TestOneWriteForEachDestination(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		const clients, each = 200, 50
		n := start(t, Config{Loops: loops, LoopGap: time.Hour})
		all := make([]*client, clients)
		onLoop := make([]uint64, loops)
		for i := range all {
			all[i] = n.join(strconv.Itoa(i))
			onLoop[all[i].loop()]++
		}
		arrived := make(chan struct{})
		seen := holdAll(n, arrived)
		for i, c := range all {
			var input []byte
			for k := range each { // each message has another receiver than the one before it
				to := strconv.Itoa((i + 1 + k*7) % clients)
				input = append(input, sendFrame(uint64(k), strconv.Itoa(i), to, "a message", codec.FlagAck, 0)...)
			}
			c.write(input)
		}
		close(arrived)
		outcomes := make([]int, clients)
		for i, c := range all {
			var acks []byte
			for delivered := 0; delivered < each; {
				f := c.next()
				if f.kind == codec.KindOutcome {
					outcomes[i]++
					continue
				}
				var d codec.Deliver
				c.decoded(codec.DecodeDeliver(f.body, &d))
				acks = codec.AppendAck(acks, &codec.Ack{Token: d.Token, Code: codec.CodeAcked})
				delivered++
			}
			c.write(acks)
		}
		for i, c := range all {
			for ; outcomes[i] < each; outcomes[i]++ {
				c.expect(codec.KindOutcome)
			}
		}
		for i, s := range seen {
			s.loop.post(func() { s.end = true })
			<-s.over
			t.Logf("loop %d with %d connections: at most %d write calls in one of %d iterations", i, onLoop[i], s.most, s.iterations)
			if s.most > 2*onLoop[i] {
				t.Errorf("loop %d wrote %d times in one iteration, to %d connections", i, s.most, onLoop[i])
			}
		}
	})
}
