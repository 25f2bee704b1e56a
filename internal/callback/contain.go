// Package callback runs code of the application's (handlers, callbacks, hooks) so that it can stop
// nothing but itself: a panic and runtime.Goexit end that one call, and a call that does not return
// holds up only what has to come after it.
package callback

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
)

// Failure is how a call ended that did not return.
type Failure struct {
	Panic any // what it panicked with; nil: it called runtime.Goexit, as testing.T.Fatal does
	Stack []byte
}

// Contain calls f and reports whether it returned. If it did not, Contain calls failed on the same
// goroutine, with the stack of the place where f ended. After a panic Contain then returns false.
// After runtime.Goexit it does not return, because nothing can keep the goroutine from ending:
// whoever owns the goroutine has to start another one in a deferred function. Contain allocates
// nothing if f returns.
func Contain(f func(), failed func(Failure)) (returned bool) {
	defer func() {
		if !returned {
			failed(Failure{Panic: recover(), Stack: debug.Stack()})
		}
	}()
	f()
	return true
}

// Apart calls f on a new goroutine and waits for it. It returns nil if f returned. Use it for rare
// calls, on goroutines that must not end.
func Apart(f func()) (failed *Failure) {
	done := make(chan *Failure, 1)
	go func() {
		if Contain(f, func(v Failure) { done <- &v }) {
			done <- nil
		}
	}()
	return <-done
}

// ApartLogged is Apart for a call whose end is logged if it does not return: whose it was, how it ended
// and where. It reports whether the call returned.
func ApartLogged(log *slog.Logger, who string, f func()) (returned bool) {
	failed := Apart(f)
	if failed != nil {
		failed.Log(log, who)
	}
	return failed == nil
}

// How says in words how the call ended, without what it panicked with: that may be for nobody
// else's eyes.
func (f *Failure) How() string {
	if f.Panic == nil {
		return "called runtime.Goexit"
	}
	return "panicked"
}

// Log writes an error that says whose call ended, how and where. A logger that panics changes
// nothing.
func (f *Failure) Log(log *slog.Logger, who string, args ...any) {
	defer func() { _ = recover() }()
	if f.Panic != nil {
		args = append(args, "panic", fmt.Sprint(f.Panic))
	}
	log.Error(who+" "+f.How(), append(args, "stack", string(f.Stack))...)
}

// Inside reports whether its caller runs in a call that a Line has made. It looks through the stack
// and so costs a microsecond; a goroutine that the call has started does not count.
func Inside() bool {
	var pcs [64]uintptr
	for skip := 2; ; skip += len(pcs) {
		n := runtime.Callers(skip, pcs[:])
		frames := runtime.CallersFrames(pcs[:n])
		for more := n > 0; more; {
			var frame runtime.Frame
			frame, more = frames.Next()
			if frame.Function == markName {
				return true
			}
		}
		if n < len(pcs) {
			return false
		}
	}
}

// markName is how the stack shows mark. A test holds them together.
const markName = "distmsg/internal/callback.mark"

// mark is in the stack of every call that a Line makes, for Inside to find.
//
//go:noinline
func mark(f func()) { f() }
