package asynclog

import (
	"log/slog"
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
	last := s.last.Load()
	if (last == 0 || int64(now)-last > int64(time.Second)) && s.last.CompareAndSwap(last, int64(now)) {
		log.Warn(message, args...)
		return
	}
	log.Debug(message, args...)
}
