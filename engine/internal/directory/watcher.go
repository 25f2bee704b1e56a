package directory

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// WatchBatch is how many watched IDs there are at most in one question to the registry, and in one
// step of work that may take long.
const WatchBatch = 512

const (
	// watchRate is how many watched IDs a second the registry is asked for at most, unless the
	// period is so long that it has to be fewer. If there are more, a round takes longer.
	watchRate = 50_000
	// watchCost is about how many bytes a watch takes.
	watchCost = 180
	// watchPart is the part of the node's free watches that one connection may have.
	watchPart = 4
)

// watcher knows who holds the IDs that the clients of this node watch. It asks the registry for all
// of them within Config.WatchPeriod (see watchPeriod), in batches, one question at a time. It hears
// at once, as a hint, what this node does itself.
//
// A hint of a bind or unbind counts: it is given in the lane of the ID, where the registry's
// answers come in order (S12). An answer to a question of the watcher may be older than a hint that
// came meanwhile. Then the answer does not count, and the watcher asks again. All other hints are
// only a reason to ask soon.
type watcher struct {
	dir  *Directory
	wake chan struct{} // of capacity 1
	// refused counts watches that there was no room for.
	refused atomic.Uint64
	n       atomic.Int64 // len(order); a node on which nobody watches looks no further

	// Lock order: mu before a loop's inbox.
	mu  sync.Mutex
	ids map[string]*watchedID // guarded by mu
	// guarded by mu; all of ids, those before next have been asked for in this round
	order []*watchedID
	next  int          // guarded by mu
	soon  []*watchedID // guarded by mu; to be asked for out of turn
	ended []*Watches   // guarded by mu; to be taken apart
	// watches is how many there are of all connections. Guarded by mu.
	watches int
	most    int // guarded by mu; how many there may be
	// identities says how many of them each identity has that has a name. Guarded by mu.
	identities map[string]int

	absent map[routing.SessionID]*absence // guarded by mu
}

// watchedID is an ID that a client watches. name is static, and watcher.mu guards the other fields.
type watchedID struct {
	name    string
	watches []*watch
	epoch   uint64 // of the binding; if there is none, of the last one
	at      int32  // index in watcher.order; -1: nobody watches it any more
	version uint32 // grows with each hint and each answer that counts
	known   bool   // else the registry has not said yet
	bound   bool
	soon    bool // it is in watcher.soon
}

// absence is a session that holds watched IDs and is not known to this node. watcher.mu guards it.
type absence struct {
	since time.Time // when it was first noticed
	asked time.Time // when the registry was last asked for it
	lives bool      // what came of that
}

func newWatcher(d *Directory) *watcher {
	return &watcher{dir: d, most: d.cfg.MaxNodeWatched, wake: make(chan struct{}, 1), ids: make(map[string]*watchedID),
		identities: make(map[string]int), absent: make(map[routing.SessionID]*absence)}
}

// result returns what clients hear of an ID.
func (id *watchedID) result() codec.Result {
	switch {
	case !id.known:
		return codec.Result{Code: codec.CodeRegistryUnavailable}
	case id.bound:
		return codec.Result{Code: codec.CodeOK, Epoch: id.epoch}
	}
	return codec.Result{Code: codec.CodeNoRoute}
}

// watched returns the ID of that name. The caller holds mu.
func (w *watcher) watched(name string) *watchedID {
	id := w.ids[name]
	if id == nil {
		id = &watchedID{name: name, at: int32(len(w.order))}
		w.ids[name] = id
		w.order = append(w.order, id)
		w.n.Add(1)
	}
	return id
}

// drop removes a watch from its ID. The caller holds mu.
func (w *watcher) drop(v *watch) {
	v.dropped = true
	w.count(v.list, -1)
	id := v.id
	last := id.watches[len(id.watches)-1]
	id.watches[v.at], last.at = last, v.at
	id.watches[len(id.watches)-1] = nil
	id.watches = id.watches[:len(id.watches)-1]
	if len(id.watches) == 0 {
		w.forget(id)
	}
}

// forget removes an ID that nobody watches any more. The caller holds mu.
func (w *watcher) forget(id *watchedID) {
	delete(w.ids, id.name)
	w.n.Add(-1)
	hole := int(id.at)
	if hole < w.next { // or one that this round has yet to ask for would be passed over
		w.next--
		w.move(w.next, hole)
		hole = w.next
	}
	end := len(w.order) - 1
	if hole < end {
		w.move(end, hole)
	}
	w.order[end] = nil
	w.order = w.order[:end]
	id.at = -1
}

func (w *watcher) move(from, to int) {
	w.order[to] = w.order[from]
	w.order[to].at = int32(to)
}

// set notes who holds an ID, and notifies the connections that do not know it. The caller holds mu.
func (w *watcher) set(id *watchedID, bound bool, epoch uint64) {
	id.version++
	if id.known && id.bound == bound && id.epoch == epoch {
		return
	}
	id.known, id.bound, id.epoch = true, bound, epoch
	for _, v := range id.watches {
		w.enqueue(v)
	}
}

