package directory

import (
	"slices"

	"distmsg/codec"
	"distmsg/routing"
)

// bindings asks the registry to bind and unbind IDs, and looks IDs up, for sessions of this node.
// Its methods are called in the lanes of the IDs.
type bindings struct {
	dir       *Directory // static
	room      *room      // static
	takeovers *takeovers // static
	releases  releases
}

// work carries out parts of requests together.
func (b *bindings) work(v Verb, parts []part) {
	if v == bindLate {
		countedBefore(parts)
		defer b.takeovers.payBack(parts)
		v = Bind
	}
	timely := parts[:0:0]
	for _, p := range parts {
		if b.dir.stillWanted(p) {
			timely = append(timely, p)
		}
	}
	if len(timely) > 0 {
		switch v {
		case Bind:
			b.bindApart(timely)
		case Unbind:
			b.unbind(timely)
		case Lookup:
			b.lookup(timely)
		case Watch:
			b.dir.watcher.askFor(timely)
		case Release:
			b.release(timely)
		}
	}
	for _, p := range parts {
		p.done()
	}
}

// maxSwaps bounds how often a bind that replaces an incumbent finds yet another one.
const maxSwaps = 8

const reasonSwaps = "the ID changes hands faster than it can be bound"

// wish is one ID that is being bound.
type wish struct {
	r      *Request
	i      int
	expect routing.Binding
}

func (w *wish) id() string { return w.r.items[w.i].id }

func (w *wish) answer(v codec.Result) { w.r.Results[w.i] = v }

// bindApart binds the IDs that several connections ask for. It binds the same ID for one connection
// after the other. Otherwise each would find another incumbent than it expects.
func (b *bindings) bindApart(parts []part) {
	seen := make(map[string]bool)
	begin := 0
	for k, p := range parts {
		again := slices.ContainsFunc(p.mine, func(i int) bool { return seen[p.items[i].id] })
		if again && k > begin {
			b.bind(parts[begin:k])
			begin = k
			clear(seen)
		}
		for _, i := range p.mine {
			seen[p.items[i].id] = true
		}
	}
	b.bind(parts[begin:])
}

// bind asks the registry for the IDs and puts its answers into the table.
func (b *bindings) bind(parts []part) {
	var todo []wish
	for _, p := range parts {
		if p.Policy == codec.PolicyRejectNew && b.dir.registry.Rebuilding() {
			// who holds an ID is not known for now (S18)
			p.fill(p.mine, codec.CodeRegistryUnavailable)
			continue
		}
		mine := b.room.keepFor(p.Request, b.takeovers.admit(p.Request, b.allowed(p.Request, b.permitted(p))))
		defer b.room.giveBack(p.Request, mine)
		for _, i := range mine {
			todo = append(todo, wish{r: p.Request, i: i})
		}
	}
	for try := 0; len(todo) > 0; try++ {
		if try == maxSwaps {
			for _, w := range todo {
				w.r.refuse([]int{w.i}, codec.CodeOverflow, reasonSwaps)
			}
			return
		}
		ops := make([]routing.BindOp, len(todo))
		for k, w := range todo {
			it := w.r.items[w.i]
			ops[k] = routing.BindOp{
				ID: it.id, Session: w.r.Session.ID(), Epoch: it.epoch, Expect: w.expect,
				Known: b.knows(w.r.Session, it), Certain: w.r.Policy == codec.PolicyRejectNew,
			}
		}
		ctx, cancel := b.dir.registryContext()
		results, err := b.dir.registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			for _, w := range todo {
				w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			}
			return
		}
		todo = b.applyBinds(todo, results)
	}
}

// knows reports whether this node has a binding in its table. Then a re-assert of it rests on more
// than its client's claim.
func (b *bindings) knows(s *routing.Session, it item) bool {
	route, ok := b.dir.table.Lookup([]byte(it.id))
	return ok && route.Session == s && route.Epoch == it.epoch
}

// allowed asks the hook about each ID.
func (b *bindings) allowed(r *Request, mine []int) []int {
	if b.dir.cfg.Bind == nil {
		return mine
	}
	var ok []int
	for k := 0; k < len(mine); k++ { // again behind an ID for which the hook did not return
		if !b.dir.apart("Bind", func() {
			for ; k < len(mine); k++ {
				i := mine[k]
				if r.items[i].allowed { // before it waited
					ok = append(ok, i)
					continue
				}
				if err := b.dir.cfg.Bind(r.Session.Identity(), r.items[i].id); err != nil {
					r.Results[i].Code = codec.CodeDenied
					r.refused.add(i, err.Error())
					continue
				}
				r.items[i].allowed = true
				ok = append(ok, i)
			}
		}) {
			r.Results[mine[k]].Code = codec.CodeDenied
		}
	}
	return ok
}

