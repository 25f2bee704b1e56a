package routing

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// SessionID names a session in the cluster. It is random and public: nodes route messages by it and
// may show it. Knowing it grants no rights.
type SessionID [16]byte

// NewSessionID returns a fresh random ID.
func NewSessionID() SessionID {
	var id SessionID
	rand.Read(id[:]) // never fails, by its documentation
	return id
}

// ParseSessionID reads what [SessionID.String] writes.
func ParseSessionID(s string) (SessionID, error) {
	var id SessionID
	if len(s) != hex.EncodedLen(len(id)) {
		return id, fmt.Errorf("session ID %q: want %d hex digits", s, hex.EncodedLen(len(id)))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return SessionID{}, fmt.Errorf("session ID %q: %w", s, err)
	}
	return id, nil
}

// String returns the ID in lower-case hex, 32 digits.
func (id SessionID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first 8 bytes, big endian. That is enough to identify who acked a message (S8),
// but too little to name a session.
func (id SessionID) Short() uint64 { return binary.BigEndian.Uint64(id[:8]) }

// IsZero reports whether the ID is zero and names no session.
func (id SessionID) IsZero() bool { return id == SessionID{} }

// Handle names a connection of an event loop. Any goroutine may hold a Handle. Only the owning loop
// converts it to a connection, after it has compared Gen.
type Handle struct {
	Loop uint16 // index of the event loop
	Slot uint32 // index in that loop's connection table
	Gen  uint32 // distinguishes this connection from earlier ones in the same slot
}

// BoundID is one ID of a session and the epoch of its binding.
type BoundID struct {
	ID    string
	Epoch uint64
}

// Session is one app server's presence on this node: its connections here and the IDs it has bound.
// [Table.OpenSession] creates it, and [Table.EndSession] ends it for good. A session that comes
// back under the same ID is another Session, so a holder of the old pointer can change nothing.
//
// Every method may be called from any goroutine.
type Session struct {
	// Static after construction.
	id       SessionID
	identity string
	usage    *usage // of the identity; nil if it has no name

	// Read without a lock, written with mu held.
	attached atomic.Pointer[attached] // never changed, only replaced
	ended    atomic.Bool

	// Guarded by mu. Lock order: a shard's mu before a session's, and never two
	// of a kind.
	mu     sync.Mutex
	serial uint64    // of the latest attach
	last   *attached // those that were attached when it ended; nil before that
	newest *entry    // the bound IDs, a list through entry.older and entry.newer
	bound  int       // its length
}

// attached are the connections of a session. Most sessions have only one. It stands in first, so
// that finding it does not wait for one more piece of memory, and all is a slice of first.
type attached struct {
	first [1]Handle
	all   []Handle
}

// detached is what all sessions without connections have.
var detached attached

// usage counts what the sessions of one identity have in a table.
type usage struct{ sessions, ids atomic.Int64 }

// IdentityUse returns how many sessions the session's identity has on this node, and how many IDs
// they have bound. Both are 0 if the identity has no name.
func (s *Session) IdentityUse() (sessions, ids int) {
	if s.usage == nil {
		return 0, 0
	}
	return int(s.usage.sessions.Load()), int(s.usage.ids.Load())
}

func newSession(id SessionID, identity string, u *usage) *Session {
	s := &Session{id: id, identity: identity, usage: u}
	s.attached.Store(&detached)
	return s
}

// ID returns the session's ID.
func (s *Session) ID() SessionID { return s.id }

// Short returns the short form of the session's ID.
func (s *Session) Short() uint64 { return s.id.Short() }

// Identity returns the identity that the session's credentials yielded when it was opened.
func (s *Session) Identity() string { return s.identity }

// Pick returns the connection for an ID of this session, given the ID's hash as in [Route.Hash]. As
// long as the set of connections does not change, an ID always gets the same connection, which
// keeps its messages in order (S20). Pick returns false while the session is detached. It costs one
// atomic load, and takes no lock and no memory.
func (s *Session) Pick(hash uint64) (Handle, bool) {
	a := s.attached.Load()
	if n := len(a.all); n > 1 {
		i, _ := bits.Mul64(hash, uint64(n)) // an even share of the hash's range for each
		return a.all[i], true
	}
	return a.first[0], len(a.all) == 1
}

// Handles returns the attached connections. The slice is a snapshot that never changes, and the
// caller must not change it either.
func (s *Session) Handles() []Handle { return s.attached.Load().all }

// LastHandles returns the connections that were attached when the session ended, so that the caller
// can close them. Before that, it returns nil.
func (s *Session) LastHandles() []Handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last == nil {
		return nil
	}
	return s.last.all
}

