package directory

import (
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/rights"
	"distmsg/routing"
)

// A client may bind only the IDs that its rights allow (S9). Its session may hold others, because
// the client had other rights before. The registry then removes exactly those bindings.

// restrictPause is how long the node waits before it tries again to take IDs from a session.
const restrictPause = time.Second

// Restrict takes from a session the IDs that its client may not hold any more, and has the client
// of a connection assert the rest. The client so hears denied for each of the IDs that it has lost.
// May and refusal are those of a Request. Any goroutine may call it.
func (d *Directory) Restrict(s *routing.Session, at routing.Handle, may *rights.Patterns, refusal string) {
	d.inLane(s, func() {
		r := d.NewRequest(s, at, 0, 0, 0)
		for _, b := range s.Bound() {
			if !may.Match(b.ID) {
				r.Add(b.ID, b.Epoch)
			}
		}
		if len(r.items) == 0 {
			return
		}
		r.Rights, r.Refusal = may, refusal
		d.restrict(r)
		d.loops.Reassert(at, 0)
	})
}

// restrict asserts bindings for a session that may not hold them. See bindings.permitted.
func (d *Directory) restrict(r *Request) {
	r.restricts = true
	d.Charge(r)
	d.Do(r, Bind)
}

// restrictAgain tries again to take those IDs that the registry has not taken away.
func (d *Directory) restrictAgain(r *Request) {
	again := d.NewRequest(r.Session, r.Conn, 0, 0, 0)
	again.Rights, again.Refusal = r.Rights, r.Refusal
	for i, it := range r.items {
		if r.Results[i].Code != codec.CodeDenied {
			again.Add(it.id, it.epoch)
		}
	}
	if len(again.items) == 0 || r.Session.Ended() || d.ctx.Err() != nil {
		return
	}
	time.AfterFunc(restrictPause, func() {
		if d.ctx.Err() == nil {
			again.since = d.cfg.Clock()
			d.restrict(again)
		}
	})
}

// permitted refuses the IDs that the client may not bind, and returns the others. The client may
// assert a binding from a time when it had other rights: then the registry removes that first.
func (b *bindings) permitted(p part) []int {
	if p.Rights == nil {
		return p.mine
	}
	var allowed, held []int
	for _, i := range p.mine {
		switch it := &p.items[i]; {
		case p.Rights.Match(it.id):
			allowed = append(allowed, i)
		case it.epoch != 0:
			held = append(held, i)
			fallthrough
		default:
			p.refuse([]int{i}, codec.CodeDenied, p.Refusal)
		}
	}
	if len(held) > 0 {
		b.dispossess(part{p.Request, held})
	}
	return allowed
}

// dispossess removes bindings that the client may not have. If the registry cannot do that now, the
// table forgets them all the same, and the answer is not final.
func (b *bindings) dispossess(p part) {
	ops := unbindOps([]part{p})
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	results, err := b.dir.registry.Unbind(ctx, ops)
	if err != nil {
		results = make([]routing.UnbindResult, len(ops))
		for k := range results {
			results[k].Unanswered = true
		}
	}
	b.takenBack(p, ops, results)
	for k, i := range p.mine {
		if results[k].Unanswered {
			b.dir.table.Unbind(ops[k].ID, p.Session, ops[k].Epoch)
			p.Results[i].Code = codec.CodeRegistryUnavailable
		}
	}
}
