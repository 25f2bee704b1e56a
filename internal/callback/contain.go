// Package callback runs the application's code (handlers, callbacks, hooks) so that it can block
// nothing but itself. A panic and runtime.Goexit end only that one call. A call that does not
// return delays only the calls that must come after it.
package callback

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
)

// Failure says how a call ended that did not return.
type Failure struct {
	Panic any // the value of the panic; nil: the call ran runtime.Goexit, as testing.T.Fatal does
	Stack []byte
}

// Contain calls f and reports whether it returned. If it did not, Contain calls failed on the same
// goroutine, with the stack of the place where f ended. After a panic, Contain then returns false.
// After runtime.Goexit it does not return, because nothing can prevent the end of the goroutine:
// the owner of the goroutine must start another one in a deferred function. Contain allocates
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

// How describes how the call ended. It omits the value of the panic, which may be confidential.
func (f *Failure) How() string {
	if f.Panic == nil {
		return "called runtime.Goexit"
	}
	return "panicked"
}

// Log logs an error that says whose call ended, how and where. A panic of the logger has no effect.
func (f *Failure) Log(log *slog.Logger, who string, args ...any) {
	defer func() { _ = recover() }()
	if f.Panic != nil {
		args = append(args, "panic", fmt.Sprint(f.Panic))
	}
	log.Error(who+" "+f.How(), append(args, "stack", string(f.Stack))...)
}

// Inside reports whether its caller runs in a call that a Line has made. It searches the stack,
// which costs a microsecond. A goroutine that the call has started does not count.
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

// markName is the name of mark in the stack. A test checks that they agree.
const markName = "distmsg/internal/callback.mark"

// mark is in the stack of every call that a Line makes, so that Inside can find it.
//
//go:noinline
func mark(f func()) { f() }
