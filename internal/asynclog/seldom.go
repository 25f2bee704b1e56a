package asynclog

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Seldom limits a warning to one a second, because clients or strangers can cause it as often as
// they like. In between, it logs at the debug level. The zero value is ready to use, and any
// goroutine may use it.
type Seldom struct{ last atomic.Int64 } // when it was logged, on the caller's clock

// Warn logs a message as a warning or at the debug level. now is the time on a clock that starts at
// zero. Always pass the same clock.
func (s *Seldom) Warn(log *slog.Logger, now time.Duration, message string, args ...any) {
	if s.Due(now) {
		log.Warn(message, args...)
		return
	}
	log.Debug(message, args...)
}

// Due reports whether a message may be logged now. Then it counts as logged.
func (s *Seldom) Due(now time.Duration) bool {
	last := s.last.Load()
	return (last == 0 || int64(now)-last > int64(time.Second)) && s.last.CompareAndSwap(last, int64(now))
}

// SeldomOf is a Seldom for each of a few keys. The zero value is ready to use, and any goroutine
// may use it.
type SeldomOf struct{ all sync.Map } // of *Seldom, by key

// Due reports whether a message about a key may be logged now. Then it counts as logged.
func (s *SeldomOf) Due(key string, now time.Duration) bool {
	one, _ := s.all.LoadOrStore(key, new(Seldom))
	return one.(*Seldom).Due(now)
}
