package ledger

// order remembers, for one sending connection, the latest message that each receiver has seen. It
// is an open-addressed table that forgets a receiver once nothing can arrive late there any more,
// so that its size follows what is in flight and not the number of receivers.
type order struct {
	slots, spare []lastSeen // a power of two
	used         int
}

// lastSeen has 8 bytes, so that the tables of all connections fit a cache.
type lastSeen struct {
	receiver uint32 // plus 1; 0: free
	seq      uint32 // its low bits: two numbers that are compared are never 2^31 apart
}

const minOrderSlots = 64 // rebuilding costs up to pageLen steps: not too often

// record notes that receiver has seen message seq of stream s, one of receivers. ahead is how much
// higher the highest number is that it had seen before; without one, or a lower one, it is not
// positive.
func (o *order) record(receiver uint32, receivers int, seq uint64, s *stream) (ahead int32) {
	if len(o.slots) < receivers && 4*o.used >= 3*len(o.slots) {
		o.rebuild(uint32(s.low()))
	}
	slot := o.find(receiver + 1)
	if slot.receiver == 0 {
		o.used++
		*slot = lastSeen{receiver + 1, uint32(seq)}
		return 0
	}
	ahead = int32(slot.seq - uint32(seq))
	if ahead < 0 {
		slot.seq = uint32(seq)
	}
	return ahead
}

// seen reports whether receiver has seen a later message than seq.
func (o *order) seen(receiver uint32, seq uint64) bool {
	if len(o.slots) == 0 {
		return false
	}
	slot := o.find(receiver + 1)
	return slot.receiver != 0 && int32(slot.seq-uint32(seq)) > 0
}

// find returns the slot of a receiver, or the free one that is to become it. Receivers are chosen
// at random, which is all the hashing they need; a table with room for all is an array.
func (o *order) find(receiver uint32) *lastSeen {
	mask := uint32(len(o.slots) - 1)
	for i := receiver & mask; ; i = (i + 1) & mask {
		if s := &o.slots[i]; s.receiver == 0 || s.receiver == receiver {
			return s
		}
	}
}

// rebuild keeps the receivers that have seen a number above low (a message that comes late is low
// or higher), with room for as many again, at least.
func (o *order) rebuild(low uint32) {
	live := 0
	for _, s := range o.slots {
		if s.above(low) {
			live++
		}
	}
	size := max(minOrderSlots, len(o.slots)) // never smaller: what is in flight goes up and down
	for size < 2*live {
		size *= 2
	}
	old := o.slots
	if len(o.spare) == size {
		o.slots = o.spare
		clear(o.slots)
	} else {
		o.slots = make([]lastSeen, size)
	}
	o.spare, o.used = old, live
	for _, s := range old {
		if s.above(low) {
			*o.find(s.receiver) = s
		}
	}
}

func (s lastSeen) above(low uint32) bool { return s.receiver != 0 && int32(s.seq-low) > 0 }
