package directory

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"distmsg/routing"
)

// presences is what the registry should know, or no longer know, of the sessions at this node.
type presences struct {
	dir *Directory // static

	mu  sync.Mutex
	all map[routing.SessionID]*presence // guarded by mu

	unverified []*presence // of the pass that goes on; upkeep's
	perRun     int         // of them in each second; upkeep's
}

// presence is one of them. session, entry and foreign are static. presences.mu guards the rest.
type presence struct {
	session *routing.Session
	entry   routing.Presence
	foreign bool  // it has been at another node, so it may hold IDs that this one does not know
	left    bool  // it is not attached here any more: the entry is to go
	written bool  // the registry has it, or has removed it
	queued  bool  // a job in the session's lane is about to write it
	removed int32 // how often the registry has removed it
}

// Attached notes that a session is attached here, and has the registry told. foreign says that it
// has been at another node.
func (d *Directory) Attached(s *routing.Session, entry routing.Presence, foreign bool) {
	d.presences.attach(s, entry, foreign)
}

// Left notes that the last connection of a session has left, and has its entry removed, unless the
// session has attached again since.
func (d *Directory) Left(s *routing.Session, entry routing.Presence) { d.presences.detach(s, entry) }

func (ps *presences) attach(s *routing.Session, entry routing.Presence, foreign bool) {
	p := &presence{session: s, entry: entry, foreign: foreign}
	ps.mu.Lock()
	if before := ps.all[s.ID()]; before != nil && before.session == s {
		p.foreign = foreign || before.foreign
	}
	ps.all[s.ID()] = p
	ps.mu.Unlock()
	ps.write(p)
}

func (ps *presences) detach(s *routing.Session, entry routing.Presence) {
	ps.mu.Lock()
	p := ps.all[s.ID()]
	current := p != nil && p.entry.Serial <= entry.Serial
	if current {
		p.left, p.written = true, false
	}
	ps.mu.Unlock()
	if current {
		ps.write(p)
	}
}

// write brings the registry in line with an entry, if no later one counts for its session.
func (ps *presences) write(p *presence) {
	id := p.session.ID()
	ps.mu.Lock()
	queued := p.queued // if the registry is slow, each second finds the same entries
	p.queued = true
	ps.mu.Unlock()
	if queued {
		return
	}
	ps.dir.inLane(p.session, func() {
		ps.mu.Lock()
		p.queued = false
		current, left := ps.all[id] == p, p.left
		ps.mu.Unlock()
		if !current {
			return
		}
		ctx, cancel := ps.dir.registryContext()
		defer cancel()
		var err error
		if left {
			_, err = ps.dir.registry.Detach(ctx, id, p.entry)
		} else {
			err = ps.dir.registry.Attach(ctx, id, p.entry)
		}
		switch {
		case errors.Is(err, routing.ErrSessionDead):
			if bound, ended := ps.dir.sessions.endHere(p.session); ended {
				ps.dir.sessions.sessionEnded(p.session, bound, endedByRegistry)
			}
			left = true
		case err != nil:
			ps.dir.cfg.Log.Debug("cannot write to the registry where a session is attached; the node will retry", "session", id, "error", err)
			return
		}
		ps.wrote(id, p, left)
	})
}

// wrote notes that the registry knows of an entry, or of its end. The next round says an end once
// more: the registry may have carried out an attach after it, which this node had given up waiting
// for.
func (ps *presences) wrote(id routing.SessionID, p *presence, left bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.written = p.left == left
	if !left {
		return
	}
	p.removed++
	if (p.removed > 1 || ps.dir.cfg.Own) && ps.all[id] == p {
		delete(ps.all, id)
	}
}

// rewrite has the registry told of the entries that it lacks or has too many, or of all entries.
func (ps *presences) rewrite(all bool) {
	var todo []*presence
	ps.mu.Lock()
	for _, p := range ps.all {
		if all {
			p.written = false
		}
		if !p.written {
			todo = append(todo, p)
		}
	}
	ps.mu.Unlock()
	for _, p := range todo {
		ps.write(p)
	}
}

// drop forgets the presence of a session that the registry has no use for any more.
func (ps *presences) drop(id routing.SessionID, which func(*presence) bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.all[id]; p != nil && which(p) {
		delete(ps.all, id)
	}
}

// entriesLeft is the presence entry of a session that has left this node. The registry may not have
// heard of that yet, which must not keep the session alive.
func (ps *presences) entriesLeft(s *routing.Session) []routing.Presence {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.all[s.ID()]; p != nil && p.session == s && p.left {
		return []routing.Presence{p.entry}
	}
	return nil
}

// askToReassert asks sessions to bind all they have again. This node may not know all their
// bindings.
func (ps *presences) askToReassert(ctx context.Context, within time.Duration, which func(*presence) bool) {
	ps.mu.Lock()
	var todo []*routing.Session
	for _, p := range ps.all {
		if which(p) {
			todo = append(todo, p.session)
		}
	}
	ps.mu.Unlock()
	for _, s := range todo {
		if handles := s.Handles(); len(handles) > 0 && ctx.Err() == nil {
			ps.dir.loops.Reassert(handles[0], within) // one of its connections is enough
		}
	}
}

// verify asks the registry where some of the sessions are that are attached here, and has
// what is missing written again. It comes to each of them within the resume window, which is sooner
// than the registry's sweep takes a session for one that is nowhere.
func (ps *presences) verify(ctx context.Context) {
	if ps.dir.cfg.Own { // it has lost nothing
		return
	}
	if len(ps.unverified) == 0 {
		ps.unverified = ps.attachedHere()
		ps.perRun = int(int64(len(ps.unverified))*int64(VerifyEvery)/int64(max(VerifyEvery, ps.dir.cfg.ResumeWindow))) + 1
	}
	n := min(ps.perRun, len(ps.unverified))
	now := ps.unverified[:n]
	ps.unverified = ps.unverified[n:]
	for some := range slices.Chunk(now, verifyBatch) {
		if ctx.Err() != nil || !ps.verifySome(some) {
			return // it is away: the next pass comes
		}
	}
}

// attachedHere are the entries that the registry should have.
func (ps *presences) attachedHere() (all []*presence) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.all {
		if p.written && !p.left {
			all = append(all, p)
		}
	}
	return all
}

// verifySome returns false if the registry does not answer.
func (ps *presences) verifySome(some []*presence) bool {
	ids := make([]routing.SessionID, len(some))
	for i, p := range some {
		ids[i] = p.session.ID()
	}
	ctx, cancel := ps.dir.registryContext()
	defer cancel()
	found, err := ps.dir.registry.Presences(ctx, ids)
	if err != nil {
		return false
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for i, p := range some {
		if !found[i].Unknown && !slices.Contains(found[i].Nodes, p.entry) {
			p.written = false // a dead session ends here when it is written
		}
	}
	return true
}
