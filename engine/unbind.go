package engine

import (
	"distmsg/codec"
	"distmsg/routing"
)

// unbindOps are the bindings that parts of requests name, in their order.
func unbindOps(parts []part) []routing.UnbindOp {
	var ops []routing.UnbindOp
	for _, p := range parts {
		for _, i := range p.mine {
			ops = append(ops, routing.UnbindOp{ID: p.items[i].id, Session: p.session.ID(), Epoch: p.items[i].epoch})
		}
	}
	return ops
}

// unbind takes bindings back for their sessions.
func (e *Engine) unbind(parts []part) {
	ops := unbindOps(parts)
	ctx, cancel := e.registryContext()
	results, err := e.registry.Unbind(ctx, ops)
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
		for k, i := range e.takenBack(p, ops[:n], results[:n]) {
			switch {
			case results[k].Unanswered:
				p.results[i].Code = codec.CodeRegistryUnavailable
			case !results[k].Removed:
				stay = append(stay, wish{r: p.request, i: i})
			}
		}
		ops, results = ops[n:], results[n:]
	}
	e.explain(stay)
}

// takenBack forgets bindings that their session has given back, and that the registry was asked to
// remove. It returns the indices of the part.
func (e *Engine) takenBack(p part, ops []routing.UnbindOp, results []routing.UnbindResult) []int {
	var over []routing.UnbindOp
	for k, op := range ops {
		if results[k].Unanswered {
			continue
		}
		known := e.table.Unbind(op.ID, p.session, op.Epoch)
		if known || results[k].Removed { // else the client may have made up the epoch
			over = append(over, op)
		}
		if results[k].Removed {
			e.watcher.unbound(op.ID, op.Epoch)
		}
	}
	e.released(p.session, over)
	return p.mine
}

// explain says of IDs that were not unbound what stands instead.
func (e *Engine) explain(stay []wish) {
	if len(stay) == 0 {
		return
	}
	ids := make([]string, len(stay))
	for k := range stay {
		ids[k] = stay[k].id()
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	found, err := e.registry.Lookup(ctx, ids)
	for k := range stay {
		if err != nil {
			stay[k].answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		stay[k].answer(asResult(found[k], codec.CodeSuperseded))
	}
}

// lookup answers from the table where it can, and asks the registry for the rest: also for the IDs
// of a session that is not attached here any more, which may be attached elsewhere, or have lost
// them.
func (e *Engine) lookup(parts []part) {
	var unknown []wish
	var ids []string
	for _, p := range parts {
		for _, i := range p.mine {
			route, ok := e.table.Lookup([]byte(p.items[i].id))
			attached := ok && len(route.Session.Handles()) > 0
			if !attached && (!ok || e.cluster != nil) {
				unknown = append(unknown, wish{r: p.request, i: i})
				ids = append(ids, p.items[i].id)
				continue
			}
			p.results[i] = codec.Result{Code: codec.CodeOK, Epoch: route.Epoch}
			if !attached {
				p.results[i].Code = codec.CodeUnreachable
			}
		}
	}
	if len(unknown) == 0 {
		return
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	found, err := e.registry.Lookup(ctx, ids)
	for k, w := range unknown {
		if err != nil {
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		bound := codec.CodeUnreachable
		if e.attached(found[k].Binding.Session) {
			bound = codec.CodeOK
		}
		answer := asResult(found[k], bound)
		w.answer(answer)
		e.watcher.heardFound(ids[k], answer)
	}
}

// asResult says of an ID what the registry knows; bound is the code for one that somebody holds.
func asResult(f routing.LookupResult, bound codec.Code) codec.Result {
	switch {
	case f.Unknown:
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	case f.Binding == routing.Binding{}:
		return codec.Result{Code: codec.CodeNoRoute}
	}
	return codec.Result{Code: bound, Epoch: f.Binding.Epoch}
}
