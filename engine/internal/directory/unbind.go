package directory

import (
	"distmsg/codec"
	"distmsg/routing"
)

// unbindOps are the bindings that parts of requests name, in their order.
func unbindOps(parts []part) []routing.UnbindOp {
	var ops []routing.UnbindOp
	for _, p := range parts {
		for _, i := range p.mine {
			ops = append(ops, routing.UnbindOp{ID: p.items[i].id, Session: p.Session.ID(), Epoch: p.items[i].epoch})
		}
	}
	return ops
}

// unbind removes bindings for their sessions.
func (b *bindings) unbind(parts []part) {
	ops := unbindOps(parts)
	ctx, cancel := b.dir.registryContext()
	results, err := b.dir.registry.Unbind(ctx, ops)
	cancel()
	if err != nil {
		for _, p := range parts {
			p.fill(p.mine, codec.CodeRegistryUnavailable)
		}
		return
	}
	var stay []wish
	for _, p := range parts {
		n := len(p.mine)
		for k, i := range b.takenBack(p, ops[:n], results[:n]) {
			switch {
			case results[k].Unanswered:
				p.Results[i].Code = codec.CodeRegistryUnavailable
			case !results[k].Removed:
				stay = append(stay, wish{r: p.Request, i: i})
			}
		}
		ops, results = ops[n:], results[n:]
	}
	b.explain(stay)
}

// takenBack forgets bindings that their session has unbound and that the registry was asked to
// remove. It returns their indices in the part.
func (b *bindings) takenBack(p part, ops []routing.UnbindOp, results []routing.UnbindResult) []int {
	var over []routing.UnbindOp
	for k, op := range ops {
		if results[k].Unanswered {
			continue
		}
		known := b.dir.table.Unbind(op.ID, p.Session, op.Epoch)
		if known || results[k].Removed { // else the client may have made up the epoch
			over = append(over, op)
		}
		if results[k].Removed {
			b.dir.watcher.unbound(op.ID, op.Epoch)
		}
	}
	b.dir.news.released(p.Session, over)
	return p.mine
}

// explain fills in, for IDs that were not unbound, which binding stands instead.
func (b *bindings) explain(stay []wish) {
	if len(stay) == 0 {
		return
	}
	ids := make([]string, len(stay))
	for k := range stay {
		ids[k] = stay[k].id()
	}
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	found, err := b.dir.registry.Lookup(ctx, ids)
	for k := range stay {
		if err != nil {
			stay[k].answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		stay[k].answer(asResult(found[k], codec.CodeSuperseded))
	}
}

// lookup answers from the table where it can, and asks the registry for the rest. The rest includes
// the IDs of a session that is no longer attached here: it may be attached elsewhere, or have lost
// them.
func (b *bindings) lookup(parts []part) {
	var unknown []wish
	var ids []string
	for _, p := range parts {
		for _, i := range p.mine {
			route, ok := b.dir.table.Lookup([]byte(p.items[i].id))
			attached := ok && len(route.Session.Handles()) > 0
			if !attached && (!ok || !b.dir.alone()) {
				unknown = append(unknown, wish{r: p.Request, i: i})
				ids = append(ids, p.items[i].id)
				continue
			}
			p.Results[i] = codec.Result{Code: codec.CodeOK, Epoch: route.Epoch}
			if !attached {
				p.Results[i].Code = codec.CodeUnreachable
			}
		}
	}
	if len(unknown) == 0 {
		return
	}
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	found, err := b.dir.registry.Lookup(ctx, ids)
	for k, w := range unknown {
		if err != nil {
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		bound := codec.CodeUnreachable
		if b.dir.attached(found[k].Binding.Session) {
			bound = codec.CodeOK
		}
		answer := asResult(found[k], bound)
		w.answer(answer)
		b.dir.watcher.heardFound(ids[k], answer)
	}
}

// asResult returns what the registry knows of an ID. bound is the code for an ID that somebody
// holds.
func asResult(f routing.LookupResult, bound codec.Code) codec.Result {
	switch {
	case f.Unknown:
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	case f.Binding == routing.Binding{}:
		return codec.Result{Code: codec.CodeNoRoute}
	}
	return codec.Result{Code: bound, Epoch: f.Binding.Epoch}
}
