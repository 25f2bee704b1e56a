package engine

import (
	"fmt"
	"sync"

	"distmsg/codec"
	"distmsg/routing"
)

// A bound ID takes memory in its node and in the registry for as long as it is bound. So a session
// may hold MaxSessionIDs at a node, and all its sessions together MaxNodeIDs. The node keeps room for
// an ID before it asks the registry to bind it: a bind that is refused displaces nobody.

// room counts the IDs that the registry is being asked to bind. Those that are bound, the table
// counts.
type room struct {
	sessionFull, nodeFull string // why a bind is refused; static

	mu       sync.Mutex
	sessions map[*routing.Session]int // guarded by mu
	node     int                      // guarded by mu
}

func newRoom(c *Config) room {
	return room{
		sessionFull: fmt.Sprintf("the session holds %d IDs at this node, the most that are allowed (max-session-ids)", c.MaxSessionIDs),
		nodeFull:    fmt.Sprintf("the node holds %d IDs, the most that are allowed (max-node-ids)", c.MaxNodeIDs),
		sessions:    make(map[*routing.Session]int),
	}
}

// keepRoom keeps room for IDs of a request. It refuses those that there is no room for, and returns
// the others. An ID that the session holds already needs none. Call it in the lane of the IDs, and
// giveRoomBack after it.
func (e *Engine) keepRoom(r *request, mine []int) []int {
	m := &e.room
	m.mu.Lock()
	defer m.mu.Unlock()
	ofSession := e.cfg.MaxSessionIDs - r.session.Len() - m.sessions[r.session]
	ofNode := e.cfg.MaxNodeIDs - e.table.Len() - m.node
	fits := make([]int, 0, len(mine))
	var kept map[string]bool // the IDs of fits; made when the room is used up
	for _, i := range mine {
		it := &r.items[i]
		route, known := e.table.Lookup([]byte(it.id))
		it.newInSession, it.newInNode = !known || route.Session != r.session, !known
		if it.newInSession && (ofSession <= 0 || it.newInNode && ofNode <= 0) {
			if kept == nil {
				kept = r.named(fits)
			}
			full := m.nodeFull
			if ofSession <= 0 {
				full = m.sessionFull
			}
			it.newInSession, it.newInNode = false, false
			if !kept[it.id] { // else it stands in the frame twice
				r.results[i].Code = codec.CodeOverflow
				r.refused.add(i, full)
				e.idsRefused.Add(1)
				continue
			}
		}
		ofSession -= m.keep(r.session, it)
		if it.newInNode {
			ofNode--
		}
		fits = append(fits, i)
	}
	return fits
}

// named returns the IDs of items.
func (r *request) named(items []int) map[string]bool {
	ids := make(map[string]bool, len(items))
	for _, i := range items {
		ids[r.items[i].id] = true
	}
	return ids
}

// keep notes that an ID is about to be bound. It returns how much room of its session that takes.
// mu is held, as it is in give.
func (m *room) keep(s *routing.Session, it *item) (ofSession int) {
	if it.newInNode {
		m.node++
	}
	if it.newInSession {
		m.sessions[s]++
		return 1
	}
	return 0
}

// give gives back what keep has taken.
func (m *room) give(s *routing.Session, it *item) {
	if it.newInNode {
		m.node--
	}
	if it.newInSession {
		if m.sessions[s]--; m.sessions[s] == 0 {
			delete(m.sessions, s)
		}
	}
	it.newInSession, it.newInNode = false, false
}

// bindInRoom puts a binding into the table, which counts it from now on.
func (e *Engine) bindInRoom(r *request, i int, epoch uint64) (prev routing.Route, status routing.BindStatus) {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	prev, status = e.table.Bind(r.items[i].id, r.session, epoch)
	e.room.give(r.session, &r.items[i])
	return prev, status
}

// giveRoomBack gives back the room of the IDs that were not bound.
func (e *Engine) giveRoomBack(r *request, mine []int) {
	e.room.mu.Lock()
	defer e.room.mu.Unlock()
	for _, i := range mine {
		e.room.give(r.session, &r.items[i])
	}
}
