package ackmgr

const (
	pageBits = 12
	pageSize = 1 << pageBits
)

// paged is an array that grows a page at a time. Its elements never move, so
// growing copies nothing.
type paged[T any] struct {
	pages []*[pageSize]T
	len   uint32
}

func (p *paged[T]) at(i uint32) *T { return &p.pages[i>>pageBits][i%pageSize] }

// full reports whether append will need a new page.
func (p *paged[T]) full() bool { return p.len%pageSize == 0 }

// append adds a zero element and returns its index.
func (p *paged[T]) append() uint32 {
	if p.full() {
		p.pages = append(p.pages, new([pageSize]T))
	}
	p.len++
	return p.len - 1
}

// ref names a member of a ring: the slot with that index or, with headBit set,
// the head with the index in the other bits.
type ref uint32

const headBit ref = 1 << 31

// A ring is circular and doubly linked through one head, so a member can leave the ring without
// knowing which one it is.
type link struct{ prev, next ref }

// kind is the purpose of a ring. A slot or head is on at most one ring of each kind. If it is on
// none, its link points to itself.
type kind uint8

const (
	// a bucket of the wheel, or the free ring for slots and heads that are not in use
	byTimer  kind = iota
	byDest        // a destination's list
	byOrigin      // an origin's list
	kinds
)

type links [kinds]link

// slot holds one entry.
type slot struct {
	seq, session uint64
	links        links
	conn, sum    uint32
	since        uint32
	tick         uint32 // low 32 bits of the wheel's tick that expires it
	state        uint32 // flags 8 bits | lapped 1 | pending 1 | generation 22
}

const (
	pendingBit = 1 << generationBits
	lappedBit  = pendingBit << 1 // every generation has been handed out at least once
	flagsShift = generationBits + 2
)

func (s *slot) generation() uint32 { return s.state & maxGeneration }

func (s *slot) pending() bool { return s.state&pendingBit != 0 }

// issued reports whether the slot has ever had that generation.
func (s *slot) issued(generation uint32) bool {
	return generation != 0 && (generation <= s.generation() || s.state&lappedBit != 0)
}

// nextGeneration begins a new use of the slot. It leaves the flags 0.
func (s *slot) nextGeneration() {
	if s.generation() == maxGeneration {
		s.state = lappedBit | pendingBit | 1
		return
	}
	s.state = s.state&lappedBit | pendingBit | (s.generation() + 1)
}

func (s *slot) setFlags(f uint8) {
	s.state = s.state&(1<<flagsShift-1) | uint32(f)<<flagsShift
}

func (s *slot) entry() Entry {
	return Entry{Seq: s.seq, Session: s.session, Conn: s.conn, Sum: s.sum, Since: s.since, Flags: uint8(s.state >> flagsShift)}
}

// slab owns the slots, the heads and the rings that join them.
type slab struct {
	slots     paged[slot]
	heads     paged[links]
	freeSlots ref
	freeHeads ref
}

func newSlab() *slab {
	s := &slab{}
	s.freeHeads = s.addHead()
	s.freeSlots = s.addHead()
	return s
}

func (s *slab) slot(r ref) *slot { return s.slots.at(uint32(r)) }

// takeSlot returns a slot that is on no ring of any kind. It prefers slots that were never used,
// and then the one that has been free longest.
func (s *slab) takeSlot() ref {
	if s.slots.full() && !s.empty(byTimer, s.freeSlots) {
		r := s.first(byTimer, s.freeSlots)
		s.remove(byTimer, r)
		return r
	}
	r := ref(s.slots.append())
	s.slot(r).links = links{{r, r}, {r, r}, {r, r}}
	return r
}

// freeSlot takes the slot off its rings and makes it the last to be reused.
func (s *slab) freeSlot(r ref) {
	p := s.slot(r)
	for k := range kinds {
		s.leave(k, r, &p.links[k])
	}
	p.state &^= pendingBit
	s.join(byTimer, s.freeSlots, r, &p.links[byTimer])
}

// addHead adds a head with empty rings. Heads added in a row have refs in a row.
func (s *slab) addHead() ref {
	r := headBit | ref(s.heads.append())
	*s.heads.at(uint32(r &^ headBit)) = links{{r, r}, {r, r}, {r, r}}
	return r
}

// takeHead returns a head for a list, with empty rings.
func (s *slab) takeHead() ref {
	if s.empty(byTimer, s.freeHeads) {
		return s.addHead()
	}
	r := s.first(byTimer, s.freeHeads)
	s.remove(byTimer, r)
	return r
}

// freeHead releases a head that takeHead returned. Because the head is then on the free ring, its
// byTimer link no longer points to itself (see headInUse).
func (s *slab) freeHead(r ref) { s.insert(byTimer, s.freeHeads, r) }

// headInUse reports whether r is a head that takeHead returned and freeHead has
// not taken back.
func (s *slab) headInUse(r ref) bool { return r&headBit != 0 && s.empty(byTimer, r) }

func (s *slab) link(k kind, r ref) *link {
	if r&headBit != 0 {
		return &s.heads.at(uint32(r &^ headBit))[k]
	}
	return &s.slots.at(uint32(r)).links[k]
}

func (s *slab) empty(k kind, head ref) bool { return s.first(k, head) == head }

func (s *slab) first(k kind, head ref) ref { return s.link(k, head).next }

func (s *slab) last(k kind, head ref) ref { return s.link(k, head).prev }

// insert puts r, which must be on no ring of that kind, just before at: last on
// the ring if at is its head.
func (s *slab) insert(k kind, at, r ref) { s.join(k, at, r, s.link(k, r)) }

// join is insert for a caller that has the link of r.
func (s *slab) join(k kind, at, r ref, l *link) {
	a := s.link(k, at)
	*l = link{prev: a.prev, next: at}
	s.link(k, a.prev).next = r
	a.prev = r
}

// remove takes r off its ring of that kind; if it is on none, nothing happens.
func (s *slab) remove(k kind, r ref) { s.leave(k, r, s.link(k, r)) }

// leave is remove for a caller that has the link of r.
func (s *slab) leave(k kind, r ref, l *link) {
	s.link(k, l.prev).next = l.next
	s.link(k, l.next).prev = l.prev
	*l = link{r, r}
}

// splice moves all members of from, in their order, to the end of to.
func (s *slab) splice(k kind, from, to ref) {
	if s.empty(k, from) {
		return
	}
	f, t := s.link(k, from), s.link(k, to)
	s.link(k, f.next).prev = t.prev
	s.link(k, t.prev).next = f.next
	s.link(k, f.prev).next = to
	t.prev = f.prev
	*f = link{from, from}
}
