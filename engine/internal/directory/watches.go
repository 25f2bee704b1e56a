package directory

import (
	"distmsg/codec"
	"distmsg/engine/internal/share"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// A client that watches IDs hears who holds them now, and of every change from then on. The
// directory remembers for each ID what the client heard last. The client hears the latest state.
// Intermediate states may be skipped. So a client that does not read costs no more than its list.

// Why an ID is not watched.
const (
	reasonWatched     = "the connection already watches the maximum of IDs (max-watched)"
	reasonNodeWatched = "the node's clients watch very many IDs, and this connection has its share of them (max-node-watched)"
)

// Watches is the list of IDs that one connection watches. Make it with NewWatches. Only the methods
// of Directory use it.
type Watches struct {
	conn     routing.Handle // static
	identity string         // static; who watches
	// static; of capacity 1: there are changes; nil: the loop of conn hears that
	changed chan struct{}

	// guarded by watcher.mu
	all    map[*watchedID]*watch
	queue  []*watch // of changes that the client has not heard, perhaps; some may be dropped
	asked  bool     // the loop was notified of changes, and has not taken all of them
	closed bool     // the connection has closed
}

// NewWatches makes an empty list for a connection of an identity.
func NewWatches(conn routing.Handle, identity string) *Watches {
	return &Watches{conn: conn, identity: identity, all: make(map[*watchedID]*watch)}
}

// Watch puts the IDs of a request on a list at once, so that the client misses no change. Then it
// asks the registry who holds them. The results name the IDs that the list cannot take. The request
// must have been charged.
func (d *Directory) Watch(list *Watches, r *Request) {
	d.watcher.add(list, r)
	d.Do(r, Watch)
}

// FillIn fills in what is known at the moment of the answer to a watch request, because what a lane
// found out may be out of date.
func (d *Directory) FillIn(list *Watches, r *Request) { d.watcher.answer(list, r) }

// Unwatch takes IDs off a list. ids may be views.
func (d *Directory) Unwatch(list *Watches, ids *codec.IDList) { d.watcher.remove(list, ids) }

// EndWatches ends a list. Its connection has closed.
func (d *Directory) EndWatches(list *Watches) { d.watcher.close(list) }

// Changes returns up to n changes that the client of a list has not heard of, and notes that it
// hears them now. If there may be more, the caller has to ask again, because the directory calls
// Loops.TellChanges again only after all have been taken.
func (d *Directory) Changes(list *Watches, n int) (changes []codec.Change, more bool) {
	return d.watcher.take(list, n)
}

// WatchMemory returns about how many bytes all watches take.
func (d *Directory) WatchMemory() int64 { return watchCost * d.watcher.total() }

// Doubt forgets what is known of watched IDs, because the node was stopped for a while (S24).
func (d *Directory) Doubt() { d.watcher.doubt() }

// watch is one ID of Watches. Its fields are guarded by watcher.mu. There may be a million.
type watch struct {
	list      *Watches
	id        *watchedID
	toldEpoch uint64     // of what the client heard last
	at        uint32     // index in id.watches
	toldCode  codec.Code // likewise
	answered  bool       // the client has heard something
	queued    bool       // it is in list.queue
	dropped   bool       // it is in no list any more, but perhaps in a queue
}

func (v *watch) told() codec.Result { return codec.Result{Code: v.toldCode, Epoch: v.toldEpoch} }

// tells returns the state of the watch's ID, and notes that the client hears it.
func (v *watch) tells() codec.Result {
	now := v.id.result()
	v.toldCode, v.toldEpoch, v.answered = now.Code, now.Epoch, true
	return now
}

// add puts the IDs of a request on a list. In the results it refuses invalid IDs, and those for
// which there is no room.
func (w *watcher) add(list *Watches, r *Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range r.items {
		switch {
		case !validID(it.id):
			r.Results[i].Code = codec.CodeBadID
			continue
		case list.of(w, it.id) != nil:
		case !w.hasRoom(list):
			reason := reasonNodeWatched
			if len(list.all) >= w.dir.cfg.MaxWatched {
				reason = reasonWatched
			}
			w.refuse(r, i, reason)
			continue
		case r.MostIDs > 0 && w.identities[list.identity] >= r.MostIDs:
			w.refuse(r, i, r.MostText)
			r.OverMost++
			continue
		default:
			id := w.watched(it.id)
			v := &watch{list: list, id: id, at: uint32(len(id.watches))}
			id.watches = append(id.watches, v)
			list.all[id] = v
			w.count(list, 1)
		}
		r.Results[i].Code = codec.CodeRegistryUnavailable // until something is known
	}
}

// refuse refuses an ID of a request for which there is no room.
func (w *watcher) refuse(r *Request, i int, reason string) {
	r.refuse([]int{i}, codec.CodeOverflow, reason)
	w.refused.Add(1)
}

// count adds n, which may be negative, to the watches of a list. The caller holds mu.
func (w *watcher) count(list *Watches, n int) {
	w.watches += n
	if list.identity == "" {
		return
	}
	if w.identities[list.identity] += n; w.identities[list.identity] == 0 {
		delete(w.identities, list.identity)
	}
}

// of returns the watch of an ID, or nil if there is none. The caller holds mu.
func (list *Watches) of(w *watcher, name string) *watch {
	if id := w.ids[name]; id != nil {
		return list.all[id]
	}
	return nil
}

// hasRoom reports whether a list may grow, up to its own limit and its share of the node's limit.
// The caller holds mu.
func (w *watcher) hasRoom(list *Watches) bool {
	n := len(list.all)
	return n < w.dir.cfg.MaxWatched && w.watches < w.most && n < share.Of(w.most, w.watches, watchPart)
}

// setMost sets how many IDs all connections may watch.
func (w *watcher) setMost(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.most = n
}

func (w *watcher) answer(list *Watches, r *Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range r.items {
		if v := list.of(w, it.id); v != nil {
			r.Results[i] = v.tells()
		}
	}
}

func (w *watcher) remove(list *Watches, ids *codec.IDList) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for it, ok := ids.Next(); ok; it, ok = ids.Next() {
		if v := list.of(w, string(it.ID)); v != nil {
			delete(list.all, v.id)
			w.drop(v)
		}
	}
}

