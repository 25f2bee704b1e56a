package client

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// seldomEvery is how often a session logs an event that repeats: that it has no node, or that a
// node accepts it and drops it again and again.
const seldomEvery = time.Minute

// seldom logs messages that may repeat many times a second. It logs the first one, and then one in
// each seldomEvery, with the number of those in between. It logs those in between at debug level.
// Any goroutine may call its methods.
type seldom struct {
	log *slog.Logger

	mu     sync.Mutex
	logged map[string]*repeated // by message and subject; guarded by mu
}

type repeated struct {
	at    time.Time
	muted int // how often it was not logged since
}

// say logs a message about a subject.
func (l *seldom) say(level slog.Level, subject, message string, args ...any) {
	if muted, due := l.due(message+" "+subject, time.Now()); !due {
		level = slog.LevelDebug
	} else if muted > 0 {
		args = append(args, "not_logged_since_the_last", muted)
	}
	l.log.Log(context.Background(), level, message, args...)
}

// due reports whether to log the subject now, and how often it was not logged since the last time.
func (l *seldom) due(subject string, now time.Time) (muted int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s, r := range l.logged { // subjects are few, but over months many nodes come and go
		if s != subject && now.Sub(r.at) > 2*seldomEvery {
			delete(l.logged, s)
		}
	}
	r := l.logged[subject]
	switch {
	case r == nil:
		r = new(repeated)
		l.logged[subject] = r
	case now.Sub(r.at) < seldomEvery:
		r.muted++
		return 0, false
	}
	muted, r.at, r.muted = r.muted, now, 0
	return muted, true
}

// forget forgets all subjects, so that the next message about each is logged.
func (l *seldom) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.logged)
}
