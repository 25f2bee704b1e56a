package directory

import (
	"maps"
	"slices"
	"time"

	"distmsg/routing"
)

// Probe lets the tests of the engine look into its directory, and hurry it. Nothing else uses it.
type Probe struct{ dir *Directory }

// Probe returns the probe of a directory.
func (d *Directory) Probe() Probe { return Probe{d} }

// Config is what the directory was made with.
func (p Probe) Config() Config { return p.dir.cfg }

// Lanes is how many lanes there are for IDs.
const Lanes = laneCount

// Idle reports whether no lane has anything to do.
func (p Probe) Idle() bool {
	for i := range p.dir.lanes.all {
		if !p.dir.lanes.all[i].idle() {
			return false
		}
	}
	return true
}

// idle reports whether a lane has nothing to do.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.quick)+len(l.lines) == 0 && l.began.Load() == 0
}

// LaneOf returns the lane of an ID.
func (p Probe) LaneOf(id string) int { return p.dir.lanes.of([]byte(id)) }

// InLane has a lane do f.
func (p Probe) InLane(lane int, f func()) { p.dir.lanes.must(lane, f) }

// Age makes the job that a lane is doing look older.
func (p Probe) Age(lane int, by time.Duration) { p.dir.lanes.all[lane].began.Add(-int64(by)) }

// Owes is what an ID owes for its takeovers, as a time on the engine's clock.
func (p Probe) Owes(id string) time.Duration {
	t := p.dir.bindings.takeovers
	t.mu.Lock()
	defer t.mu.Unlock()
	if d := t.debtOf(id); d != nil {
		return d.paid
	}
	return 0
}

// Asks reports whether a question about an ID is under way.
func (p Probe) Asks(id string) bool {
	r := p.dir.resolver
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[id] != nil
}

// Presences returns the sessions whose presence the directory takes care of.
func (p Probe) Presences() []routing.SessionID {
	ps := &p.dir.presences
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Collect(maps.Keys(ps.all))
}

// Present reports whether the directory takes care of the presence of a session.
func (p Probe) Present(session routing.SessionID) bool {
	ps := &p.dir.presences
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.all[session] != nil
}

// RewritePresences has the entries written that the registry lacks, or all of them.
func (p Probe) RewritePresences(all bool) { p.dir.presences.rewrite(all) }

// HeardClaims takes what the registry says.
func (p Probe) HeardClaims(all []routing.Claim) { p.dir.claims.heard(all) }

// Watches is how many watches there are, and of how many IDs.
func (p Probe) Watches() (watches, ids int) {
	w := p.dir.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watches, len(w.ids)
}

// SetWatches makes it look as if there were so many watches.
func (p Probe) SetWatches(n int) {
	w := p.dir.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watches = n
}

// Waiting is how many IDs of a list wait for their changes to be told.
func (p Probe) Waiting(list *Watches) int {
	w := p.dir.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(list.queue)
}

// Answered is how many IDs a list has whose client was told something.
func (p Probe) Answered(list *Watches) (count int) {
	w := p.dir.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, v := range list.all {
		if v.answered {
			count++
		}
	}
	return count
}

// Attached reports whether a session is attached somewhere that the node can reach.
func (p Probe) Attached(session routing.SessionID) bool { return p.dir.attached(session) }

// Disclaim removes a presence entry as if it were untrue.
func (p Probe) Disclaim(session routing.SessionID, entry routing.Presence) {
	p.dir.claims.disclaim(session, entry)
}

// Doubts is how many sessions there are whose IDs are in doubt.
func (p Probe) Doubts() int {
	d := &p.dir.claims.doubts
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.all)
}

// RoomKept is for how many IDs, and of how many sessions, room is kept.
func (p Probe) RoomKept() (ids, sessions int) {
	m := p.dir.bindings.room
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node, len(m.sessions)
}

// LateBinds is how many binds wait for their turn.
func (p Probe) LateBinds() int {
	t := p.dir.bindings.takeovers
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.queue)
}

// HoldQuestion makes the question about an ID one that was asked already.
func (p Probe) HoldQuestion(id string) {
	r := p.dir.resolver
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked[id] = new(question)
}

// FailQuestions answers the questions about IDs, to the first loop, as if the registry were away.
func (p Probe) FailQuestions(ids []string) {
	r := p.dir.resolver
	r.mu.Lock()
	for _, q := range r.asked {
		q.loops = []uint16{0}
	}
	r.mu.Unlock()
	r.notSaid(ids)
}

// TakeTurn returns the watched IDs whose turn it is to be asked for.
func (p Probe) TakeTurn() (ids []string) {
	batch, _ := p.dir.watcher.takeTurn()
	for _, id := range batch {
		ids = append(ids, id.name)
	}
	return ids
}

// WatchOrder returns the watched IDs that are not where they think they are, and whether all have
// had their turn.
func (p Probe) WatchOrder() (misplaced []string, over bool) {
	w := p.dir.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range w.order {
		if int(id.at) != i || w.ids[id.name] != id {
			misplaced = append(misplaced, id.name)
		}
	}
	return misplaced, w.next >= len(w.order)
}
