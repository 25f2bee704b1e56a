package engine

import (
	"cmp"
	"distmsg/codec"
	"slices"
)

// tallyFlush is the size at which outcomes of multicasts are sent before all are there.
const tallyFlush = 32 << 10

// maxTallies bounds the multicasts of one connection whose outcomes are sent together. The outcomes
// of further multicasts are sent one by one.
const maxTallies = 1 << 10

// tally counts the outcomes of one multicast that are still to come.
type tally struct {
	first   uint64 // its numbers begin here
	n, left int
}

// newTally begins to count the outcomes of a multicast of n sends. It returns false if they are to
// be sent one by one.
func (mc *multicasts) newTally(first uint64, n int) bool {
	if !mc.conn.receiver.takesMany || len(mc.tallies) == maxTallies || first+uint64(n) < first {
		return false
	}
	i := mc.tallyAt(first)
	if i > 0 && mc.tallies[i-1].first+uint64(mc.tallies[i-1].n) > first || i < len(mc.tallies) && mc.tallies[i].first < first+uint64(n) {
		return false // numbers that are in use
	}
	mc.tallies = slices.Insert(mc.tallies, i, tally{first, n, n})
	return true
}

// tallyAt returns the index of the first tally whose numbers begin at seq or after it.
func (mc *multicasts) tallyAt(seq uint64) int {
	i, _ := slices.BinarySearchFunc(mc.tallies, seq, func(g tally, seq uint64) int { return cmp.Compare(g.first, seq) })
	return i
}

// countOutcome notes that one outcome fewer is to come. It reports whether it was the last.
func (mc *multicasts) countOutcome(seq uint64) (last bool) {
	i := mc.tallyAt(seq)
	if i == len(mc.tallies) || mc.tallies[i].first > seq {
		i--
	}
	g := &mc.tallies[i]
	if g.left--; g.left > 0 {
		return false
	}
	mc.tallies = slices.Delete(mc.tallies, i, i+1)
	return true
}

// answer notifies the client how a send ended, together with other sends of its multicast.
func (mc *multicasts) answer(seq uint64, code codec.Code, reason, reply []byte) {
	c := mc.conn
	if c.closed() {
		c.sender.outcome(seq, code, reason, reply)
		return
	}
	l := c.loop
	if len(mc.told)+len(reason)+len(reply) > tallyFlush {
		mc.flush()
	}
	if mc.told == nil {
		mc.told = l.bufs.get()
	}
	mc.told = codec.AppendOneOutcome(mc.told, &codec.Outcome{Seq: seq, Code: code, Reason: reason, Reply: reply})
	mc.toldCount++
	if !mc.telling {
		mc.telling = true
		l.telling = append(l.telling, c)
	}
	if mc.countOutcome(seq) {
		mc.flush()
	}
}

// flush writes the outcomes that have gathered.
func (mc *multicasts) flush() {
	c := mc.conn
	if mc.toldCount == 0 {
		return
	}
	n, told := mc.toldCount, mc.told
	mc.toldCount, mc.told = 0, nil
	b := codec.AppendOutcomes(c.out.buf(), n, told)
	c.loop.bufs.put(told)
	c.out.wroteControl(b)
}

// tellAll flushes the outcomes of all connections at every tick, as far as the iteration's share
// allows. It reports whether there are more.
func (l *loop) tellAll() (more bool) {
	telling := l.telling
	l.telling = nil // a write can close connections, which makes outcomes for others
	n := 0
	for ; n < len(telling) && !l.pace.full; n++ {
		c := telling[n]
		c.multicasts.telling = false
		if c.state == stateOpen {
			l.pace.worked(1 + len(c.multicasts.told)/bytesPerUnit)
			c.multicasts.flush()
		}
	}
	more = n < len(telling)
	left := append(telling[:copy(telling, telling[n:])], l.telling...)
	clear(telling[min(len(left), len(telling)):])
	l.telling = left
	return more
}
