package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// request is a bind, unbind or lookup frame whose IDs are being worked on in several lanes. Each
// lane fills in the results of its own IDs; the last one to finish answers.
type request struct {
	session *routing.Session
	loop    *loop
	handle  routing.Handle
	kind    codec.Kind // of the answer
	seq     uint64
	policy  codec.Policy
	since   time.Duration // when it came, on the engine's clock
	size    int           // what it is charged to its connection for
	items   []item
	results []codec.Result
	refused refusals
	left    atomic.Int32
}

// item is one ID of a request.
type item struct {
	id    string
	epoch uint64

	newInSession, newInNode bool // there is room kept for it; guarded by room.mu
}

const (
	// maxAsked bounds the requests of one connection that are under way, in bytes (S21). The node answers
	// overflow beyond it; the registry, or a hook, is not keeping up.
	maxAsked = 16 << 20
	// itemSize is about what an ID takes beside its bytes.
	itemSize = 64
)

// run is what a lane does with the indices of its items.
type run func(e *Engine, r *request, mine []int)

func (c *conn) handleBind(body []byte) {
	var f codec.Bind
	if err := codec.DecodeBind(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindBind)
		return
	}
	r := c.newRequest(codec.KindBound, f.Seq, &f.IDs)
	r.policy = f.Policy
	if c.loop.eng.drained(c.loop.now) {
		r.answerAll(codec.CodeDraining)
		return
	}
	c.spread(r, (*Engine).bind)
}

func (c *conn) handleUnbind(body []byte) {
	var f codec.Unbind
	if err := codec.DecodeUnbind(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindUnbind)
		return
	}
	c.spread(c.newRequest(codec.KindUnbound, f.Seq, &f.IDs), (*Engine).unbind)
}

func (c *conn) handleLookup(body []byte) {
	var f codec.Lookup
	if err := codec.DecodeLookup(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindLookup)
		return
	}
	c.spread(c.newRequest(codec.KindFound, f.Seq, &f.IDs), (*Engine).lookup)
}

func (c *conn) newRequest(kind codec.Kind, seq uint64, ids *codec.IDList) *request {
	n := ids.Len()
	r := &request{
		session: c.session, loop: c.loop, handle: c.handle(), kind: kind, seq: seq, since: c.loop.eng.clock(),
		items: make([]item, 0, n), results: make([]codec.Result, n),
	}
	for v, ok := ids.Next(); ok; v, ok = ids.Next() {
		r.items = append(r.items, item{id: string(v.ID), epoch: v.Epoch})
		r.size += itemSize + len(v.ID)
	}
	c.asked += r.size
	c.loop.worked(n)
	return r
}

// spread gives a request to the lanes, if its connection has not asked for too much already.
func (c *conn) spread(r *request, f run) {
	if c.asked > maxAsked {
		r.answerAll(codec.CodeOverflow)
		return
	}
	c.loop.eng.spread(r, f)
}

// spread deals a request's IDs out to their lanes.
func (e *Engine) spread(r *request, f run) {
	var mine [laneCount][]int
	lanes := 0
	for i, it := range r.items {
		if len(it.id) == 0 || len(it.id) > codec.MaxID {
			r.results[i].Code = codec.CodeBadID
			continue
		}
		n := e.lanes.of([]byte(it.id))
		if mine[n] == nil {
			lanes++
		}
		mine[n] = append(mine[n], i)
	}
	r.left.Store(int32(lanes) + 1)
	for n, indices := range mine {
		if indices == nil {
			continue
		}
		if !e.lanes.try(n, func() { e.runRequest(r, indices, f) }) {
			r.fill(indices, codec.CodeOverflow)
			r.done()
		}
	}
	r.done()
}

// runRequest does one lane's share of a request, unless it has waited for so long that this node may have been stopped
// meanwhile, or the registry be away: who asked has given up, and others may have bound the IDs since (S24).
func (e *Engine) runRequest(r *request, mine []int, f run) {
	if e.clock()-r.since > e.cfg.LoopGap {
		r.fill(mine, codec.CodeRegistryUnavailable)
	} else {
		f(e, r, mine)
	}
	r.done()
}

