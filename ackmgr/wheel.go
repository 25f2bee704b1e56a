package ackmgr

import "math/bits"

const (
	levelBits = 8
	buckets   = 1 << levelBits
	levels    = 4

	// maxAhead is how far ahead of now a tick may be. It is the span of all levels, and the range
	// that the 32 bits of a slot's tick can distinguish.
	maxAhead = 1<<(levels*levelBits) - 1
)

// wheel is a hierarchical timer wheel. A tick is a millisecond since the wheel was made; a bucket
// of level n spans 256^n ticks, and each level is a circle of 256 of them. A slot that is due in
// less than 256^(n+1) ticks waits at level n or lower.
//
// A bucket moves down when its time begins. Level 1 spans 65 s, which covers usual deadlines, in
// buckets of 256 ms, so even a million entries put few into each bucket. A million deadlines beyond
// 65 s can share one bucket of level 2 (BenchmarkLongestAdvance), so a bucket can move in steps
// (see cascade).
type wheel struct {
	slab  *slab
	epoch int64 // the caller's time at tick 0
	now   uint64
	first ref // head of level 0, bucket 0; the others follow

	// The state of a bucket that moves down in steps. now does not change until that is done.
	level  int // the bucket's level, or the level that comes next; 0: no level has to move
	begun  bool
	moving ref // the rest of the bucket

	// The members are the buckets that may be occupied. A slot can leave a bucket without notifying
	// the wheel, so the wheel removes a member only when now reaches the bucket.
	occupied [levels]bucketSet
}

func newWheel(s *slab, now int64) *wheel {
	w := &wheel{slab: s, epoch: now, first: s.addHead()}
	for range levels*buckets - 1 {
		s.addHead()
	}
	w.moving = s.addHead()
	return w
}

// tick returns the tick of a time of the caller's, no less than now.
func (w *wheel) tick(t int64) uint64 {
	now := w.epoch + int64(w.now)
	if t <= now {
		return w.now
	}
	return w.now + (uint64(t) - uint64(now)) // as uint64, the difference cannot overflow
}

// add schedules r, which must be on no byTimer ring, for the deadline. s is the slot of r.
func (w *wheel) add(r ref, s *slot, deadline int64) {
	s.tick = uint32(min(w.tick(deadline), w.now+maxAhead))
	w.slab.join(byTimer, w.bucketOf(s.tick), r, &s.links[byTimer])
}

// bucketOf returns the head of the bucket in which to wait for the tick.
func (w *wheel) bucketOf(tick uint32) ref {
	ahead := tick - uint32(w.now) // right across the wrap of 32 bits
	level := (bits.Len32(ahead|1) - 1) / levelBits
	bucket := uint8(tick >> (level * levelBits))
	w.occupied[level].add(bucket)
	return w.head(level, bucket)
}

func (w *wheel) head(level int, bucket uint8) ref {
	return w.first + ref(level*buckets+int(bucket))
}

// advance moves now to the caller's time and moves all slots that are due to the end of the ring
// due: the oldest tick first and, of the same tick, the one added first. Its cost depends on the
// number of occupied buckets, not on the distance. A time in the past is treated as now. advance
// moves up to n slots down, and returns how many of n are left. done is false if it has not reached
// the time.
func (w *wheel) advance(to int64, due ref, n int) (left int, done bool) {
	target := w.tick(to)
	for {
		if w.level == 0 {
			start, ok := w.next()
			if !ok || start > target {
				break
			}
			w.now, w.level = start, 1
		}
		if n, done = w.cascade(n); !done {
			return 0, false
		}
		w.level = 0
		w.occupied[0].remove(uint8(w.now))
		w.slab.splice(byTimer, w.head(0, uint8(w.now)), due)
	}
	w.now = target
	return n, true
}

// next returns the tick at which the first occupied bucket starts.
func (w *wheel) next() (start uint64, ok bool) {
	if d, found := w.occupied[0].distance(uint8(w.now)); found {
		start, ok = w.now+d, true
	}
	for level := 1; level < levels; level++ {
		// The bucket that contains now has moved down. Its place on the circle belongs to the
		// bucket that comes a full turn later.
		after := w.now>>(level*levelBits) + 1
		if d, found := w.occupied[level].distance(uint8(after)); found {
			if s := (after + d) << (level * levelBits); !ok || s < start {
				start, ok = s, true
			}
		}
	}
	return start, ok
}

// cascade moves the buckets that start now to lower levels, up to n slots. It returns how many of n
// are left, and whether it has moved all slots.
//
// Of two slots with the same tick, the one at the higher level was added first. So slots that move
// down go before the slots that are already there. If buckets of several levels start at the same
// tick, the lower level must move first.
func (w *wheel) cascade(n int) (left int, done bool) {
	for ; w.level < levels && w.now%(1<<(w.level*levelBits)) == 0; w.level++ {
		if !w.begun { // slots that are added to the bucket from now on are for its next turn
			w.begun = true
			bucket := uint8(w.now >> (w.level * levelBits))
			w.occupied[w.level].remove(bucket)
			w.slab.splice(byTimer, w.head(w.level, bucket), w.moving)
		}
		for ; !w.slab.empty(byTimer, w.moving); n-- {
			if n == 0 {
				return 0, false
			}
			r := w.slab.last(byTimer, w.moving)
			w.slab.remove(byTimer, r)
			to := w.bucketOf(w.slab.slot(r).tick)
			w.slab.insert(byTimer, w.slab.first(byTimer, to), r)
		}
		w.begun = false
	}
	return n, true
}

// bucketSet is a set of the buckets of one level.
type bucketSet [buckets / 64]uint64

func (s *bucketSet) add(b uint8) { s[b/64] |= 1 << (b % 64) }

func (s *bucketSet) remove(b uint8) { s[b/64] &^= 1 << (b % 64) }

// distance returns how many steps around the circle the first member is from b,
// 0 if it is b.
func (s *bucketSet) distance(b uint8) (d uint64, found bool) {
	mask := ^uint64(0) << (b % 64) // first the part of b's word from b on, last the whole word
	for i := range uint8(len(s) + 1) {
		word := (b/64 + i) % uint8(len(s))
		if in := s[word] & mask; in != 0 {
			member := word*64 + uint8(bits.TrailingZeros64(in))
			return uint64(member - b), true
		}
		mask = ^uint64(0)
	}
	return 0, false
}