// Ended reports whether the session has ended. It never goes back to false.
func (s *Session) Ended() bool { return s.ended.Load() }

// Serial returns the serial of the latest attach, 0 before the first.
func (s *Session) Serial() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serial
}

// Len returns how many IDs the session has bound on this node.
func (s *Session) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound
}

// Bound returns a copy of the list of bound IDs, newest first. Binds for the session wait while
// Bound copies the list. With 100,000 IDs that takes milliseconds, so an event loop must not call
// it.
func (s *Session) Bound() []BoundID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]BoundID, 0, s.bound)
	for e := s.newest; e != nil; e = e.older {
		ids = append(ids, BoundID{ID: e.id(), Epoch: e.epoch()})
	}
	return ids
}

// NewestBound appends at most n of the bound IDs, newest first. Binds for the session wait
// meanwhile, as they do for [Session.Bound].
func (s *Session) NewestBound(to []BoundID, n int) []BoundID {
	s.mu.Lock()
	defer s.mu.Unlock()
	for e := s.newest; e != nil && n > 0; e, n = e.older, n-1 {
		to = append(to, BoundID{ID: e.id(), Epoch: e.epoch()})
	}
	return to
}

// attach adds h and takes the next serial. It returns false if the session has ended.
func (s *Session) attach(h Handle, serials *atomic.Uint64) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return 0, false
	}
	if have := s.Handles(); !slices.Contains(have, h) {
		s.setHandles(append(slices.Clip(have), h))
	}
	s.serial = serials.Add(1)
	return s.serial, true
}

// detach removes h. It returns how many connections are left and the serial of the latest attach,
// both from the same moment.
func (s *Session) detach(h Handle) (left int, serial uint64, found bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.Handles()
	if i := slices.Index(have, h); i >= 0 {
		have = slices.Delete(slices.Clone(have), i, i+1)
		s.setHandles(have)
		found = true
	}
	return len(have), s.serial, found
}

// end marks the session as ended and drops its connections, unless allowed returns false.
func (s *Session) end(allowed func() bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() || !allowed() {
		return false
	}
	s.ended.Store(true)
	s.last = s.attached.Load()
	s.setHandles(nil)
	return true
}

func (s *Session) setHandles(handles []Handle) {
	switch len(handles) {
	case 0:
		s.attached.Store(&detached)
	case 1:
		a := &attached{first: [1]Handle(handles)}
		a.all = a.first[:]
		s.attached.Store(a)
	default:
		s.attached.Store(&attached{all: handles})
	}
}

// link puts e on the list of bound IDs. Because end takes the same lock, no entry can join the list
// of an ended session.
func (s *Session) link(e *entry) BindStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return Dead
	}
	e.older = s.newest
	if e.older != nil {
		e.older.newer = e
	}
	s.newest = e
	s.bound++
	if s.usage != nil {
		s.usage.ids.Add(1)
	}
	return Bound
}

// renew gives an entry on the list a later epoch. After the session's end, epochs do not change any
// more, because the end removes bindings by their epochs.
func (s *Session) renew(e *entry, epoch uint64) BindStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended.Load() {
		return Dead
	}
	e.state.Store(epoch)
	return Bound
}

// unlink takes e off the list of bound IDs.
func (s *Session) unlink(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.newer != nil {
		e.newer.older = e.older
	} else {
		s.newest = e.older
	}
	if e.older != nil {
		e.older.newer = e.newer
	}
	e.older, e.newer = nil, nil
	s.bound--
	if s.usage != nil {
		s.usage.ids.Add(-1)
	}
}