// bound is the hint that the registry has an ID bound under epoch. Call it in the ID's lane.
func (w *watcher) bound(name string, epoch uint64) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.ids[name]; id != nil && (!id.known || epoch >= id.epoch) {
		w.set(id, true, epoch)
	}
}

// unbound is the hint that the registry has removed the binding with that epoch. Call it in the
// ID's lane, or at the end of the session.
func (w *watcher) unbound(name string, epoch uint64) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.ids[name]; id != nil && (!id.known || id.bound && epoch == id.epoch) {
		w.set(id, false, epoch)
	}
}

// sessionEnded is the hint that a session has ended that had these bindings.
func (w *watcher) sessionEnded(all []routing.BoundID) {
	for _, b := range all {
		w.unbound(b.ID, b.Epoch)
	}
}

// heard is the hint that somebody has said something about an ID. It may be old. If this node does
// not know it yet, the watcher asks the registry soon.
func (w *watcher) heard(name string, bound bool, epoch uint64) {
	if w.n.Load() == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if id := w.ids[name]; id != nil && (!id.known || id.bound != bound || bound && id.epoch != epoch) {
		w.askSoon(id)
	}
}

// heardFound is heard for the result of a lookup.
func (w *watcher) heardFound(name string, r codec.Result) {
	if r.Code != codec.CodeRegistryUnavailable {
		w.heard(name, r.Code != codec.CodeNoRoute, r.Epoch)
	}
}

// doubt forgets what is known, because the node was stopped for a while (S24).
func (w *watcher) doubt() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range w.order {
		id.known = false
		id.version++
	}
	clear(w.absent)
}

// askSoon makes run ask the registry for an ID out of turn. The caller holds mu.
func (w *watcher) askSoon(id *watchedID) {
	if !id.soon {
		id.soon = true
		w.soon = append(w.soon, id)
		wake.Nudge(w.wake)
	}
}

// run asks for all IDs again and again until ctx ends. If the registry is the engine's own, hints
// say all that happens, and run asks only out of turn.
func (w *watcher) run(ctx context.Context) {
	turn := time.NewTimer(w.dir.cfg.WatchPeriod)
	defer turn.Stop()
	if w.dir.cfg.Own {
		turn.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
			w.takeApart()
			for batch := w.takeSoon(); len(batch) > 0 && ctx.Err() == nil; batch = w.takeSoon() {
				w.ask(ctx, batch)
			}
		case <-turn.C:
			began := time.Now()
			batch, pause := w.takeTurn()
			w.ask(ctx, batch)
			turn.Reset(max(0, pause-time.Since(began)))
		}
	}
}

// takeApart removes the watches of connections that have closed. It works in parts, so that nobody
// waits long for mu.
func (w *watcher) takeApart() {
	for w.takeApartSome() {
	}
}

func (w *watcher) takeApartSome() (more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ended) == 0 {
		w.ended = nil
		return false
	}
	list := w.ended[0]
	n := 0
	for id, v := range list.all {
		if n++; n > WatchBatch {
			return true
		}
		delete(list.all, id)
		w.drop(v)
	}
	w.ended = w.ended[1:]
	return true
}

func (w *watcher) takeSoon() []*watchedID {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(len(w.soon), WatchBatch)
	batch := w.soon[:n:n]
	if w.soon = w.soon[n:]; len(w.soon) == 0 {
		w.soon = nil
	}
	for _, id := range batch {
		id.soon = false
	}
	return batch
}

// total returns how many watches there are.
func (w *watcher) total() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(w.watches)
}

// watchPeriod is how long a round takes: as configured, or longer if there are so many IDs that the
// registry would have to answer more than watchRate.
func watchPeriod(configured time.Duration, ids int) time.Duration {
	return max(configured, time.Duration(ids)*time.Second/watchRate)
}

// takeTurn returns the IDs whose turn it is to be asked for, and the pause before the next turn.
// All IDs have their turn within a period.
func (w *watcher) takeTurn() (batch []*watchedID, pause time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	period := watchPeriod(w.dir.cfg.WatchPeriod, len(w.order))
	if w.next >= len(w.order) {
		w.next = 0
		for session, a := range w.absent {
			if time.Since(a.asked) > 4*period { // nobody has met it since
				delete(w.absent, session)
			}
		}
	}
	turns := max(1, (len(w.order)+WatchBatch-1)/WatchBatch)
	end := min(w.next+(len(w.order)+turns-1)/turns, len(w.order))
	batch = slices.Clone(w.order[w.next:end])
	w.next = end
	return batch, period / time.Duration(turns)
}

// askFor asks for the IDs of watch frames, in their lane.
func (w *watcher) askFor(parts []part) {
	var batch []*watchedID
	w.mu.Lock()
	for _, p := range parts {
		for _, i := range p.mine {
			if id := w.ids[p.items[i].id]; id != nil {
				batch = append(batch, id)
			}
		}
	}
	w.mu.Unlock()
	ctx, cancel := w.dir.registryContext()
	defer cancel()
	w.ask(ctx, batch)
}

