package admin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connLimit bounds a server's connections. If there is one too many, it closes the one that has
// been idle longest, so that nobody can block all places.
type connLimit struct {
	most int

	mu    sync.Mutex
	turn  uint64               // guarded by mu; grows with each change
	conns map[net.Conn]*served // guarded by mu
}

// served is a connection of a server. Its fields are guarded by connLimit.mu.
type served struct {
	busy  bool   // a request is being answered
	since uint64 // the turn when it was opened, or when a request began or ended
}

type connKey struct{}

func newConnLimit(most int) *connLimit {
	return &connLimit{most: most, conns: make(map[net.Conn]*served)}
}

// opened is called with each new connection, before anything is read from it.
func (l *connLimit) opened(ctx context.Context, c net.Conn) context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn++
	s := &served{since: l.turn}
	l.conns[c] = s
	if len(l.conns) > l.most {
		victim := l.victim(c)
		delete(l.conns, victim)
		if secure, ok := victim.(*tls.Conn); ok {
			victim = secure.NetConn() // the farewell of TLS could wait for the client
		}
		victim.Close() // the server notices
	}
	return context.WithValue(ctx, connKey{}, s)
}

// victim returns the connection to close: the one that has waited longest for a request, or else
// the one whose request has taken longest. The caller holds mu.
func (l *connLimit) victim(latest net.Conn) (victim net.Conn) {
	var worst *served
	for c, s := range l.conns {
		if c == latest {
			continue
		}
		if worst == nil || worst.busy && !s.busy || worst.busy == s.busy && s.since < worst.since {
			victim, worst = c, s
		}
	}
	return victim
}

// changed forgets connections that have ended.
func (l *connLimit) changed(c net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, c)
	}
}

// serving records which connections are being answered.
func (l *connLimit) serving(next http.Handler) http.Handler {
	note := func(s *served, busy bool) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.turn++
		s.busy, s.since = busy, l.turn
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := r.Context().Value(connKey{}).(*served) // opened has put it there
		note(s, true)
		defer note(s, false)
		next.ServeHTTP(w, r)
	})
}
