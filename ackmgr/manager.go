package ackmgr

import (
	"fmt"
	"math"
)

// Entry is what the caller wants to remember about a delivery.
type Entry struct {
	Seq     uint64 // the sender's sequence number
	Session uint64 // low bits of the receiving session's ID: only that session may ack
	Conn    uint32 // slot of the sender's connection on this loop
	Sum     uint32 // the caller's checksum over the delivered message
	Since   uint32 // when it was armed, on a clock of the caller's
	Flags   uint8  // the caller's
}

// List is a set of pending entries that end together. Each connection needs one. Within the list,
// the entries that were delivered to the connection (armed with the list as dest) are separate from
// the entries that came from it (as origin). The zero value means no list.
type List uint32

// Status says what a token refers to.
type Status uint8

const (
	// Pending: the entry waits for its ack.
	Pending Status = iota + 1
	// Late: there was such an entry and it has ended.
	Late
	// Forged: this Manager never handed out that token, or did so under a tag older than the
	// previous one.
	Forged
)

// Config configures a Manager. The zero value is usable.
type Config struct {
	Tag  uint16 // of this incarnation, in tokens; only the low 12 bits are used
	Loop uint8  // number of the event loop, in tokens
	Max  int    // the most pending entries, up to 1<<22; 0 means 1<<20
}

func (c Config) validate() Config {
	if c.Max == 0 {
		c.Max = 1 << 20
	}
	if c.Max < 0 || c.Max > maxSlots {
		panic(fmt.Sprintf("ackmgr: Config.Max is %d, want 0 to %d", c.Max, maxSlots))
	}
	c.Tag &= maxTag
	return c
}

// Manager keeps the pending entries of one event loop. Only that loop may use it.
type Manager struct {
	// Static after construction.
	loop uint8
	max  int
	slab *slab
	due  ref // ring of entries that are due while Advance reports them

	wheel    *wheel
	len      int
	tag      uint16
	previous uint16 // the tag before SetTag; before the first SetTag, tag itself
}

// New returns a Manager whose clock shows now, in milliseconds. It panics if cfg.Max is out of
// range.
func New(cfg Config, now int64) *Manager {
	cfg = cfg.validate()
	s := newSlab()
	return &Manager{
		loop:     cfg.Loop,
		max:      cfg.Max,
		slab:     s,
		due:      s.addHead(),
		wheel:    newWheel(s, now),
		tag:      cfg.Tag,
		previous: cfg.Tag,
	}
}

// SetTag begins a new incarnation: new tokens carry the low 12 bits of tag. Tokens with the
// previous tag are Late, tokens with older tags Forged. It panics unless all entries have ended.
func (m *Manager) SetTag(tag uint16) {
	if m.len != 0 {
		panic(fmt.Sprintf("ackmgr: SetTag with %d pending entries", m.len))
	}
	m.previous, m.tag = m.tag, tag&maxTag
}

// Len returns the number of pending entries.
func (m *Manager) Len() int { return m.len }

// NewList returns an empty list. The caller releases it with FreeList.
func (m *Manager) NewList() List { return List(m.slab.takeHead()) }

// FreeList releases a list. Its value may then be reused for another list. FreeList panics if the
// list is not empty or was already freed. The zero List does nothing.
func (m *Manager) FreeList(l List) {
	if !m.Empty(l) {
		panic("ackmgr: FreeList of a list with pending entries")
	}
	if l != 0 {
		m.slab.freeHead(ref(l))
	}
}

// Empty reports whether no pending entry has l as dest or as origin. The zero List counts as empty.
// Empty panics if l was freed.
func (m *Manager) Empty(l List) bool {
	if l == 0 {
		return true
	}
	m.check(l)
	return m.slab.empty(byDest, ref(l)) && m.slab.empty(byOrigin, ref(l))
}

// Arm remembers e until it ends and returns its token, or false if Config.Max entries are pending.
// The deadline is in milliseconds on the clock of New and Advance. If the last Advance has already
// reached it, the entry expires at the next Advance. A deadline more than 2^32-1 ms (49 days) ahead
// is treated as that far ahead. Either list may be the zero List. Arm panics if a list was freed.
func (m *Manager) Arm(e Entry, deadline int64, dest, origin List) (Token, bool) {
	if m.len == m.max {
		return 0, false
	}
	m.check(dest)
	m.check(origin)
	r := m.slab.takeSlot()
	s := m.slab.slot(r)
	s.nextGeneration()
	s.setFlags(e.Flags)
	s.seq, s.session, s.conn, s.sum, s.since = e.Seq, e.Session, e.Conn, e.Sum, e.Since
	m.wheel.add(r, s, deadline)
	m.join(byDest, dest, r, s)
	m.join(byOrigin, origin, r, s)
	m.len++
	return makeToken(m.tag, m.loop, r, s.generation()), true
}

// Lookup says what a token refers to. The token may be any value. The entry is the zero Entry
// unless the status is Pending.
func (m *Manager) Lookup(t Token) (Entry, Status) {
	s, status := m.find(t)
	if status != Pending {
		return Entry{}, status
	}
	return s.entry(), Pending
}

// find returns the slot of a pending entry, or says why there is none.
func (m *Manager) find(t Token) (*slot, Status) {
	if t.Loop() != int(m.loop) || uint32(t.slot()) >= m.slab.slots.len {
		return nil, Forged
	}
	s := m.slab.slot(t.slot())
	switch tag := t.Tag(); {
	case tag == m.tag && s.pending() && s.generation() == t.generation():
		return s, Pending
	case !s.issued(t.generation()), tag != m.tag && tag != m.previous:
		return nil, Forged
	default:
		return nil, Late
	}
}

