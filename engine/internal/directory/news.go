package directory

import (
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// What this node hears of a binding may be newer than what it knows, or older. The epoch says
// which, and only news count. They are taken in the lane of the ID, so that none can come behind
// what the registry answered later (S12).

// news brings the table, the routes and the sessions in line with what is heard of bindings.
type news struct {
	dir   *Directory // static
	kicks kickMemory
	overs *overs // static; nil if there are no other nodes
}

// remember notes that a session has lost an ID to the binding with that epoch.
func (n *news) remember(session routing.SessionID, id string, epoch uint64) {
	m := &n.kicks
	m.mu.Lock()
	defer m.mu.Unlock()
	// A session is resumed within its window, and a dead connection may have hidden for IdleTimeout
	// that it has none.
	if now := n.dir.cfg.Clock(); now-m.now.began > n.dir.cfg.ResumeWindow+n.dir.cfg.IdleTimeout {
		m.before, m.now = m.now, kickGeneration{began: now}
	}
	m.now.add(session, id, epoch, m.most)
}

// kick tells a session on this node that an ID of its own is bound elsewhere now, under epoch. Call
// it in the ID's lane.
func (n *news) kick(s *routing.Session, id string, epoch uint64) {
	n.superseded(s.ID(), id, epoch)
	n.lostID(s, id, epoch)
	// first, so that a connection which attaches from here on hears of it
	n.remember(s.ID(), id, epoch)
	n.dir.loops.Kick(s.Handles(), id, epoch)
}

// outdated takes back what this node knows of an ID if somebody says that there is a later binding.
// An epoch that is greater than ours proves that ours is superseded, however old the news is. Call
// it in the ID's lane.
func (n *news) outdated(id string, b routing.Binding) {
	if !n.dir.alone() {
		if r, ok := n.dir.remote.Lookup([]byte(id)); ok && r.Epoch < b.Epoch {
			n.dir.remote.Unbind(id, r.Session, r.Epoch)
		}
	}
	r, ok := n.dir.table.Lookup([]byte(id))
	if !ok || r.Epoch >= b.Epoch {
		return
	}
	n.dir.table.Unbind(id, r.Session, r.Epoch)
	if r.Session.ID() != b.Session { // else it has bound the ID anew, at another node
		n.kick(r.Session, id, b.Epoch)
	}
	n.dir.watcher.heard(id, true, b.Epoch)
}

// HeardOfBinding notes that somebody says that an ID is bound so. It may be called on a loop. id is
// a view.
func (d *Directory) HeardOfBinding(id []byte, b routing.Binding) {
	if r, ok := d.table.Lookup(id); !ok || r.Epoch >= b.Epoch {
		return
	}
	name := string(id)
	// if the lane is full, other news come
	d.lanes.tryQuick(d.lanes.of(id), func() { d.news.outdated(name, b) })
}

// HeardExpel notes that another node has bound an ID, and that a session has lost it by that (S13).
// If the session is not here, it hears of it when it comes. id is a view.
func (d *Directory) HeardExpel(session routing.SessionID, id []byte, epoch uint64) {
	name := string(id)
	d.lanes.quick(d.lanes.of(id), func() { d.news.expelled(session, name, epoch) })
}

func (n *news) expelled(session routing.SessionID, id string, epoch uint64) {
	table := n.dir.table
	n.dir.bindings.takeovers.heard(id)
	n.remember(session, id, epoch) // before the look whether it is here: it may be about to come
	if r, ok := table.Lookup([]byte(id)); ok && r.Session.ID() == session && r.Epoch < epoch {
		table.Unbind(id, r.Session, r.Epoch)
	}
	if s := table.Session(session); s != nil {
		n.kick(s, id, epoch)
	}
	n.superseded(session, id, epoch)
	n.outdated(id, routing.Binding{Epoch: epoch}) // of somebody else
	n.dir.watcher.heard(id, true, epoch)
}

// HeardReleased takes away a binding that its session has given back at another node. id is a view.
func (d *Directory) HeardReleased(session routing.SessionID, id []byte, epoch uint64) {
	name := string(id)
	d.lanes.quick(d.lanes.of(id), func() {
		if s := d.table.Session(session); s != nil {
			d.table.Unbind(name, s, epoch)
		}
		d.news.bindingOver(session, name, epoch)
		d.watcher.heard(name, false, epoch)
	})
}

// expel tells the other nodes that a session has lost an ID (S13). All of them: it may be attached
// anywhere, or come back anywhere.
func (n *news) expel(session routing.SessionID, id string, epoch uint64) {
	n.dir.peers.Tell(codec.AppendExpel(nil, codec.KindExpel, session[:], id, epoch))
}

// LostIDs returns the IDs that a session has lost of late, with the epochs of the bindings that
// superseded its own. All is false if there may be more: then its client is to be asked to bind all
// it has again.
func (d *Directory) LostIDs(session routing.SessionID) (lost map[string]uint64, all bool) {
	lost, all = d.news.kicks.of(session)
	if len(lost) > maxRepeated { // less for a connection's queue than so many frames
		return nil, false
	}
	return lost, all
}

// Over reports whether the binding of an ID with this epoch has ended, as this node remembers. It
// takes no lock and allocates nothing. There must be other nodes.
func (d *Directory) Over(id []byte, epoch uint64) bool { return d.news.overs.has(id, epoch) }

// lostID tells the hook of a kick, unless the session holds the ID under a newer epoch by now.
func (n *news) lostID(s *routing.Session, id string, epoch uint64) {
	hook := n.dir.cfg.Kick
	if hook == nil {
		return
	}
	if r, ok := n.dir.table.Lookup([]byte(id)); ok && r.Session == s && r.Epoch >= epoch {
		return
	}
	n.dir.apart("Kick", func() { hook(s.ID(), s.Identity(), id, epoch) })
}

// superseded notes that a session has lost an ID, which has been bound under epoch: what was bound
// before is over. Call it in the ID's lane.
func (n *news) superseded(session routing.SessionID, id string, epoch uint64) {
	if epoch > 0 {
		n.bindingOver(session, id, epoch-1)
	}
}

// bindingOver notes that the bindings of an ID up to epoch are over, on account of the session that
// held it. Call it in the ID's lane.
func (n *news) bindingOver(session routing.SessionID, id string, epoch uint64) {
	if n.dir.alone() {
		return // nobody else remembers routes, and here the table says it all
	}
	n.overs.add(session, id, epoch, time.Now())
	if r, ok := n.dir.remote.Lookup([]byte(id)); ok && r.Epoch <= epoch {
		n.dir.remote.Unbind(id, r.Session, r.Epoch)
	}
}

// released notes that a session has given bindings back, and notifies the other nodes. Those where
// the session is or was attached may have the bindings in their tables, and any may remember
// routes. Call it in the lane of the IDs.
func (n *news) released(s *routing.Session, all []routing.UnbindOp) {
	if n.dir.alone() || len(all) == 0 {
		return
	}
	id := s.ID()
	var frames []byte
	for _, op := range all {
		n.bindingOver(id, op.ID, op.Epoch)
		frames = codec.AppendExpel(frames, codec.KindReleased, id[:], op.ID, op.Epoch)
	}
	n.dir.peers.Tell(frames)
}

// learn has a binding of a session of this node put into the table, if no newer one is known: in
// the ID's lane, so that it cannot come behind an answer that the registry gave later (S12).
func (n *news) learn(s *routing.Session, id string, epoch uint64) {
	n.dir.lanes.quick(n.dir.lanes.of([]byte(id)), func() {
		if !n.overs.has([]byte(id), epoch) { // else it has ended since the registry was asked
			prev, status := n.dir.table.Bind(id, s, epoch)
			// whose kick did not come, or has yet to
			if status == routing.Bound && prev.Session != nil {
				n.kick(prev.Session, id, epoch)
			}
		}
	})
}

// makeRoom drops some routes when there are too many. Which ones does not matter much: a route that
// is missed costs one question.
func (n *news) makeRoom() {
	most, remote := n.dir.cfg.MaxRoutes, n.dir.remote
	if remote.Len() < most {
		return
	}
	left := most / 8
	for id, r := range remote.All() {
		remote.Unbind(id, r.Session, r.Epoch)
		if left--; left <= 0 {
			return
		}
	}
}

// ForgetRoutes drops the routes that lead to a session elsewhere, now that it is attached here too:
// the next message to each of its IDs makes this node learn of it, and goes the shorter way.
func (d *Directory) ForgetRoutes(id routing.SessionID) {
	if d.alone() {
		return
	}
	s := d.remote.Session(id)
	if s == nil || s.Len() == 0 {
		return
	}
	d.inLane(s, func() {
		for _, b := range s.Bound() {
			d.remote.Unbind(b.ID, s, b.Epoch)
		}
	})
}

// forgetSession drops the routes to a session that has ended. The watchers ask the registry what
// became of the IDs.
func (n *news) forgetSession(id routing.SessionID) {
	s := n.dir.remote.Session(id)
	if s == nil {
		return
	}
	bound, _ := n.dir.remote.ForceEndSession(s)
	for _, b := range bound {
		n.dir.watcher.heard(b.ID, false, b.Epoch)
	}
}
