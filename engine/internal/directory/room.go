package directory

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"distmsg/codec"
	"distmsg/routing"
)

// A bound ID takes memory in its node and in the registry as long as it is bound. So a session may
// hold MaxSessionIDs at a node, and all sessions of a node together MaxNodeIDs. The node reserves
// room for an ID before it asks the registry to bind it. So a refused bind displaces nobody.

// room counts the IDs that the node is asking the registry to bind. The table counts those that are
// bound.
type room struct {
	table   *routing.Table // static
	refused atomic.Uint64  // IDs; for Stats

	mu                        sync.Mutex
	mostOfSession, mostOfNode int                      // guarded by mu
	sessionFull, nodeFull     string                   // guarded by mu; why a bind is refused
	sessions                  map[*routing.Session]int // guarded by mu
	identities                map[string]int           // guarded by mu
	node                      int                      // guarded by mu
}

func newRoom(d *Directory) *room {
	m := &room{table: d.table, sessions: make(map[*routing.Session]int), identities: make(map[string]int)}
	m.setMost(d.cfg.MaxSessionIDs, d.cfg.MaxNodeIDs)
	return m
}

// setMost sets how many IDs a session and the node may hold.
func (m *room) setMost(ofSession, ofNode int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mostOfSession, m.mostOfNode = ofSession, ofNode
	m.sessionFull = fmt.Sprintf("the session already holds %d IDs at this node, the maximum (max-session-ids)", ofSession)
	m.nodeFull = fmt.Sprintf("the node already holds %d IDs, the maximum (max-node-ids)", ofNode)
}

// keepFor reserves room for IDs of a request. It refuses those for which there is no room, and
// returns the others. An ID that the session holds already needs no room. Call it in the lane of
// the IDs, and giveBack after it.
func (m *room) keepFor(r *Request, mine []int) []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	ofSession := m.mostOfSession - r.Session.Len() - m.sessions[r.Session]
	ofNode := m.mostOfNode - m.table.Len() - m.node
	ofIdentity := m.leftOf(r)
	fits := make([]int, 0, len(mine))
	var kept map[string]bool // the IDs of fits; made when the room is used up
	for _, i := range mine {
		it := &r.items[i]
		route, known := m.table.Lookup([]byte(it.id))
		it.newInSession, it.newInNode = !known || route.Session != r.Session, !known
		if it.newInSession && (min(ofSession, ofIdentity) <= 0 || it.newInNode && ofNode <= 0) {
			if kept == nil {
				kept = r.named(fits)
			}
			full := m.nodeFull
			switch {
			case ofSession <= 0:
				full = m.sessionFull
			case ofIdentity <= 0:
				full = r.MostText
			}
			it.newInSession, it.newInNode = false, false
			if !kept[it.id] { // else it stands in the frame twice
				r.Results[i].Code = codec.CodeOverflow
				r.refused.add(i, full)
				m.refused.Add(1)
				if ofSession > 0 && ofIdentity <= 0 {
					r.OverMost++
				}
				continue
			}
		}
		took := m.keep(r.Session, it)
		ofSession, ofIdentity = ofSession-took, ofIdentity-took
		if it.newInNode {
			ofNode--
		}
		fits = append(fits, i)
	}
	return fits
}

// leftOf returns how many more IDs the sessions of a request's identity may have. The caller holds
// mu.
func (m *room) leftOf(r *Request) int {
	if r.MostIDs == 0 {
		return math.MaxInt
	}
	_, ids := r.Session.IdentityUse()
	return r.MostIDs - ids - m.identities[r.Session.Identity()]
}

// named returns the IDs of items.
func (r *Request) named(items []int) map[string]bool {
	ids := make(map[string]bool, len(items))
	for _, i := range items {
		ids[r.items[i].id] = true
	}
	return ids
}

// keep reserves room for an ID that is about to be bound. It returns how much room of its session
// that takes. The caller of keep and of give holds mu.
func (m *room) keep(s *routing.Session, it *item) (ofSession int) {
	if it.newInNode {
		m.node++
	}
	if it.newInSession {
		m.sessions[s]++
		m.identities[s.Identity()]++
		return 1
	}
	return 0
}

// give frees what keep has reserved.
func (m *room) give(s *routing.Session, it *item) {
	if it.newInNode {
		m.node--
	}
	if it.newInSession {
		if m.sessions[s]--; m.sessions[s] == 0 {
			delete(m.sessions, s)
		}
		if m.identities[s.Identity()]--; m.identities[s.Identity()] == 0 {
			delete(m.identities, s.Identity())
		}
	}
	it.newInSession, it.newInNode = false, false
}

// bind puts a binding into the table, which counts it from now on.
func (m *room) bind(r *Request, i int, epoch uint64) (prev routing.Route, status routing.BindStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	prev, status = m.table.Bind(r.items[i].id, r.Session, epoch)
	m.give(r.Session, &r.items[i])
	return prev, status
}

// giveBack frees the room of the IDs that were not bound.
func (m *room) giveBack(r *Request, mine []int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, i := range mine {
		m.give(r.Session, &r.items[i])
	}
}
