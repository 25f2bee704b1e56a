package engine

import (
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
	handle  routing.Handle // the connection that it is on account of
	kind    codec.Kind     // of the answer; 0: nobody waits for one
	seq     uint64
	policy  codec.Policy
	since   time.Duration // when it came, on the engine's clock
	size    int           // what it is charged to its connection for
	charged bool          // to its connection, though nobody waits for an answer
	ended   *atomic.Bool  // its connection has closed; nil: that makes no difference
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
	// The lane owns these.
	counted bool // its takeover has been counted, because it has waited (see takeovers)
	took    bool // it has displaced another session
	allowed bool // the hook has allowed it
}

// verb is what lanes do with the IDs of a request.
type verb uint8

const (
	verbBind verb = iota + 1
	verbUnbind
	verbLookup
	verbWatch
	verbRelease
	verbLateBind // a bind that has waited, see takeovers
)

// itemSize is about what an ID takes beside its bytes.
const itemSize = 64

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
	c.spread(r, verbBind)
}

func (c *conn) handleUnbind(body []byte) {
	var f codec.Unbind
	if err := codec.DecodeUnbind(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindUnbind)
		return
	}
	c.spread(c.newRequest(codec.KindUnbound, f.Seq, &f.IDs), verbUnbind)
}

func (c *conn) handleLookup(body []byte) {
	var f codec.Lookup
	if err := codec.DecodeLookup(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindLookup)
		return
	}
	c.spread(c.newRequest(codec.KindFound, f.Seq, &f.IDs), verbLookup)
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
	c.chargeRequest(r)
	c.loop.worked(n)
	return r
}

// spread gives a request to the lanes, if its connection has not asked for too much already.
func (c *conn) spread(r *request, v verb) {
	if !c.mayAsk(r) {
		return
	}
	c.loop.eng.spread(r, v)
}

// spread deals a request's IDs out to their lanes.
func (e *Engine) spread(r *request, v verb) {
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
		if !e.lanes.try(n, account{conn: r.handle}, v, part{r, indices}) {
			r.refuse(indices, codec.CodeOverflow, reasonRequests)
			r.done()
		}
	}
	r.done()
}

// work does parts of requests together.
func (e *Engine) work(v verb, parts []part) {
	if v == verbLateBind {
		countedBefore(parts)
		defer e.takeovers.payBack(parts)
		v = verbBind
	}
	timely := parts[:0:0]
	for _, p := range parts {
		if e.stillWanted(p) {
			timely = append(timely, p)
		}
	}
	if len(timely) > 0 {
		switch v {
		case verbBind:
			e.bindApart(timely)
		case verbUnbind:
			e.unbind(timely)
		case verbLookup:
			e.lookup(timely)
		case verbWatch:
			e.askWatched(timely)
		case verbRelease:
			e.release(timely)
		}
	}
	for _, p := range parts {
		p.done()
	}
}

// stillWanted reports whether a part of a request is still to be done. It is not if it has waited for
// so long that this node may have been stopped meanwhile, or the registry be away: who asked has given
// up, and others may have bound the IDs since (S24). Nor is it if the connection has closed: its client
// binds again what it wants to.
func (e *Engine) stillWanted(p part) bool {
	switch {
	case p.ended != nil && p.ended.Load():
	case e.clock()-p.since <= e.cfg.LoopGap:
		return true
	}
	p.fill(p.mine, codec.CodeRegistryUnavailable)
	return false
}

// done answers when the last lane is through.
func (r *request) done() {
	if r.left.Add(-1) > 0 {
		return
	}
	r.loop.eng.asked.Add(-int64(r.size))
	if r.kind == 0 {
		r.releaseDone()
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
			c.out.wroteControl(codec.AppendReasons(c.out.buf(), r.kind, r.seq, r.results, r.refused.reasons))
		}
	})
}

// refusals is why IDs of a request were refused. Several lanes add to it.
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

