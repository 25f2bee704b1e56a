package ledger

// order remembers, for one sending connection, the latest message that each receiver has seen. It
// is an open-addressed table. It forgets a receiver once nothing can arrive late there any more. So
// its size follows the number of messages in flight, not the number of receivers.
type order struct {
	slots, spare []lastSeen // their lengths are powers of two
	used         int
}

// lastSeen has 8 bytes, so that the tables of all connections fit into a cache.
type lastSeen struct {
	receiver uint32 // the receiver plus 1; 0 if the slot is free
	seq      uint32 // its low bits; two numbers to compare are never 2^31 apart
}

const minOrderSlots = 64 // a rebuild costs up to pageLen steps, so it must be rare

// record records that receiver has seen message seq of stream s. receivers is the number of all
// receivers. ahead is how far the highest number that the receiver had seen is above seq. It is not
// positive if there was none, or a lower one.
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

// seen reports whether receiver has seen a message later than seq.
func (o *order) seen(receiver uint32, seq uint64) bool {
	if len(o.slots) == 0 {
		return false
	}
	slot := o.find(receiver + 1)
	return slot.receiver != 0 && int32(slot.seq-uint32(seq)) > 0
}

// find returns the slot of a receiver, or the free slot where it belongs. Receivers are chosen at
// random, so their numbers need no hashing. A table with room for all receivers is an array.
func (o *order) find(receiver uint32) *lastSeen {
	mask := uint32(len(o.slots) - 1)
	for i := receiver & mask; ; i = (i + 1) & mask {
		if s := &o.slots[i]; s.receiver == 0 || s.receiver == receiver {
			return s
		}
	}
}

// rebuild keeps the receivers that have seen a number above low. No message that comes late has a
// number below low. The new table has room for at least as many receivers again.
func (o *order) rebuild(low uint32) {
	live := 0
	for _, s := range o.slots {
		if s.above(low) {
			live++
		}
	}
	size := max(minOrderSlots, len(o.slots)) // never smaller: the number in flight goes up and down
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
