package directory

import (
	"sync"

	"distmsg/routing"
)

// A session that returns a message disowns the binding that led to it, and the registry removes
// that binding (S11). The node does not remove a binding a second time while the first removal is
// under way.

// releases holds the bindings whose removal is under way because their sessions have disowned them.
type releases struct {
	mu  sync.Mutex
	all map[routing.UnbindOp]struct{} // guarded by mu
}

// BeginRelease notes that a binding is being removed. It returns false if that was under way
// already. If it returns true, a request with the verb Release, and of no kind, has to follow.
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

// endAll notes that the removal of a request's bindings has ended.
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
