package asynclog

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// Seldom is for what is logged once a second at most, because clients or strangers make it happen as
// often as they like. In between it is logged for those who debug. The zero value is ready, and any
// goroutine may use it.
type Seldom struct{ last atomic.Int64 } // when it was logged, on the caller's clock

// Warn logs a warning, or the same for those who debug. now is the time on some clock that starts at
// zero, always the same one.
func (s *Seldom) Warn(log *slog.Logger, now time.Duration, message string, args ...any) {
	last := s.last.Load()
	if (last == 0 || int64(now)-last > int64(time.Second)) && s.last.CompareAndSwap(last, int64(now)) {
		log.Warn(message, args...)
		return
	}
	log.Debug(message, args...)
}
