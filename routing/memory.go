package routing

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"time"
)

// deadKept is how many dead sessions a Memory remembers at least. It remembers at most twice as
// many, in about 10 MB. Without a bound, clients that come and go would fill the memory. A
// forgotten session can come back only with its resume secret.
const deadKept = 1 << 17

// MemoryConfig configures a Memory. The zero value is good.
type MemoryConfig struct {
	// Clock returns the time from which epochs are minted. It may step back, but epochs do not.
	// Default: time.Now.
	Clock func() time.Time
}

// Memory is the Registry of a single node: the truth is in this process and ends with
// it. No call waits for I/O. It needs about 80 bytes for each bound ID.
type Memory struct {
	clock func() time.Time // static after construction
	id    string           // static after construction

	// Guarded by mu. One lock for all: this is not on the path of a message.
	mu       sync.Mutex
	closed   bool
	bindings *Table // a table of its own, whose sessions have no connections
	latest   uint64 // the greatest epoch ever stored, for any ID; see MaxClock
	presence map[SessionID][]Presence
	dead     map[SessionID]struct{} // the sessions that died last, up to deadKept
	deadOld  map[SessionID]struct{} // the ones before
}

var (
	_ Registry   = (*Memory)(nil)
	_ Identified = (*Memory)(nil)
)

// NewMemory returns an empty registry.
func NewMemory(config MemoryConfig) *Memory {
	if config.Clock == nil {
		config.Clock = time.Now
	}
	return &Memory{
		clock:    config.Clock,
		id:       rand.Text(),
		bindings: NewTable(),
		presence: make(map[SessionID][]Presence),
		dead:     make(map[SessionID]struct{}),
	}
}

// lock takes mu for one call. On an error it is not held.
func (m *Memory) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fmt.Errorf("%w: closed", ErrUnavailable)
	}
	return nil
}

// Bind implements [Registry].
func (m *Memory) Bind(ctx context.Context, ops []BindOp) ([]BindResult, error) {
	if err := m.lock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	now := uint64(min(max(0, m.clock().UnixMicro()), MaxClock))
	results := make([]BindResult, len(ops))
	for i, op := range ops {
		results[i] = m.bind(op, now)
	}
	return results, nil
}

func (m *Memory) bind(op BindOp, now uint64) BindResult {
	if m.isDead(op.Session) {
		return BindResult{Status: Dead}
	}
	held, epoch, latest := m.holder(op.ID), op.Epoch, m.latest
	if epoch == 0 {
		if held != (Binding{}) && held.Session != op.Session && held != op.Expect {
			return BindResult{Status: Taken, Incumbent: held}
		}
		// The new epoch is above all epochs of all IDs. So it is above those of this ID, whether it
		// is bound now or not, and the registry need not remember each.
		latest = max(now, latest+1)
		epoch = max(latest, held.Epoch+1)
	} else {
		displaces := held != (Binding{}) && held.Session != op.Session && held.Epoch < epoch
		ahead := now + uint64(MaxEpochAhead.Microseconds())
		if epoch > max(MaxAsserted, latest) || displaces && (!op.Known || epoch > max(ahead, latest)) {
			return BindResult{Status: Invalid}
		}
		latest = max(latest, min(epoch, MaxClock))
	}
	prev, status := m.bindings.Bind(op.ID, m.bindings.OpenSession(op.Session, ""), epoch)
	result := BindResult{Status: status, Incumbent: prev.binding()}
	if status == Bound {
		result.Epoch = epoch
		m.latest = latest
	}
	return result
}

// Unbind implements [Registry].
func (m *Memory) Unbind(ctx context.Context, ops []UnbindOp) ([]UnbindResult, error) {
	if err := m.lock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	results := make([]UnbindResult, len(ops))
	for i, op := range ops {
		s := m.bindings.Session(op.Session)
		results[i].Removed = s != nil && m.bindings.Unbind(op.ID, s, op.Epoch)
	}
	return results, nil
}

// Lookup implements [Registry].
func (m *Memory) Lookup(ctx context.Context, ids []string) ([]LookupResult, error) {
	if err := m.lock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	results := make([]LookupResult, len(ids))
	for i, id := range ids {
		results[i].Binding = m.holder(id)
	}
	return results, nil
}

// Attach implements [Registry].
func (m *Memory) Attach(ctx context.Context, session SessionID, p Presence) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.isDead(session) {
		return ErrSessionDead
	}
	nodes := m.presence[session]
	switch i := slices.IndexFunc(nodes, p.sameNode); {
	case i < 0:
		m.presence[session] = append(nodes, p)
	case nodes[i].Serial < p.Serial:
		nodes[i] = p
	}
	return nil
}

