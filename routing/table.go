package routing

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// Route is the result of a lookup.
type Route struct {
	Session *Session // who holds the ID
	Epoch   uint64   // of the session's bind
	Hash    uint64   // of the ID, for Session.Pick; it never changes during the life of the table
}

// Table is what one node knows: its sessions, their connections, and the IDs they
// hold. Every method may be called from any goroutine and none waits for I/O.
//
// # What keeps an old bind from coming back (S12)
//
// The table by itself guarantees three things: an epoch never decreases while an ID is bound,
// nothing is bound for an ended session, and an unbind removes only the exact binding that it
// names. The table remembers nothing about unbound IDs, so it cannot recognise a late reply about
// one. The caller must prevent that: the registry operations of one ID run in one ordered lane, and
// the next one starts only when the reply to the one before is in the table.
type Table struct {
	index   index
	bound   atomic.Int64  // how many IDs the index has
	serials atomic.Uint64 // the latest attach serial given out

	mu       sync.RWMutex
	sessions map[SessionID]*Session // guarded by mu
	usages   map[string]*usage      // guarded by mu; by identity, for those with sessions
}

// NewTable returns an empty table. It holds no resources but memory.
func NewTable() *Table { return newTable(shardCount) }

func newTable(shards int) *Table {
	return &Table{index: newIndex(shards), sessions: make(map[SessionID]*Session), usages: make(map[string]*usage)}
}

// Lookup finds who holds id. It keeps no reference to id, takes no lock and does not allocate. If
// nobody holds it, only the Hash of the route is set.
func (t *Table) Lookup(id []byte) (Route, bool) {
	hash := t.index.hashBytes(id)
	e := t.index.shard(hash).find(hash, id)
	if e == nil {
		return Route{Hash: hash}, false
	}
	return e.route(hash), true
}

// LastOwn is the ID that a session was last found to hold: see [Table.Holds]. The zero value is
// ready. It belongs to one goroutine and one table.
type LastOwn struct{ e *entry }

// Holds reports whether s holds id, as Lookup would say. If the ID is that of the last call with
// the same last, it needs neither the hash nor the index.
func (t *Table) Holds(s *Session, id []byte, last *LastOwn) bool {
	if e := last.e; e != nil && e.session == s && !e.removed() && string(e.bytes()) == string(id) {
		return true
	}
	hash := t.index.hashBytes(id)
	e := t.index.shard(hash).find(hash, id)
	if e == nil || e.session != s {
		return false
	}
	last.e = e
	return true
}

// OpenSession returns the session with this ID. If there is none, or it has ended, OpenSession
// creates it. An existing session keeps the identity that it was opened with: compare
// [Session.Identity] before you admit a client (S9).
func (t *Table) OpenSession(id SessionID, identity string) *Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.sessions[id]; s != nil && !s.Ended() {
		return s
	}
	s := newSession(id, identity, t.usageOf(identity))
	t.sessions[id] = s
	return s
}

// usageOf counts one more session of an identity. The caller holds mu.
func (t *Table) usageOf(identity string) *usage {
	if identity == "" {
		return nil
	}
	u := t.usages[identity]
	if u == nil {
		u = new(usage)
		t.usages[identity] = u
	}
	u.sessions.Add(1)
	return u
}

// Session returns the session with this ID, nil if it is not known here or has ended.
func (t *Table) Session(id SessionID) *Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if s := t.sessions[id]; s != nil && !s.Ended() {
		return s
	}
	return nil
}

// Attach adds a connection to a session. The serial is greater than all that this table has given
// out before (S16). Attach returns false if the session has ended.
func (t *Table) Attach(s *Session, h Handle) (serial uint64, ok bool) {
	return s.attach(h, &t.serials)
}

// Detach removes a connection from a session. It returns how many are left and the serial of the
// session's latest attach, whichever connection that was. If none is left, the caller uses this
// serial to remove the presence from the registry, and passes it to EndSession when the resume
// window is over. Found is false if h was not attached.
func (t *Table) Detach(s *Session, h Handle) (left int, serial uint64, found bool) {
	return s.detach(h)
}

// EndSession ends a detached session and removes it and its bindings from the table, unless it was
// attached again: serial is what Detach returned for the last connection. It returns the bindings
// that it removed. It returns false if the session stays or had already ended.
//
// From the moment of its end, nothing can be attached to the session or bound for it. Lookups may
// still return it until EndSession returns, but its Pick then returns false. EndSession takes about
// a microsecond for each bound ID, so an event loop must not end a large session.
func (t *Table) EndSession(s *Session, serial uint64) ([]BoundID, bool) {
	return t.end(s, func() bool { return s.serial == serial && len(s.Handles()) == 0 })
}

