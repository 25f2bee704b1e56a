package engine

import (
	"distmsg/codec"
	"distmsg/internal/asynclog"
	"distmsg/internal/callback"
)

// Hooks are the application's code. If a hook panics, only that call ends, and the node refuses
// what it asked the hook for. The log has one failure a second of each hook, because clients may
// cause them as often as they like.

// hooks calls the application's hooks.
type hooks struct {
	eng    *Engine           // static
	failed asynclog.SeldomOf // by hook
}

// onLoop calls a hook on a loop and reports whether it returned. If the hook did not return, onLoop
// logs why and where. If it did, onLoop allocates nothing.
func (h *hooks) onLoop(name string, hook func()) bool {
	return callback.Contain(hook, func(f callback.Failure) {
		h.complain(&f, name)
		// The loop's goroutine ends, and nothing can prevent that. A node that has crashed is
		// better than one that stands still.
		if f.Panic == nil {
			panic("engine: Hooks." + name + " called runtime.Goexit on an event loop, which ends with it")
		}
	})
}

// apart calls a hook off the loops and reports whether it returned. If the hook did not return,
// apart logs why and where. The hook runs on a goroutine of its own, because a lane must continue
// if the hook ends its goroutine.
func (h *hooks) apart(name string, hook func()) bool {
	f := callback.Apart(hook)
	if f != nil {
		h.complain(f, name)
	}
	return f == nil
}

// complain logs that a hook did not return.
func (h *hooks) complain(f *callback.Failure, name string) {
	if h.failed.Due(name, h.eng.clock()) {
		f.Log(h.eng.cfg.Logger, "Hooks."+name)
	}
}

// decide calls a deciding hook on a loop. It returns CodeDenied if the hook panicked.
func (h *hooks) decide(name string, hook func() codec.Code) (code codec.Code) {
	if !h.onLoop(name, func() { code = hook() }) {
		return codec.CodeDenied
	}
	return code
}