// applyBinds carries out what the registry's answers ask for. It returns those that must be retried
// to replace the incumbent.
func (b *bindings) applyBinds(todo []wish, results []routing.BindResult) (again []wish) {
	lives := b.incumbentsLive(todo, results)
	var former []wish              // they met what a former self of theirs has left behind
	var orphans []routing.UnbindOp // bound for sessions that have ended meanwhile
	for k, w := range todo {
		res := results[k]
		if res.Status != routing.Bound {
			b.dir.news.outdated(w.id(), res.Incumbent)
		}
		w.expect = res.Incumbent
		alive, known := lives[res.Incumbent.Session]
		switch res.Status {
		case routing.Bound:
			w.answer(codec.Result{Code: codec.CodeOK, Epoch: res.Epoch})
			if !b.bound(w.r, w.i, res) {
				orphans = append(orphans, routing.UnbindOp{ID: w.id(), Session: w.r.Session.ID(), Epoch: res.Epoch})
			}
		case routing.Taken:
			if w.r.Policy == codec.PolicyKickOld || known && !alive {
				again = append(again, w)
				continue
			}
			w.answer(stands(known, codec.CodeTaken, res.Incumbent.Epoch))
		case routing.Superseded:
			same := res.Incumbent.Epoch == w.r.items[w.i].epoch
			if same && known && !alive {
				former = append(former, w)
				continue
			}
			w.answer(stands(known || !same, codec.CodeSuperseded, res.Incumbent.Epoch))
		case routing.Invalid: // that proves nothing, so the session may ask again
			b.dir.cfg.Log.Debug("the registry refused an epoch that a client asserted",
				"session", w.r.Session.ID(), "id", w.id(), "epoch", w.r.items[w.i].epoch)
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
		case routing.Unanswered:
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
		default: // the session has ended
			w.answer(codec.Result{Code: codec.CodeDenied})
		}
	}
	if len(orphans) > 0 {
		ctx, cancel := b.dir.registryContext()
		defer cancel()
		_, _ = b.dir.registry.Unbind(ctx, orphans)
	}
	return append(again, b.removeFormerSelves(former)...)
}

// stands answers that a bind has met a binding that stands, if that is known. Otherwise the
// registry did not say whether the incumbent's session lives, and the client should retry.
func stands(known bool, code codec.Code, epoch uint64) codec.Result {
	if !known {
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	}
	return codec.Result{Code: code, Epoch: epoch}
}

// removeFormerSelves removes bindings that re-asserts with the same epoch met and whose sessions
// are over. Their clients began anew, and not all that their former sessions held is removed yet.
// It returns the re-asserts to retry.
func (b *bindings) removeFormerSelves(former []wish) (again []wish) {
	if len(former) == 0 {
		return nil
	}
	ops := make([]routing.UnbindOp, len(former))
	for k, w := range former {
		ops[k] = routing.UnbindOp{ID: w.id(), Session: w.expect.Session, Epoch: w.expect.Epoch}
	}
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	results, err := b.dir.registry.Unbind(ctx, ops)
	for k, w := range former {
		if err != nil || results[k].Unanswered {
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		again = append(again, w)
	}
	return again
}

// bound puts a binding into the table and notifies the session that it displaced. It returns false
// if the session of the binding has ended meanwhile. Then the binding must not stay in the registry
// either.
func (b *bindings) bound(r *Request, i int, res routing.BindResult) bool {
	id := r.items[i].id
	// before the table: if the session ends meanwhile, the end comes last
	b.dir.watcher.bound(id, res.Epoch)
	prev, status := b.room.bind(r, i, res.Epoch)
	if status == routing.Dead {
		b.dir.watcher.unbound(id, res.Epoch)
		r.Results[i] = codec.Result{Code: codec.CodeDenied}
		return false
	}
	if status == routing.Bound && prev.Session != nil {
		b.dir.news.kick(prev.Session, id, res.Epoch)
	}
	incumbent := res.Incumbent.Session
	if !incumbent.IsZero() {
		b.takeovers.took(&r.items[i])
		b.dir.news.remember(incumbent, id, res.Epoch)
	}
	if b.dir.alone() {
		return true
	}
	if r, ok := b.dir.remote.Lookup([]byte(id)); ok && r.Epoch < res.Epoch {
		b.dir.remote.Unbind(id, r.Session, r.Epoch) // it would be followed when the session leaves
	}
	if incumbent.IsZero() {
		return true
	}
	// The incumbent may be attached here, and have bound the ID at another node.
	if s := b.dir.table.Session(incumbent); s != nil && s != prev.Session {
		b.dir.news.kick(s, id, res.Epoch)
	}
	b.dir.news.expel(incumbent, id, res.Epoch)
	return true
}

// incumbentsLive returns whether the sessions that hold the IDs to bind still count: attached, or
// within their resume window (S16). If it matters, it asks the registry once for all sessions that
// this node does not know. The map lacks sessions of which the registry does not say.
func (b *bindings) incumbentsLive(todo []wish, results []routing.BindResult) map[routing.SessionID]bool {
	lives, asked := make(map[routing.SessionID]bool), make(map[routing.SessionID]bool)
	var asking []routing.SessionID
	for k, w := range todo {
		res := &results[k]
		matters := res.Status == routing.Taken && w.r.Policy != codec.PolicyKickOld ||
			res.Status == routing.Superseded && res.Incumbent.Epoch == w.r.items[w.i].epoch
		id := res.Incumbent.Session
		switch {
		case !matters || asked[id]:
		case b.dir.knownHere(id):
			lives[id] = true
		default:
			asked[id] = true
			asking = append(asking, id)
		}
	}
	if len(asking) == 0 {
		return lives
	}
	ctx, cancel := b.dir.registryContext()
	defer cancel()
	for id, at := range b.dir.whereAre(ctx, asking) {
		lives[id] = at.alive()
	}
	return lives
}