// ask asks the registry who holds IDs, and notes the answer. If there is no answer, nothing changes
// (S18).
func (w *watcher) ask(ctx context.Context, batch []*watchedID) {
	if len(batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, ResolveTimeout)
	defer cancel()
	names, versions := make([]string, len(batch)), make([]uint32, len(batch))
	w.mu.Lock()
	for i, id := range batch {
		names[i], versions[i] = id.name, id.version
	}
	w.mu.Unlock()
	found, bound := w.find(ctx, names)
	var again []int
	for i := range found {
		if held := found[i].Binding != (routing.Binding{}); held && !found[i].Unknown && !bound[i] {
			again = append(again, i)
		}
	}
	// These sessions were found dead after their IDs had been looked up. Others may hold the IDs by
	// now.
	if len(again) > 0 {
		doubtful := make([]string, len(again))
		for k, i := range again {
			doubtful[k] = names[i]
		}
		foundNow, boundNow := w.find(ctx, doubtful)
		for k, i := range again {
			if !boundNow[k] && foundNow[k].Binding != (routing.Binding{}) && foundNow[k].Binding != found[i].Binding {
				foundNow[k].Unknown = true // that session is dead, too: wait for the next round
			}
			found[i], bound[i] = foundNow[k], boundNow[k]
		}
	}
	w.note(batch, versions, found, bound)
}

// find asks the registry who holds IDs, and whether those sessions live.
func (w *watcher) find(ctx context.Context, names []string) (found []routing.LookupResult, bound []bool) {
	bound = make([]bool, len(names))
	found, err := w.dir.registry.Lookup(ctx, names)
	if err != nil {
		found = make([]routing.LookupResult, len(names))
		for i := range found {
			found[i].Unknown = true
		}
		return found, bound
	}
	var holding []routing.SessionID
	for i := range found {
		w.dir.HeardOfBinding([]byte(names[i]), found[i].Binding)
		if b := found[i].Binding; b != (routing.Binding{}) && !found[i].Unknown {
			holding = append(holding, b.Session)
		}
	}
	lives := w.lives(ctx, holding)
	for i := range found {
		if f := &found[i]; f.Binding != (routing.Binding{}) && !f.Unknown {
			alive, known := lives[f.Binding.Session]
			bound[i], f.Unknown = alive, !known
		}
	}
	return found, bound
}

func (w *watcher) note(batch []*watchedID, versions []uint32, found []routing.LookupResult, bound []bool) {
	rebuilding := w.dir.registry.Rebuilding()
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range batch {
		epoch := found[i].Binding.Epoch
		switch {
		case id.at < 0:
		case found[i].Unknown && id.known:
		case found[i].Unknown: // what is bound here is known all the same
			if r, ok := w.dir.table.Lookup([]byte(id.name)); ok {
				w.set(id, true, r.Epoch)
			}
		case id.version != versions[i]: // it may be old
			w.askSoon(id)
		// what came later was lost, and will be said again
		case rebuilding && id.known && epoch < id.epoch:
		default:
			if found[i].Binding == (routing.Binding{}) {
				epoch = id.epoch
			}
			w.set(id, bound[i], epoch)
		}
	}
}

// lives says which of the sessions that hold IDs count: those that are attached somewhere, or
// within their resume window. One that has ended does not count. Neither does one whose nodes are
// all gone, if it was not heard of for the resume window: who should have ended it is gone, too. A
// session of which the registry does not say is not in the map.
func (w *watcher) lives(ctx context.Context, sessions []routing.SessionID) map[routing.SessionID]bool {
	lives := make(map[routing.SessionID]bool, len(sessions))
	asking := w.recall(sessions, lives)
	if len(asking) == 0 {
		return lives
	}
	where := w.dir.whereAre(ctx, asking)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for id, at := range where {
		a := w.absent[id]
		if a == nil {
			a = &absence{since: now}
			w.absent[id] = a
		}
		a.asked = now
		a.lives = at.alive() || at != ended && now.Sub(a.since) < w.dir.cfg.ResumeWindow
		lives[id] = a.lives
	}
	return lives
}

// recall notes of sessions whether they live, as far as this node knows. It returns those that the
// registry has to be asked about, each once.
func (w *watcher) recall(sessions []routing.SessionID, lives map[routing.SessionID]bool) (asking []routing.SessionID) {
	seen := make(map[routing.SessionID]bool, len(sessions))
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, session := range sessions {
		if seen[session] {
			continue
		}
		seen[session] = true
		if w.dir.knownHere(session) {
			delete(w.absent, session)
			lives[session] = true
		} else if a := w.absent[session]; a != nil && time.Since(a.asked) < w.dir.cfg.WatchPeriod/2 {
			lives[session] = a.lives
		} else {
			asking = append(asking, session)
		}
	}
	return asking
}