// ForceEndSession is EndSession without conditions, for a session that said bye or that the node
// has closed. It forgets connections that are still attached, but does not close them.
func (t *Table) ForceEndSession(s *Session) ([]BoundID, bool) {
	return t.end(s, func() bool { return true })
}

func (t *Table) end(s *Session, allowed func() bool) ([]BoundID, bool) {
	if !t.retire(s, allowed) {
		return nil, false
	}
	var all []BoundID
	for some, more := t.unbindSome(s, nil); more; some, more = t.unbindSome(s, some[:0]) {
		all = append(all, some...)
	}
	return all, true
}

// retire ends a session and leaves its bindings to unbindSome. It returns false if allowed returns
// false, or if the session had already ended.
func (t *Table) retire(s *Session, allowed func() bool) bool {
	if !s.end(allowed) {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.sessions[s.id] == s { // it may have been opened again
		delete(t.sessions, s.id)
	}
	if s.usage != nil && s.usage.sessions.Add(-1) == 0 && t.usages[s.identity] == s.usage {
		delete(t.usages, s.identity)
	}
	return true
}

// unbindBatch is how many bindings of an ended session are removed in one step.
const unbindBatch = 1000

// unbindSome removes some bindings of a session that has ended, and appends them to the list. More
// is false if none was left.
func (t *Table) unbindSome(s *Session, to []BoundID) (removed []BoundID, more bool) {
	// Binds for s are refused by now, so its list is complete. An unbind or another session's bind
	// may still remove an entry before its turn comes. That takes the entry off the list, too.
	some := s.NewestBound(to, unbindBatch)
	more = len(some) > 0
	return slices.DeleteFunc(some, func(b BoundID) bool { return !t.Unbind(b.ID, s, b.Epoch) }), more
}

// Bind applies an answer of the registry: s holds id under epoch. The status is
//
// - Bound if nobody held the ID here, or somebody with a smaller epoch, or s itself with the same
// one. prev is then the displaced binding of another session, which must be kicked, or zero if
// there was none;
// - Superseded if the table has a greater epoch, or the same for another session. prev is then the
// current binding;
//   - Dead if s has ended.
//
// The table keeps a copy of id. [Table] says what it guarantees about late calls.
func (t *Table) Bind(id string, s *Session, epoch uint64) (prev Route, status BindStatus) {
	hash := t.index.hashString(id)
	sh := t.index.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	old := sh.findLocked(hash, id)
	if old != nil {
		// Compare IDs and not pointers: the session may have ended and come back while its old
		// bindings are still being removed.
		same := old.session.id == s.id
		if have := old.epoch(); have > epoch || have == epoch && !same {
			return old.route(hash), Superseded
		}
		if old.session == s {
			return Route{}, s.renew(old, epoch)
		}
		if !same {
			prev = old.route(hash)
		}
	}
	e := newEntry(id, s, epoch)
	if s.link(e) == Dead {
		return Route{}, Dead
	}
	if old == nil {
		sh.insert(&t.index, hash, e)
		t.bound.Add(1)
	} else {
		sh.replace(hash, old, e)
		old.session.unlink(old)
	}
	return prev, Bound
}

// Unbind removes the binding of id if it is exactly that of s with this epoch (S11).
func (t *Table) Unbind(id string, s *Session, epoch uint64) bool {
	hash := t.index.hashString(id)
	sh := t.index.shard(hash)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	e := sh.findLocked(hash, id)
	if e == nil || e.session != s || e.epoch() != epoch {
		return false
	}
	sh.remove(hash, e)
	t.bound.Add(-1)
	s.unlink(e)
	return true
}

// All iterates over all bindings, for administration and slow re-verification (S15). It holds no
// lock between two steps, so the caller may pause as long as it likes. It yields a binding that
// exists all the time once. It may or may not yield a binding that is made or removed meanwhile.
func (t *Table) All() iter.Seq2[string, Route] {
	return func(yield func(string, Route) bool) {
		var entries []*entry
		for i := range t.index.shards {
			entries = t.index.shards[i].appendAll(entries[:0])
			for _, e := range entries {
				if !yield(e.id(), e.route(t.index.hashBytes(e.bytes()))) {
					return
				}
			}
		}
	}
}

// Sessions returns all sessions that have not ended, in no order.
func (t *Table) Sessions() []*Session {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.DeleteFunc(slices.Collect(maps.Values(t.sessions)), (*Session).Ended)
}

// Len returns how many IDs are bound. It takes no lock.
func (t *Table) Len() int { return int(t.bound.Load()) }
