package directory

import (
	"maps"
	"sync"
	"time"

	"distmsg/routing"
)

// A kick may be lost: its session is detached at that moment, or it is written to a connection that
// is dead. So every node remembers for a while which sessions have lost which IDs, and repeats the
// kicks when such a session is resumed (S29). Nodes tell each other of all of them, as a session
// may come back anywhere. A kick that is heard twice does no harm: one counts only if its epoch is
// greater than the holder's.

// maxKicks bounds how many kicks a node remembers in a generation. If there are more, the sessions
// with most are asked to say all their bindings again when they are resumed: then the registry
// finds out. Only if no session has many are all that are resumed asked.
const maxKicks = 1 << 17

// kickMemory is what a node remembers of kicks. It has two generations: a kick is remembered for at
// least the lifetime of one. A generation ends with the first kick after its lifetime, so a node
// without new kicks remembers the last ones longer.
type kickMemory struct {
	most int // kicks in a generation; static

	mu     sync.Mutex
	now    kickGeneration // guarded by mu
	before kickGeneration // guarded by mu
}

type kickGeneration struct {
	began time.Duration // on the engine's clock
	// nil for a session with too many to name: see sum
	kicks    map[routing.SessionID]map[string]uint64
	count    int
	overflow bool // there were more
}

func (g *kickGeneration) add(session routing.SessionID, id string, epoch uint64, most int) {
	of, any := g.kicks[session]
	before, known := of[id]
	switch {
	case any && of == nil:
		return // the session is asked to say its bindings again, whatever it has lost
	case known:
	case len(of) == maxRepeated:
		g.sum(session)
		return
	case g.count >= most && !g.makeRoom():
		g.overflow = true
		return
	}
	if g.kicks == nil {
		g.kicks = make(map[routing.SessionID]map[string]uint64)
	}
	if of == nil {
		of = make(map[string]uint64)
		g.kicks[session] = of
	}
	if !known {
		g.count++
	}
	of[id] = max(before, epoch)
}

// sum keeps of a session's kicks only that there were some. It takes the place of one.
func (g *kickGeneration) sum(session routing.SessionID) {
	g.count -= len(g.kicks[session]) - 1
	g.kicks[session] = nil
}

// names reports whether all that a session has lost is remembered by name.
func (g *kickGeneration) names(session routing.SessionID) bool {
	of, any := g.kicks[session]
	return !g.overflow && (!any || of != nil)
}

// worthRoom is how many kicks a session must have for makeRoom to sum them up: what is looked
// through must be paid for by the room that is made.
const worthRoom = maxRepeated / 8

// makeRoom sums up the kicks of the session that has most, so that a few sessions with many do not
// take the room of all others (S32). It returns false if none has many.
func (g *kickGeneration) makeRoom() bool {
	if g.overflow { // it has looked already
		return false
	}
	var largest routing.SessionID
	for session, of := range g.kicks {
		if len(of) > len(g.kicks[largest]) {
			largest = session
		}
	}
	if len(g.kicks[largest]) < worthRoom {
		return false
	}
	g.sum(largest)
	return true
}

// of returns the IDs that a session has lost, with the epochs of the bindings that superseded its
// own. All is false if there may be more.
func (m *kickMemory) of(session routing.SessionID) (lost map[string]uint64, all bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all = m.before.names(session) && m.now.names(session)
	lost = maps.Clone(m.before.kicks[session])
	for id, epoch := range m.now.kicks[session] {
		if lost == nil {
			lost = make(map[string]uint64)
		}
		lost[id] = max(lost[id], epoch)
	}
	return lost, all
}

// maxRepeated is the most kicks that are repeated one by one.
const maxRepeated = 1024