// close ends a list. Taking it apart may take long, so the watcher's own goroutine does that.
func (w *watcher) close(list *Watches) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list.closed = true
	list.queue = nil
	w.ended = append(w.ended, list)
	wake.Nudge(w.wake)
}

// enqueue queues a change for a client. It does nothing if the client has not had the answer to its
// watch yet, because that will say it. The caller holds mu.
func (w *watcher) enqueue(v *watch) {
	list := v.list
	if v.queued || !v.answered || list.closed {
		return
	}
	if len(list.queue) > 2*len(list.all)+WatchBatch { // most are dropped
		kept := make([]*watch, 0, len(list.all)+1)
		for _, q := range list.queue {
			if !q.dropped {
				kept = append(kept, q)
			}
		}
		list.queue = kept
	}
	v.queued = true
	list.queue = append(list.queue, v)
	if !list.asked {
		list.asked = true
		if list.changed != nil {
			wake.Nudge(list.changed)
			return
		}
		w.dir.loops.TellChanges(list.conn)
	}
}

// take returns up to n changes that the client of a list has not heard of. It reports whether there
// may be more.
func (w *watcher) take(list *Watches, n int) (changes []codec.Change, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(list.queue) > 0 && len(changes) < n {
		v := list.queue[0]
		list.queue[0] = nil
		list.queue = list.queue[1:]
		v.queued = false
		if v.dropped || v.id.result() == v.told() {
			continue
		}
		now := v.tells()
		changes = append(changes, codec.Change{ID: []byte(v.id.name), Code: now.Code, Epoch: v.id.epoch})
	}
	if len(list.queue) == 0 {
		list.queue, list.asked = nil, false
	}
	return changes, list.asked
}