// refuse is fill with a reason.
func (r *request) refuse(indices []int, code codec.Code, reason string) {
	r.fill(indices, code)
	for _, i := range indices {
		r.refused.add(i, reason)
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

// wish is one ID that is being bound.
type wish struct {
	r      *request
	i      int
	expect routing.Binding
}

func (w *wish) id() string { return w.r.items[w.i].id }

func (w *wish) answer(v codec.Result) { w.r.results[w.i] = v }

// bindApart binds what several connections ask for. Those that ask for the same ID do so one after the
// other: else each would find another incumbent than it expects.
func (e *Engine) bindApart(parts []part) {
	seen := make(map[string]bool)
	begin := 0
	for k, p := range parts {
		again := slices.ContainsFunc(p.mine, func(i int) bool { return seen[p.items[i].id] })
		if again && k > begin {
			e.bind(parts[begin:k])
			begin = k
			clear(seen)
		}
		for _, i := range p.mine {
			seen[p.items[i].id] = true
		}
	}
	e.bind(parts[begin:])
}

// bind asks the registry for the IDs and puts its answers into the table.
func (e *Engine) bind(parts []part) {
	var todo []wish
	for _, p := range parts {
		if p.policy == codec.PolicyRejectNew && e.registry.Rebuilding() {
			p.fill(p.mine, codec.CodeRegistryUnavailable) // who holds an ID is not known for now (S18)
			continue
		}
		mine := e.keepRoom(p.request, e.takeovers.admit(p.request, e.allowed(p.request, p.mine)))
		defer e.giveRoomBack(p.request, mine)
		for _, i := range mine {
			todo = append(todo, wish{r: p.request, i: i})
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
				ID: it.id, Session: w.r.session.ID(), Epoch: it.epoch, Expect: w.expect,
				Known: e.knows(w.r.session, it), Certain: w.r.policy == codec.PolicyRejectNew,
			}
		}
		ctx, cancel := e.registryContext()
		results, err := e.registry.Bind(ctx, ops)
		cancel()
		if err != nil {
			for _, w := range todo {
				w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			}
			return
		}
		todo = e.applyBinds(todo, results)
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
				if r.items[i].allowed { // before it waited
					ok = append(ok, i)
					continue
				}
				if err := e.cfg.Hooks.Bind(r.session.Identity(), r.items[i].id); err != nil {
					r.results[i].Code = codec.CodeDenied
					r.refused.add(i, err.Error())
					continue
				}
				r.items[i].allowed = true
				ok = append(ok, i)
			}
		}) {
			r.results[mine[k]].Code = codec.CodeDenied
		}
	}
	return ok
}

// applyBinds does what the registry's answers ask for. It returns those that are to be tried again, to
// replace the incumbent.
func (e *Engine) applyBinds(todo []wish, results []routing.BindResult) (again []wish) {
	lives := e.incumbentsLive(todo, results)
	var former []wish              // they met what a former self of theirs has left behind
	var orphans []routing.UnbindOp // bound for sessions that have ended meanwhile
	for k, w := range todo {
		res := results[k]
		if res.Status != routing.Bound {
			e.outdated(w.id(), res.Incumbent)
		}
		w.expect = res.Incumbent
		alive, known := lives[res.Incumbent.Session]
		switch res.Status {
		case routing.Bound:
			w.answer(codec.Result{Code: codec.CodeOK, Epoch: res.Epoch})
			if !e.bound(w.r, w.i, res) {
				orphans = append(orphans, routing.UnbindOp{ID: w.id(), Session: w.r.session.ID(), Epoch: res.Epoch})
			}
		case routing.Taken:
			if w.r.policy == codec.PolicyKickOld || known && !alive {
				again = append(again, w)
				continue
			}
			w.answer(standing(known, codec.CodeTaken, res.Incumbent.Epoch))
		case routing.Superseded:
			same := res.Incumbent.Epoch == w.r.items[w.i].epoch
			if same && known && !alive {
				former = append(former, w)
				continue
			}
			w.answer(standing(known || !same, codec.CodeSuperseded, res.Incumbent.Epoch))
		case routing.Invalid: // which is no proof that the session does not hold the ID, so it may ask again
			e.cfg.Logger.Debug("the registry does not believe an epoch that a client says it has",
				"session", w.r.session.ID(), "id", w.id(), "epoch", w.r.items[w.i].epoch)
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
		case routing.Unanswered:
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
		default: // the session has ended
			w.answer(codec.Result{Code: codec.CodeDenied})
		}
	}
	if len(orphans) > 0 {
		ctx, cancel := e.registryContext()
		defer cancel()
		_, _ = e.registry.Unbind(ctx, orphans)
	}
	return append(again, e.removeFormerSelves(former)...)
}

