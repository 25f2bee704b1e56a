package directory

import (
	"crypto/hmac"
	"crypto/sha256"
	"time"

	"distmsg/codec"
	"distmsg/internal/asynclog"
	"distmsg/routing"
)

// Sessions begin with a hello and end with their resume windows, or with bye. What is done to one
// session is done in its lane, one after the other.

// sessions opens and ends the sessions of this node.
type sessions struct {
	dir    *Directory // static
	untold untold
	failed asynclog.Seldom // ends that the registry could not be told
	downs  asynclog.Seldom // sessions that have ended
}

// Joiner is a connection that has said hello. The directory calls one of its methods, once, from
// any goroutine. Neither may wait.
type Joiner interface {
	// Open makes the connection part of its session. Resumed says that there was such a session,
	// and foreign that it has been at another node.
	Open(s *routing.Session, resumed, foreign bool)
	// Refuse closes the connection.
	Refuse(f codec.Fault, detail string)
}

// Join opens a session for a connection, or resumes the one that is wanted. If wanted is zero, none
// is. Secret has to be the one that goes with the session.
func (d *Directory) Join(j Joiner, wanted routing.SessionID, identity string, secret []byte) {
	id := wanted
	if id.IsZero() {
		id = routing.NewSessionID()
	}
	// In the lane of the session its attaches and detaches are in order.
	if !d.lanes.tryJoin(id, func() { d.sessions.join(j, id, !wanted.IsZero(), identity, secret) }) {
		j.Refuse(codec.FaultGoingAway, "too many clients are connecting: try again later")
	}
}

// join opens or resumes a session and lets the connection in.
func (ss *sessions) join(j Joiner, id routing.SessionID, resumed bool, identity string, secret []byte) {
	d := ss.dir
	if resumed {
		if !d.mayResume(id, identity, secret) {
			j.Refuse(codec.FaultUnauthenticated, "the resume secret does not match the session and the identity")
			return
		}
		if s := d.table.Session(id); s == nil {
			if resumed = ss.livesElsewhere(id); !resumed {
				id = routing.NewSessionID()
			}
		} else if s.Identity() != identity {
			j.Refuse(codec.FaultUnauthenticated, "the session belongs to another identity")
			return
		}
	}
	foreign := resumed && d.table.Session(id) == nil
	s := d.table.OpenSession(id, identity)
	if !resumed && d.cfg.SessionUp != nil {
		d.apart("SessionUp", func() { d.cfg.SessionUp(id, identity) })
	}
	j.Open(s, resumed, foreign)
}

// ResumeSecret proves the right to resume a session. Any node with the same secret computes the
// same (S9).
func (d *Directory) ResumeSecret(id routing.SessionID, identity string) []byte {
	return resumeSecret(d.cfg.Secrets.First(), id, identity)
}

// mayResume reports whether a resume secret is that of a session, made with any of the keys.
func (d *Directory) mayResume(id routing.SessionID, identity string, secret []byte) bool {
	for _, key := range d.cfg.Secrets.All() {
		if hmac.Equal(secret, resumeSecret(key, id, identity)) {
			return true
		}
	}
	return false
}

func resumeSecret(key []byte, id routing.SessionID, identity string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("distmsg resume 1\x00"))
	mac.Write(id[:])
	mac.Write([]byte(identity))
	return mac.Sum(nil)
}

// inLane runs a job of the node's own in the lane of a session.
func (d *Directory) inLane(s *routing.Session, job func()) {
	d.lanes.inSession(s.ID(), job)
}

// ExpireLater ends a session when its resume window is over, unless it is attached again by then.
// serial is that of the latest detach.
func (d *Directory) ExpireLater(s *routing.Session, serial uint64) {
	time.AfterFunc(d.cfg.ResumeWindow, func() {
		d.inLane(s, func() { d.sessions.expire(s, serial) })
	})
}

func (ss *sessions) expire(s *routing.Session, serial uint64) {
	bound, ended := ss.dir.table.EndSession(s, serial)
	switch {
	case !ended:
	// it has moved, even if the registry lacks that
	case !ss.dir.alone() && ss.dir.remote.Session(s.ID()) != nil:
		ss.endAfterOthers(routing.EndOp{Session: s.ID(), Bound: bound, Gone: ss.dir.presences.entriesLeft(s)})
	case ss.sessionEnded(s, bound, endedByTime):
		ss.forgetEnded(s)
	}
}

// EndSession ends a session at once, wherever it is attached.
func (d *Directory) EndSession(s *routing.Session) {
	d.inLane(s, func() {
		if bound, ended := d.sessions.endHere(s); ended {
			d.sessions.sessionEnded(s, bound, endedByWish)
		}
	})
}

// LeftElsewhere says that a session has left the last of the other nodes where it was attached,
// this one. Its routes go when its resume window is over. serial is that of the detach in the
// remote table.
func (d *Directory) LeftElsewhere(s *routing.Session, serial uint64, node string, incarnation uint64) {
	id := s.ID()
	time.AfterFunc(d.cfg.ResumeWindow, func() {
		d.lanes.inSession(id, func() {
			if _, ended := d.remote.EndSession(s, serial); ended {
				d.sessions.endOrphan(id, routing.Presence{Node: node, Incarnation: incarnation})
			}
		})
	})
}

// endedBy says why a session has ended.
type endedBy string

const (
	endedByTime     endedBy = "it was not resumed within its resume window"
	endedByWish     endedBy = "its client has said bye, or the node has ended it"
	endedByRegistry endedBy = "the registry says that it has ended"
	endedByNode     endedBy = "another node has ended it"
)

// sessionEnded has a session that has ended at this node end everywhere. By wish it does so
// although it is attached elsewhere. It returns whether the registry has taken the end.
func (ss *sessions) sessionEnded(s *routing.Session, bound []routing.BoundID, why endedBy) (ended bool) {
	ended, err := ss.endInRegistry(routing.EndOp{Session: s.ID(), Force: why == endedByWish, Bound: bound, Gone: ss.dir.presences.entriesLeft(s)})
	if err != nil {
		ss.failed.Warn(ss.dir.cfg.Log, ss.dir.cfg.Clock(), "cannot end a session in the registry; the node will retry", "session", s.ID(), "error", err)
	}
	if err == nil && !ended {
		return false // it has moved to another node, which knows of it
	}
	ss.sessionDown(s, len(bound), why)
	return ended
}
