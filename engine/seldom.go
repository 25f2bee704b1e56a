package engine

import (
	"sync/atomic"
	"time"
)

// seldom is for what is logged once a second at most, because clients or strangers make it happen as
// often as they like (S32). In between it is logged for those who debug.
type seldom struct{ last atomic.Int64 } // when it was logged, on the engine's clock

// warn logs a warning, or the same for those who debug.
func (s *seldom) warn(e *Engine, message string, args ...any) {
	now := int64(e.clock())
	if last := s.last.Load(); (last == 0 || now-last > int64(time.Second)) && s.last.CompareAndSwap(last, now) {
		e.cfg.Logger.Warn(message, args...)
		return
	}
	e.cfg.Logger.Debug(message, args...)
}