// standing says that a bind has met a binding that stands, if that is known: else the registry did
// not say whether its session lives, and the client is to try again.
func standing(known bool, code codec.Code, epoch uint64) codec.Result {
	if !known {
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	}
	return codec.Result{Code: code, Epoch: epoch}
}

// removeFormerSelves takes away bindings that re-asserts with the same epoch met, and whose sessions are
// over: their clients began anew, and what their former sessions held is not all removed yet. It
// returns those that are to be tried again.
func (e *Engine) removeFormerSelves(former []wish) (again []wish) {
	if len(former) == 0 {
		return nil
	}
	ops := make([]routing.UnbindOp, len(former))
	for k, w := range former {
		ops[k] = routing.UnbindOp{ID: w.id(), Session: w.expect.Session, Epoch: w.expect.Epoch}
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	results, err := e.registry.Unbind(ctx, ops)
	for k, w := range former {
		if err != nil || results[k].Unanswered {
			w.answer(codec.Result{Code: codec.CodeRegistryUnavailable})
			continue
		}
		again = append(again, w)
	}
	return again
}

// bound puts a binding into the table and tells the session that it displaced. It returns false if the
// session of the binding has ended meanwhile: then it must not stay in the registry either.
func (e *Engine) bound(r *request, i int, res routing.BindResult) bool {
	id := r.items[i].id
	e.watcher.bound(id, res.Epoch) // before the table: if the session ends meanwhile, that is told after it
	prev, status := e.bindInRoom(r, i, res.Epoch)
	if status == routing.Dead {
		e.watcher.unbound(id, res.Epoch)
		r.results[i] = codec.Result{Code: codec.CodeDenied}
		return false
	}
	if status == routing.Bound && prev.Session != nil {
		e.kick(prev.Session, id, res.Epoch)
	}
	incumbent := res.Incumbent.Session
	if !incumbent.IsZero() {
		e.takeovers.took(&r.items[i])
		e.remember(incumbent, id, res.Epoch)
	}
	if e.cluster == nil {
		return true
	}
	if r, ok := e.cluster.remote.Lookup([]byte(id)); ok && r.Epoch < res.Epoch {
		e.cluster.remote.Unbind(id, r.Session, r.Epoch) // it would be followed when the session leaves
	}
	if incumbent.IsZero() {
		return true
	}
	if s := e.table.Session(incumbent); s != nil && s != prev.Session { // attached here, with an ID that it bound elsewhere
		e.kick(s, id, res.Epoch)
	}
	e.cluster.expel(incumbent, id, res.Epoch)
	return true
}

// incumbentsLive says of the sessions that hold what was to be bound whether they still count: attached,
// or within their resume window (S16). It asks the registry once for all that this node does not know,
// if it matters. A session of which the registry does not say is not in the map.
func (e *Engine) incumbentsLive(todo []wish, results []routing.BindResult) map[routing.SessionID]bool {
	lives, asked := make(map[routing.SessionID]bool), make(map[routing.SessionID]bool)
	var asking []routing.SessionID
	for k, w := range todo {
		res := &results[k]
		matters := res.Status == routing.Taken && w.r.policy != codec.PolicyKickOld ||
			res.Status == routing.Superseded && res.Incumbent.Epoch == w.r.items[w.i].epoch
		id := res.Incumbent.Session
		switch {
		case !matters || asked[id]:
		case e.table.Session(id) != nil, e.cluster != nil && e.cluster.remote.Session(id) != nil:
			lives[id] = true
		default:
			asked[id] = true
			asking = append(asking, id)
		}
	}
	if len(asking) == 0 {
		return lives
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	presences, err := e.registry.Presences(ctx, asking)
	if err != nil {
		return lives
	}
	for i, p := range presences {
		if !p.Unknown {
			lives[asking[i]] = !p.Dead && slices.ContainsFunc(p.Nodes, func(at routing.Presence) bool { return !e.Gone(at) })
		}
	}
	return lives
}