// done answers when the last lane is through.
func (r *request) done() {
	if r.left.Add(-1) > 0 {
		return
	}
	if e := r.loop.eng; r.kind == codec.KindUnbound && len(e.loops) > 1 {
		e.afterMail(r.answer) // what other loops have on the way for the IDs comes before "unbound"
		return
	}
	r.answer()
}

// answer writes the results.
func (r *request) answer() {
	r.loop.post(func() {
		if c := r.loop.conn(r.handle); c != nil {
			c.asked -= r.size
			c.answerWatch(r)
			if r.kind == codec.KindBound {
				c.wroteControl(codec.AppendBound(c.out(), r.seq, r.results, r.refused.reasons))
			} else {
				c.wroteControl(codec.AppendResults(c.out(), r.kind, r.seq, r.results))
			}
		}
	})
}

// refusals is why the hook has refused IDs of a request. Several lanes add to it.
type refusals struct {
	mu      sync.Mutex
	reasons []codec.Reason // guarded by mu; read by the loop when the lanes are through
	size    int            // guarded by mu
}

// maxReasons bounds the bytes of the reasons in one answer, which has to fit into a frame: the rest
// is left out.
const maxReasons = 32 << 10

func (f *refusals) add(index int, text string) {
	text = text[:min(len(text), codec.MaxReason+1)] // what is over is cut off at the border of a character
	f.mu.Lock()
	defer f.mu.Unlock()
	const perReason = 16 // more than msgpack takes
	if f.size += perReason + len(text); f.size <= maxReasons {
		f.reasons = append(f.reasons, codec.Reason{Index: uint64(index), Text: []byte(text)})
	}
}

func (r *request) fill(indices []int, code codec.Code) {
	for _, i := range indices {
		r.results[i].Code = code
	}
}

func (r *request) answerAll(code codec.Code) {
	for i := range r.results {
		r.results[i].Code = code
	}
	r.left.Store(1)
	r.done()
}

// maxSwaps bounds how often a bind that replaces an incumbent finds yet another one.
const maxSwaps = 8

// bind asks the registry for the IDs and puts its answers into the table.
func (e *Engine) bind(r *request, mine []int) {
	if r.policy == codec.PolicyRejectNew && e.registry.Rebuilding() {
		r.fill(mine, codec.CodeRegistryUnavailable) // who holds an ID is not known for now (S18)
		return
	}
	expect := make([]routing.Binding, len(r.items))
	todo := e.keepRoom(r, e.allowed(r, mine))
	defer e.giveRoomBack(r, todo)
	for try := 0; len(todo) > 0; try++ {
		if try == maxSwaps {
			r.fill(todo, codec.CodeOverflow)
			return
		}
		ops := make([]routing.BindOp, len(todo))
		for k, i := range todo {
			ops[k] = routing.BindOp{
				ID: r.items[i].id, Session: r.session.ID(), Epoch: r.items[i].epoch, Expect: expect[i],
				Known: e.knows(r.session, r.items[i]), Certain: r.policy == codec.PolicyRejectNew,
			}
		}
		ctx, cancel := e.registryContext()
		results, err := e.registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			r.fill(todo, codec.CodeRegistryUnavailable)
			return
		}
		var again []int
		for k, i := range todo {
			if e.applyBind(r, i, results[k]) {
				expect[i] = results[k].Incumbent
				again = append(again, i)
			}
		}
		todo = again
	}
}

// knows reports whether this node has a binding in its table, so that a re-assert of it is more than
// its client's word.
func (e *Engine) knows(s *routing.Session, it item) bool {
	route, ok := e.table.Lookup([]byte(it.id))
	return ok && route.Session == s && route.Epoch == it.epoch
}

// allowed asks the hook about each ID.
func (e *Engine) allowed(r *request, mine []int) []int {
	if e.cfg.Hooks.Bind == nil {
		return mine
	}
	var ok []int
	for k := 0; k < len(mine); k++ { // again behind an ID for which the hook did not return
		if !e.apart("Bind", func() {
			for ; k < len(mine); k++ {
				i := mine[k]
				if err := e.cfg.Hooks.Bind(r.session.Identity(), r.items[i].id); err != nil {
					r.results[i].Code = codec.CodeDenied
					r.refused.add(i, err.Error())
					continue
				}
				ok = append(ok, i)
			}
		}) {
			r.results[mine[k]].Code = codec.CodeDenied
		}
	}
	return ok
}

