package engine

import (
	"distmsg/codec"
	"distmsg/internal/callback"
)

// A hook is the application's code. If it panics, only its own call ends, and the node refuses what
// it asked the hook for.

// hooks calls the hooks of the application's.
type hooks struct{ eng *Engine }

// onLoop calls a hook on a loop and reports whether it returned. If it did not, the log says why
// and where. If it did, onLoop allocates nothing.
func (h *hooks) onLoop(name string, hook func()) bool {
	return callback.Contain(hook, func(f callback.Failure) {
		f.Log(h.eng.cfg.Logger, "Hooks."+name)
		if f.Panic == nil { // the loop's goroutine ends, and nothing can keep it: better a node that is gone than one that stands still
			panic("engine: Hooks." + name + " called runtime.Goexit on an event loop, which ends with it")
		}
	})
}

// apart calls a hook off the loops and reports whether it returned. If it did not, the log says why
// and where. The hook runs on a goroutine of its own, because a lane has to go on if the hook ends
// its goroutine.
func (h *hooks) apart(name string, hook func()) bool {
	return callback.ApartLogged(h.eng.cfg.Logger, "Hooks."+name, hook)
}

// decide asks a hook on a loop. CodeDenied stands for a hook that panicked.
func (h *hooks) decide(name string, hook func() codec.Code) (code codec.Code) {
	if !h.onLoop(name, func() { code = hook() }) {
		return codec.CodeDenied
	}
	return code
}
