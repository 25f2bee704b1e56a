package engine

import (
	"sync"

	"distmsg/codec"
	"distmsg/routing"
)

// A session that gives a message back disowns the binding that led to it, and the registry removes that
// (S11). Only a message that the session was given counts, so the token comes first. All that one frame
// gives back is one request, in the line of its connection, and charged to it. A binding that is being
// removed already is not removed once more.

// releases are the bindings that are being removed because their sessions have disowned them.
type releases struct {
	mu  sync.Mutex
	all map[routing.UnbindOp]struct{} // guarded by mu
}

// begin reports whether a binding is not being removed yet.
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

func (r *releases) end(op routing.UnbindOp) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, op)
}

// disown notes that a session does not hold an ID, by a message that it has given back on the
// connection by. See releaseDisowned.
func (l *loop) disown(s *routing.Session, by routing.Handle, id []byte, epoch uint64) {
	op := routing.UnbindOp{ID: string(id), Session: s.ID(), Epoch: epoch}
	if !l.eng.releases.begin(op) {
		return
	}
	if r := l.disowned; r != nil && (r.session != s || r.handle != by) {
		l.releaseDisowned()
	}
	r := l.disowned
	if r == nil {
		r = &request{session: s, loop: l, handle: by, since: l.eng.clock()}
		l.disowned = r
	}
	r.items = append(r.items, item{id: op.ID, epoch: epoch})
	r.size += itemSize + len(id)
}

// disownHere is disown for a message that this node has delivered over its own table: only what still
// stands there goes.
func (l *loop) disownHere(session uint64, by routing.Handle, id []byte, epoch uint64) {
	if r, ok := l.eng.table.Lookup(id); ok && r.Session.Short() == session && r.Epoch == epoch {
		l.disown(r.Session, by, id, epoch)
	}
}

// disown is for a message that has come over a link, or without ack. This node need not know the ID:
// another one may, and have sent the message here.
func (rv *receiver) disown(id []byte, epoch uint64) {
	c := rv.conn
	e := c.loop.eng
	if r, ok := e.table.Lookup(id); ok && r.Session == c.session && r.Epoch == epoch || !ok && e.cluster != nil {
		c.loop.disown(c.session, c.handle(), id, epoch)
	}
}

// releaseDisowned has the registry remove what was disowned, if its connection has not asked for too
// much already. If it has, the next message that comes back says it again.
func (l *loop) releaseDisowned() {
	r := l.disowned
	if r == nil {
		return
	}
	l.disowned = nil
	r.results = make([]codec.Result, len(r.items))
	l.eng.asked.Add(int64(r.size))
	c := l.conn(r.handle)
	if c != nil {
		c.asked += r.size
		r.charged = true
		if c.overAsked() != "" {
			r.answerAll(0)
			return
		}
	}
	l.eng.spread(r, verbRelease)
}

// releaseDone is done for what was disowned.
func (r *request) releaseDone() {
	for _, it := range r.items {
		r.loop.eng.releases.end(routing.UnbindOp{ID: it.id, Session: r.session.ID(), Epoch: it.epoch})
	}
	if r.charged {
		r.loop.post(func() {
			if c := r.loop.conn(r.handle); c != nil {
				c.asked -= r.size
			}
		})
	}
}

// release removes bindings that their own sessions have disowned.
func (e *Engine) release(parts []part) {
	ops := unbindOps(parts)
	ctx, cancel := e.registryContext()
	defer cancel()
	results, err := e.registry.Unbind(ctx, ops)
	if err != nil {
		return
	}
	for _, p := range parts {
		n := len(p.mine)
		e.takenBack(p, ops[:n], results[:n])
		ops, results = ops[n:], results[n:]
	}
}