// applyBind does what the registry's answer for one ID asks for. True: try again, to replace the incumbent.
func (e *Engine) applyBind(r *request, i int, res routing.BindResult) bool {
	if res.Status != routing.Bound {
		e.outdated(r.items[i].id, res.Incumbent)
	}
	switch res.Status {
	case routing.Bound:
		r.results[i] = codec.Result{Code: codec.CodeOK, Epoch: res.Epoch}
		e.bound(r, i, res)
	case routing.Taken:
		if r.policy == codec.PolicyKickOld {
			return true
		}
		lives, known := e.sessionLives(res.Incumbent.Session)
		if known && !lives {
			return true
		}
		r.results[i] = standing(known, codec.CodeTaken, res.Incumbent.Epoch)
	case routing.Superseded:
		known := true
		if res.Incumbent.Epoch == r.items[i].epoch {
			var removed bool
			if removed, known = e.removeFormerSelf(r.items[i].id, res.Incumbent); removed {
				return true
			}
		}
		r.results[i] = standing(known, codec.CodeSuperseded, res.Incumbent.Epoch)
	case routing.Invalid: // which is no proof that the session does not hold the ID, so it may ask again
		e.cfg.Logger.Debug("the registry does not believe an epoch that a client says it has",
			"session", r.session.ID(), "id", r.items[i].id, "epoch", r.items[i].epoch)
		r.results[i].Code = codec.CodeRegistryUnavailable
	case routing.Unanswered:
		r.results[i].Code = codec.CodeRegistryUnavailable
	default: // the session has ended
		r.results[i].Code = codec.CodeDenied
	}
	return false
}

// standing says that a bind has met a binding that stands, if that is known: else the registry did
// not say whether its session lives, and the client is to try again.
func standing(known bool, code codec.Code, epoch uint64) codec.Result {
	if !known {
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	}
	return codec.Result{Code: code, Epoch: epoch}
}

