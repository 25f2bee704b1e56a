package client

import "time"

// call is a send whose outcome a callback or a goroutine waits for.
type call struct {
	since  time.Time          // when it began, for OnOutcome
	byCtx  bool               // its deadline is the context's
	done   func(Reply, error) // SendAsync
	result chan result        // Send; capacity 1
	span   *spanning          // nil: nobody wants it
}

type result struct {
	reply Reply
	err   *Error
}

// calls holds the sends of one connection that have no outcome yet. A sequence number names the
// slot and its generation. So a lookup needs no map, and recognises an outcome that comes twice or
// after the send has ended.
type calls struct {
	slots  []slot
	free   []uint32
	groups []*group // multicasts, by their numbers
	next   uint64   // the first number of the next one
}

type slot struct {
	call     *call // nil if the sender stopped waiting; the node's outcome is still to come
	deadline int64 // milliseconds on the session's clock
	cost     int   // bytes that it holds in the window
	gen      uint64
	taken    bool
}

const (
	slotBits = 20
	maxCalls = 1 << slotBits

	// The lowest bit of a sequence number distinguishes a post from a send that waits for its
	// outcome.
	seqPost = 1
	// The numbers of a multicast are consecutive, so they need a range of their own. The highest
	// bit marks a multicast, and the next bit marks one that is a post.
	seqMany     = 1 << 63
	seqManyPost = 1 << 62
)

// add makes an entry and returns its sequence number. The window limits the number of entries to
// less than maxCalls.
func (t *calls) add(c *call, deadline int64, cost int) (seq uint64) {
	var i uint32
	if n := len(t.free); n > 0 {
		i = t.free[n-1]
		t.free = t.free[:n-1]
	} else {
		i = uint32(len(t.slots))
		t.slots = append(t.slots, slot{})
	}
	s := &t.slots[i]
	*s = slot{call: c, deadline: deadline, cost: cost, gen: s.gen + 1, taken: true}
	return (s.gen<<slotBits | uint64(i)) << 1
}

// at returns the entry that seq names. It returns nil if the entry has ended or never existed.
func (t *calls) at(seq uint64) *slot {
	post := seq&seqPost != 0
	seq >>= 1
	i := seq & (maxCalls - 1)
	if post || i >= uint64(len(t.slots)) {
		return nil
	}
	if s := &t.slots[i]; s.taken && s.gen == seq>>slotBits {
		return s
	}
	return nil
}

// end removes the entry that seq names and returns it.
func (t *calls) end(seq uint64) (s slot, ok bool) {
	p := t.at(seq)
	if p == nil {
		return s, false
	}
	s = *p
	p.taken, p.call = false, nil
	t.free = append(t.free, uint32(seq>>1)&(maxCalls-1))
	return s, true
}

// abandon makes c stop waiting for seq. It reports whether c was still waiting. The entry stays
// until the node's outcome comes.
func (t *calls) abandon(seq uint64, c *call) bool {
	s := t.at(seq)
	if s == nil || s.call != c {
		return false
	}
	s.call = nil
	return true
}

// len returns the number of entries. Each multicast counts once.
func (t *calls) len() int { return len(t.slots) - len(t.free) + len(t.groups) }

// overdue appends the sequence numbers of the entries whose deadline is before now.
func (t *calls) overdue(now int64, seqs []uint64) []uint64 {
	if t.len() == 0 {
		return seqs
	}
	for i := range t.slots {
		if s := &t.slots[i]; s.taken && s.deadline < now {
			seqs = append(seqs, (s.gen<<slotBits|uint64(i))<<1)
		}
	}
	for _, g := range t.groups {
		seqs = g.overdue(now, seqs)
	}
	return seqs
}