// End ends the entry, because its ack came or the caller gave up. It returns false if t is not
// pending. t may be any value.
func (m *Manager) End(t Token) bool {
	if _, status := m.find(t); status != Pending {
		return false
	}
	m.end(t.slot())
	return true
}

// Take ends the entry because its session has acked it, and returns it. It returns false, and ends
// nothing, if t is not pending or its entry belongs to another session. t may be any value.
func (m *Manager) Take(t Token, session uint64) (Entry, bool) {
	s, status := m.find(t)
	if status != Pending || s.session != session {
		return Entry{}, false
	}
	e := s.entry()
	m.end(t.slot())
	return e, true
}

// Redirect records that the message was delivered elsewhere: it moves the entry to the end of dest
// and replaces its Session, Sum and Flags by those of e. The token, Seq, Conn, Since, deadline and
// origin do not change. Redirect returns false if t is not pending. t may be any value. It panics
// if dest was freed.
func (m *Manager) Redirect(t Token, e Entry, dest List) bool {
	s, status := m.find(t)
	if status != Pending {
		return false
	}
	m.check(dest)
	s.session, s.sum = e.Session, e.Sum
	s.setFlags(e.Flags)
	m.slab.remove(byDest, t.slot())
	m.join(byDest, dest, t.slot(), s)
	return true
}

// Advance moves the clock to now (never backwards) and ends all entries whose deadline has been
// reached. The oldest deadline comes first, and of equal deadlines the one that was armed first.
// Advance calls expired after it has ended each entry. The callback may call every method. Advance
// does not report entries that the callback ends, nor entries that it arms, even if their deadline
// has passed.
func (m *Manager) Advance(now int64, expired func(Token, Entry)) {
	m.AdvanceSome(now, math.MaxInt, expired)
}

// AdvanceSome is Advance for up to n entries. An entry counts when it ends and when it moves to a
// lower level of the wheel. AdvanceSome reports whether more entries are due or may be due. Those
// stay pending until the next call, and may end in another way before it.
func (m *Manager) AdvanceSome(now int64, n int, expired func(Token, Entry)) (more bool) {
	n, done := m.wheel.advance(now, m.due, n)
	return !done || m.drain(byTimer, m.due, n, expired)
}

// EndDest ends all entries whose dest is l, in the order in which they joined l, and calls ended
// after it has ended each. For the callback, l has no dest entries. The callback may call every
// method, FreeList(l) included. EndDest does not report entries that the callback ends, redirects
// or arms. It panics if l was freed.
func (m *Manager) EndDest(l List, ended func(Token, Entry)) { m.endAll(byDest, l, ended) }

// EndOrigin ends all entries whose origin is l, in the order in which they were armed. Otherwise it
// is like EndDest, except that Redirect in the callback does not save an entry from ending.
func (m *Manager) EndOrigin(l List, ended func(Token, Entry)) { m.endAll(byOrigin, l, ended) }

// EndDestSome is EndDest for up to n entries, and reports whether there are more. The rest stays on
// l. Until none is left, the caller must not arm an entry with l or redirect one to it.
func (m *Manager) EndDestSome(l List, n int, ended func(Token, Entry)) (more bool) {
	return m.endSome(byDest, l, n, ended)
}

// EndOriginSome is EndOrigin for up to n entries, with the same rules as EndDestSome.
func (m *Manager) EndOriginSome(l List, n int, ended func(Token, Entry)) (more bool) {
	return m.endSome(byOrigin, l, n, ended)
}

func (m *Manager) endSome(k kind, l List, n int, ended func(Token, Entry)) (more bool) {
	m.check(l)
	return l != 0 && m.drain(k, ref(l), n, ended)
}

func (m *Manager) endAll(k kind, l List, ended func(Token, Entry)) {
	m.check(l)
	if l == 0 || m.slab.empty(k, ref(l)) {
		return
	}
	// The callback may arm entries with l, so the entries to end move to a separate list first.
	// Otherwise this loop might never end. Calls can nest, so each has a list of its own.
	doomed := m.slab.takeHead()
	m.slab.splice(k, ref(l), doomed)
	m.drain(k, doomed, math.MaxInt, ended)
	m.slab.freeHead(doomed)
}

// drain ends up to n entries on head's ring, and reports whether there are more. It starts from the
// head each time, because the callback may have ended any of them.
func (m *Manager) drain(k kind, head ref, n int, ended func(Token, Entry)) (more bool) {
	for ; !m.slab.empty(k, head); n-- {
		if n == 0 {
			return true
		}
		r := m.slab.first(k, head)
		t, e := m.token(r), m.slab.slot(r).entry()
		m.end(r)
		ended(t, e)
	}
	return false
}

func (m *Manager) end(r ref) {
	m.slab.freeSlot(r)
	m.len--
}

func (m *Manager) token(r ref) Token {
	return makeToken(m.tag, m.loop, r, m.slab.slot(r).generation())
}

func (m *Manager) join(k kind, l List, r ref, s *slot) {
	if l != 0 {
		m.slab.join(k, ref(l), r, &s.links[k])
	}
}

// check panics if l is neither a list in use nor no list. Without it, the
// entries of a dead connection would end with another's.
func (m *Manager) check(l List) {
	if l != 0 && !m.slab.headInUse(ref(l)) {
		panic("ackmgr: the list was freed")
	}
}