// removeFormerSelf takes away a binding that a re-assert with the same epoch met, if its session is over: the client began
// anew, and what its former session held is not all removed yet. Known is false if the registry did
// not say whether it is over.
func (e *Engine) removeFormerSelf(id string, b routing.Binding) (removed, known bool) {
	lives, known := e.sessionLives(b.Session)
	if !known || lives {
		return false, known
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	_, err := e.registry.Unbind(ctx, []routing.UnbindOp{{ID: id, Session: b.Session, Epoch: b.Epoch}})
	return err == nil, err == nil
}

// bound puts a binding into the table and tells the session that it displaced.
func (e *Engine) bound(r *request, i int, res routing.BindResult) {
	id := r.items[i].id
	e.watcher.bound(id, res.Epoch) // before the table: if the session ends meanwhile, that is told after it
	prev, status := e.bindInRoom(r, i, res.Epoch)
	if status == routing.Dead { // the session ended meanwhile, so its binding must not stay behind
		ctx, cancel := e.registryContext()
		defer cancel()
		_, _ = e.registry.Unbind(ctx, []routing.UnbindOp{{ID: id, Session: r.session.ID(), Epoch: res.Epoch}})
		e.watcher.unbound(id, res.Epoch)
		r.results[i] = codec.Result{Code: codec.CodeDenied}
		return
	}
	if status == routing.Bound && prev.Session != nil {
		e.kick(prev.Session, id, res.Epoch)
	}
	incumbent := res.Incumbent.Session
	if !incumbent.IsZero() {
		e.remember(incumbent, id, res.Epoch)
	}
	if e.cluster == nil {
		return
	}
	if r, ok := e.cluster.remote.Lookup([]byte(id)); ok && r.Epoch < res.Epoch {
		e.cluster.remote.Unbind(id, r.Session, r.Epoch) // it would be followed when the session leaves
	}
	if incumbent.IsZero() {
		return
	}
	if s := e.table.Session(incumbent); s != nil && s != prev.Session { // attached here, with an ID that it bound elsewhere
		e.kick(s, id, res.Epoch)
	}
	e.cluster.expel(incumbent, id, res.Epoch)
}

// sessionLives reports whether an incumbent still counts: attached, or within its resume window
// (S16). Known is false if the registry does not say.
func (e *Engine) sessionLives(id routing.SessionID) (lives, known bool) {
	if e.table.Session(id) != nil {
		return true, true
	}
	if e.cluster != nil && e.cluster.remote.Session(id) != nil {
		return true, true
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	p, err := e.registry.Presence(ctx, id)
	return !p.Dead && slices.ContainsFunc(p.Nodes, func(at routing.Presence) bool { return !e.Gone(at) }), err == nil
}

func (e *Engine) unbind(r *request, mine []int) {
	ops := make([]routing.UnbindOp, len(mine))
	for k, i := range mine {
		ops[k] = routing.UnbindOp{ID: r.items[i].id, Session: r.session.ID(), Epoch: r.items[i].epoch}
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	results, err := e.registry.Unbind(ctx, ops)
	if err != nil {
		r.fill(mine, codec.CodeRegistryUnavailable)
		return
	}
	var stay []int
	var over []routing.UnbindOp
	for k, i := range mine {
		if results[k].Unanswered {
			r.results[i].Code = codec.CodeRegistryUnavailable
			continue
		}
		known := e.table.Unbind(ops[k].ID, r.session, ops[k].Epoch)
		if known || results[k].Removed { // else the client may have made up the epoch
			over = append(over, ops[k])
		}
		if !results[k].Removed {
			stay = append(stay, i)
			continue
		}
		e.watcher.unbound(ops[k].ID, ops[k].Epoch)
	}
	e.released(r.session, over)
	e.explain(ctx, r, stay)
}

// explain says of IDs that were not unbound what stands instead.
func (e *Engine) explain(ctx context.Context, r *request, indices []int) {
	if len(indices) == 0 {
		return
	}
	ids := make([]string, len(indices))
	for k, i := range indices {
		ids[k] = r.items[i].id
	}
	found, err := e.registry.Lookup(ctx, ids)
	if err != nil {
		r.fill(indices, codec.CodeRegistryUnavailable)
		return
	}
	for k, i := range indices {
		r.results[i] = asResult(found[k], codec.CodeSuperseded)
	}
}

// release removes a binding that its own session has disowned.
func (e *Engine) release(s *routing.Session, id string, epoch uint64) {
	// If the lane is full, the next message that comes back asks again.
	e.lanes.try(e.lanes.of([]byte(id)), func() {
		ctx, cancel := e.registryContext()
		defer cancel()
		op := []routing.UnbindOp{{ID: id, Session: s.ID(), Epoch: epoch}}
		results, err := e.registry.Unbind(ctx, op)
		if err != nil {
			return
		}
		if known := e.table.Unbind(id, s, epoch); known || results[0].Removed {
			e.released(s, op)
		}
		if results[0].Removed {
			e.watcher.unbound(id, epoch)
		}
	})
}

// lookup answers from the table where it can, and asks the registry for the rest: also for the IDs
// of a session that is not attached here any more, which may be attached elsewhere, or have lost
// them.
func (e *Engine) lookup(r *request, mine []int) {
	var unknown []int
	var ids []string
	for _, i := range mine {
		route, ok := e.table.Lookup([]byte(r.items[i].id))
		attached := ok && len(route.Session.Handles()) > 0
		if !attached && (!ok || e.cluster != nil) {
			unknown = append(unknown, i)
			ids = append(ids, r.items[i].id)
			continue
		}
		r.results[i] = codec.Result{Code: codec.CodeOK, Epoch: route.Epoch}
		if !attached {
			r.results[i].Code = codec.CodeUnreachable
		}
	}
	if len(unknown) == 0 {
		return
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	found, err := e.registry.Lookup(ctx, ids)
	if err != nil {
		r.fill(unknown, codec.CodeRegistryUnavailable)
		return
	}
	for k, i := range unknown {
		bound := codec.CodeUnreachable
		if e.attached(found[k].Binding.Session) {
			bound = codec.CodeOK
		}
		r.results[i] = asResult(found[k], bound)
		e.watcher.heardFound(ids[k], r.results[i])
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
