package asynclog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Seldom limits each of its messages to one a second, because clients or strangers can cause it as
// often as they like. In between, it logs at the debug level, and the next line says how many were
// left out. Messages are constants. The zero value is ready to use, and any goroutine may use it.
type Seldom struct{ kinds SeldomOf } // by message

// Warn logs a message as a warning or at the debug level. now is the time on a clock that starts at
// zero. Always pass the same clock.
func (s *Seldom) Warn(log *slog.Logger, now time.Duration, message string, args ...any) {
	s.log(log, slog.LevelWarn, now, message, args)
}

// Info is like Warn, at the info level.
func (s *Seldom) Info(log *slog.Logger, now time.Duration, message string, args ...any) {
	s.log(log, slog.LevelInfo, now, message, args)
}

func (s *Seldom) log(log *slog.Logger, level slog.Level, now time.Duration, message string, args []any) {
	k := s.kinds.of(message)
	if !k.due(now) {
		k.left.Add(1)
		log.Debug(message, args...)
		return
	}
	if left := k.left.Swap(0); left > 0 {
		args = append(args[:len(args):len(args)], "left_out", left)
	}
	log.Log(context.Background(), level, message, args...)
}

// Due reports whether a message may be logged now. Then it counts as logged. It is for callers that
// log by themselves, and have one message.
func (s *Seldom) Due(now time.Duration) bool { return s.kinds.Due("", now) }

// SeldomOf is a Seldom for each of a few keys, for callers that log by themselves. The zero value
// is ready to use, and any goroutine may use it.
type SeldomOf struct{ all sync.Map } // of *kind, by key

// Due reports whether a message about a key may be logged now. Then it counts as logged.
func (s *SeldomOf) Due(key string, now time.Duration) bool { return s.of(key).due(now) }

func (s *SeldomOf) of(key string) *kind {
	found, ok := s.all.Load(key)
	if !ok {
		found, _ = s.all.LoadOrStore(key, new(kind))
	}
	return found.(*kind)
}

// kind is one message.
type kind struct {
	last atomic.Int64  // when it was logged, on the caller's clock
	left atomic.Uint64 // how many were left out since
}

func (k *kind) due(now time.Duration) bool {
	last := k.last.Load()
	return (last == 0 || int64(now)-last > int64(time.Second)) && k.last.CompareAndSwap(last, int64(now))
}
