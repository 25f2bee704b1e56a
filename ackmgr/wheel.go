package ackmgr

import "math/bits"

const (
	levelBits = 8
	buckets   = 1 << levelBits
	levels    = 4

	// maxAhead is how far ahead of now a tick may be. It is what the levels
	// span and what the 32 bits of a tick that a slot keeps can tell apart.
	maxAhead = 1<<(levels*levelBits) - 1
)

// wheel is a hierarchical timer wheel. A tick is a millisecond since the wheel
// was made; a bucket of level n spans 256^n ticks, and each level is a circle of
// 256 of them. What is less than 256^(n+1) ticks ahead waits at level n or lower.
//
// A bucket moves down when its time begins. Level 1 spans 65 s, the deadlines one
// meets, in buckets of 256 ms, which hold little even of a million. A million
// deadlines beyond that can share one bucket of level 2 (BenchmarkLongestAdvance),
// so a bucket can move in steps, see cascade.
type wheel struct {
	slab  *slab
	epoch int64 // the caller's time at tick 0
	now   uint64
	first ref // head of level 0, bucket 0; the others follow

	// Of a bucket that moves down in steps. Until it has, now stands still.
	level  int // the level it is of, or that comes next; 0: no level is to move
	begun  bool
	moving ref // what is left of it

	// A member says that a bucket may be occupied. Slots leave without a word to
	// the wheel, so the bucket is taken out when now gets there.
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

// add schedules r, which must be on no byTimer ring, for the deadline.
func (w *wheel) add(r ref, deadline int64) {
	tick := uint32(min(w.tick(deadline), w.now+maxAhead))
	w.slab.slot(r).tick = tick
	w.slab.insert(byTimer, w.bucketOf(tick), r)
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

// advance makes it the caller's time and moves all slots that are due to the
// end of the ring due: the oldest tick first and, of the same tick, the one
// added first. Its time depends on the number of occupied buckets, not on how
// far it goes. A time in the past counts as now. It moves up to n slots down,
// and returns how many of n are left; done is false if the time is not reached.
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
		// The bucket that now is in has moved down: its place on the circle
		// belongs to the one that comes a full turn later.
		after := w.now>>(level*levelBits) + 1
		if d, found := w.occupied[level].distance(uint8(after)); found {
			if s := (after + d) << (level * levelBits); !ok || s < start {
				start, ok = s, true
			}
		}
	}
	return start, ok
}

// cascade moves the buckets that start now to lower levels: up to n slots of
// them. It returns how many of n are left, and whether that was all.
//
// Of two slots with the same tick, the one at the higher level was added first.
// So what moves down goes before what is there; and where buckets of several
// levels start at the same tick, the lower level must move first.
func (w *wheel) cascade(n int) (left int, done bool) {
	for ; w.level < levels && w.now%(1<<(w.level*levelBits)) == 0; w.level++ {
		if !w.begun { // what is added to the bucket from here on is for its next turn
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
	mask := ^uint64(0) << (b % 64) // at first, the part of b's word from b on; at last, all of it
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
