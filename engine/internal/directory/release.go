package directory

import (
	"sync"

	"distmsg/routing"
)

// A session that gives a message back disowns the binding that led to it, and the registry removes
// that (S11). A binding that is being removed already is not removed once more.

// releases are the bindings that are being removed because their sessions have disowned them.
type releases struct {
	mu  sync.Mutex
	all map[routing.UnbindOp]struct{} // guarded by mu
}

// BeginRelease reports whether a binding is not being removed yet. If so, a request with the verb
// Release, and of no kind, has to follow.
func (d *Directory) BeginRelease(op routing.UnbindOp) bool { return d.bindings.releases.begin(op) }

func (r *releases) begin(op routing.UnbindOp) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, known := r.all[op]; known {
		return false
	}
	if r.all == nil {
		r.all = make(map[routing.UnbindOp]struct{})
	}
	r.all[op] = struct{}{}
	return true
}

// endAll notes that the bindings of a request are not being removed any more.
func (r *releases) endAll(of *Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, it := range of.items {
		delete(r.all, routing.UnbindOp{ID: it.id, Session: of.Session.ID(), Epoch: it.epoch})
	}
}

// release removes bindings that their own sessions have disowned.
func (b *bindings) release(parts []part) {
	ops := unbindOps(parts)
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	results, err := b.dir.registry.Unbind(ctx, ops)
	if err != nil {
		return
	}
	for _, p := range parts {
		n := len(p.mine)
		b.takenBack(p, ops[:n], results[:n])
		ops, results = ops[n:], results[n:]
	}
}
