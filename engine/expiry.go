package engine

import (
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/ranking"
)

// The rights of a login end: when its identity expires, or when the application revokes it. The
// node then tells the client to log in again, which it does on a new connection, and moves. If the
// client is still there after Config.ExpiryGrace, the node closes the connection.

// Revoke ends the rights of the clients that have logged in under one of the names, on all their
// connections. Each client has to log in again within Config.ExpiryGrace, and Hooks.Authenticate
// decides what it may do from then on. Otherwise the node closes its connections with
// unauthenticated. So call Revoke after the hook has a new answer: when a token was removed, or
// when the rights of an identity have changed. A login that is being checked meanwhile is refused,
// and the client tries again. Any goroutine may call Revoke, and it does not wait.
func (e *Engine) Revoke(names ...string) {
	revoked := make(map[string]struct{}, len(names))
	for _, name := range names {
		revoked[name] = struct{}{}
	}
	if len(revoked) == 0 {
		return
	}
	e.eachConn(func(c *conn) { c.loop.expiries.revoke(c, revoked) })
}

// term is how long the login of a connection lasts. Its loop owns it.
type term struct {
	conn  *conn // static
	phase termPhase
	at    int64 // when the next phase begins, on the loop's clock
	place int   // in expiries.order; -1: it is not there
	// names that were revoked while the connection was joining
	unwanted []map[string]struct{}
}

// termPhase says how far the end of a login has come.
type termPhase uint8

const (
	termRuns   termPhase = iota // the client may do what its identity allows
	termEnding                  // the client has heard that it must log in again
)

func (t *term) GoesBefore(o *term) bool { return t.at < o.at }
func (t *term) StandsAt(i int)          { t.place = i }

// expiries are the logins of a loop's connections that end some time. The loop owns them.
type expiries struct {
	loop  *loop                  // static
	order ranking.Ranking[*term] // the next to end first
}

const (
	detailExpired = "the credentials have expired: log in again"
	detailRevoked = "the node has to check the credentials anew: log in again"
)

// expired reports whether the rights of a login are over.
func (l *login) expired() bool {
	return l != nil && !l.expires.IsZero() && !time.Now().Before(l.expires)
}

// begin begins the term of a connection that opens now. It returns false if its login was revoked
// while the connection was joining.
func (x *expiries) begin(c *conn, as *login) bool {
	was := c.term
	c.login, c.term = as, nil
	if as == nil {
		return true
	}
	if was != nil {
		for _, names := range was.unwanted {
			if _, revoked := names[as.name]; revoked {
				return false
			}
		}
	}
	if !as.expires.IsZero() {
		x.add(c, x.loop.now+max(0, time.Until(as.expires).Milliseconds())+1) // rounded up
	}
	return true
}

func (x *expiries) add(c *conn, at int64) {
	c.term = &term{conn: c, at: at}
	x.order.Add(c.term)
}

// leave ends the term of a connection that closes.
func (x *expiries) leave(c *conn) {
	if t := c.term; t != nil && t.place >= 0 {
		x.order.Remove(t.place)
	}
	c.term = nil
}

// check ends the terms that are over, as far as the iteration's share allows. It reports whether
// there are more.
func (x *expiries) check() (more bool) {
	l := x.loop
	for len(x.order) > 0 && x.order[0].at <= l.now {
		if l.pace.full {
			return true
		}
		if t := x.order[0]; t.phase == termRuns {
			x.notify(t, detailExpired)
		} else {
			l.stats.loginsCut++
			t.conn.close(codec.FaultUnauthenticated, "the credentials are not valid any more, and the client has not logged in again")
		}
		l.pace.worked(writeWork)
	}
	return false
}

// notify asks a client to log in again.
func (x *expiries) notify(t *term, reason string) {
	l := x.loop
	grace := l.eng.cfg.ExpiryGrace.Milliseconds()
	t.phase, t.at = termEnding, l.now+grace
	x.order.PutInOrder(t.place)
	l.stats.loginsEnded++
	c := t.conn
	c.out.wroteControl(codec.AppendRelogin(c.out.buf(), uint64(grace), reason))
}

// revoke ends the login of a connection if it is under one of the names.
func (x *expiries) revoke(c *conn, names map[string]struct{}) {
	switch {
	case c.state == stateJoining: // the hook may have answered before the name was revoked
		if c.term == nil {
			c.term = &term{conn: c, place: -1}
		}
		c.term.unwanted = append(c.term.unwanted, names)
	case c.state != stateOpen || c.login == nil:
	default:
		if _, revoked := names[c.login.name]; !revoked {
			return
		}
		if c.term == nil {
			x.add(c, x.loop.now)
		}
		if c.term.phase == termRuns {
			x.notify(c.term, detailRevoked)
			x.loop.pace.worked(writeWork)
		}
	}
}