// Detach implements [Registry].
func (m *Memory) Detach(ctx context.Context, session SessionID, p Presence) (left int, err error) {
	if err := m.lock(ctx); err != nil {
		return 0, err
	}
	defer m.mu.Unlock()
	nodes := slices.DeleteFunc(m.presence[session], p.covers)
	if len(nodes) == 0 {
		delete(m.presence, session)
	} else {
		m.presence[session] = nodes
	}
	return len(nodes), nil
}

// Presence implements [Registry].
func (m *Memory) Presence(ctx context.Context, session SessionID) (SessionPresence, error) {
	if err := m.lock(ctx); err != nil {
		return SessionPresence{}, err
	}
	defer m.mu.Unlock()
	return m.whereabouts(session), nil
}

// Presences implements [Registry].
func (m *Memory) Presences(ctx context.Context, sessions []SessionID) ([]SessionPresence, error) {
	if err := m.lock(ctx); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	results := make([]SessionPresence, len(sessions))
	for i, session := range sessions {
		results[i] = m.whereabouts(session)
	}
	return results, nil
}

// EndSession implements [Registry]. The bindings are gone when it returns. It removes them in
// batches, and other calls run in between.
func (m *Memory) EndSession(ctx context.Context, op EndOp) (ended bool, err error) {
	s, ended, err := m.endNow(ctx, op)
	for more := s != nil; more; {
		m.mu.Lock()
		_, more = m.bindings.unbindSome(s, nil)
		m.mu.Unlock()
	}
	return ended, err
}

// endNow makes a session dead. It returns the Session that held its bindings, or nil.
func (m *Memory) endNow(ctx context.Context, op EndOp) (s *Session, ended bool, err error) {
	if err := m.lock(ctx); err != nil {
		return nil, false, err
	}
	defer m.mu.Unlock()
	stillThere := func(have Presence) bool {
		return !slices.ContainsFunc(op.Gone, func(p Presence) bool { return p.covers(have) })
	}
	if !op.Force && slices.ContainsFunc(m.presence[op.Session], stillThere) {
		return nil, false, nil
	}
	delete(m.presence, op.Session)
	m.bury(op.Session)
	if s = m.bindings.Session(op.Session); s != nil {
		m.bindings.retire(s, func() bool { return true })
	}
	return s, true, nil
}

// Lost implements [Registry]. It returns nil, because a Memory loses its data only with its
// process.
func (m *Memory) Lost() <-chan struct{} { return nil }

// Identity implements [Identified].
func (m *Memory) Identity() Identity { return Identity{ID: m.id} }

// Rebuilding implements [Registry].
func (m *Memory) Rebuilding() bool { return false }

// Claims implements [Registry]. It has nothing to report: everything comes from the only node, and
// nothing gets lost.
func (m *Memory) Claims(ctx context.Context, _ func([]Claim)) { <-ctx.Done() }

// Probe implements [Registry].
func (m *Memory) Probe(ctx context.Context) error {
	if err := m.lock(ctx); err != nil {
		return err
	}
	m.mu.Unlock()
	return nil
}

// Close implements [Registry].
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

// The caller of the methods below must hold m.mu.

func (m *Memory) holder(id string) Binding {
	route, _ := m.bindings.Lookup([]byte(id))
	return route.binding()
}

func (m *Memory) whereabouts(session SessionID) SessionPresence {
	return SessionPresence{Dead: m.isDead(session), Nodes: slices.Clone(m.presence[session])}
}

func (m *Memory) isDead(session SessionID) bool {
	if _, dead := m.dead[session]; dead {
		return true
	}
	_, dead := m.deadOld[session]
	return dead
}

func (m *Memory) bury(session SessionID) {
	if m.isDead(session) {
		return
	}
	if len(m.dead) == deadKept {
		m.deadOld, m.dead = m.dead, make(map[SessionID]struct{})
	}
	m.dead[session] = struct{}{}
}

// binding converts the route to the registry's form.
func (r Route) binding() Binding {
	if r.Session == nil {
		return Binding{}
	}
	return Binding{Session: r.Session.ID(), Epoch: r.Epoch}
}

func (p Presence) sameNode(q Presence) bool {
	return p.Node == q.Node && p.Incarnation == q.Incarnation
}

// covers reports whether p is the same attach as q, or a later one at that node.
func (p Presence) covers(q Presence) bool { return p.sameNode(q) && q.Serial <= p.Serial }
