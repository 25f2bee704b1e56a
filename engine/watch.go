package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/share"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// A client watches IDs: it is told who holds them now, and of every change from then on. What it was told last is remembered for
// each ID, and what it is told next is what is so then, not each step on the way there. So a client that does not read costs
// no more than its list.

// changesAtOnce is how many changed frames a connection gets in one iteration; more come with the next tick.
const changesAtOnce = 4

// changesPause is how many milliseconds a connection that has been told of all changes is not told of
// the next ones. One ID that is bound again and again, and watched by many, would else cost a write to
// each of them every time (S32).
const changesPause = 100

// Why an ID is not watched.
const (
	reasonWatched     = "the connection watches as many IDs as it may (max-watched)"
	reasonNodeWatched = "very many IDs are watched at the node, and this connection has its share of them (max-node-watched)"
)

// watchList is what one connection watches.
type watchList struct {
	// static
	loop   *loop
	handle routing.Handle
	tell   func() // has the connection told of changes, on its loop

	pause int64 // the loop's; until then the connection is told of no more changes

	// guarded by watcher.mu
	all    map[*watchedID]*watch
	queue  []*watch // of those whose client may have to be told something; dropped ones perhaps among them
	asked  bool     // tell was posted, or comes with the next tick
	closed bool     // the connection is gone
}

// watch is one ID of a watchList. Its fields are guarded by watcher.mu. There may be a million.
type watch struct {
	list      *watchList
	id        *watchedID
	toldEpoch uint64     // what the client was told last
	at        uint32     // index in id.watches
	toldCode  codec.Code // likewise
	answered  bool       // it was told something
	queued    bool       // it is in list.queue
	dropped   bool       // it is in no list any more, but perhaps in a queue
}

func (v *watch) told() codec.Result { return codec.Result{Code: v.toldCode, Epoch: v.toldEpoch} }

// tells notes that the client is told how its ID stands, and returns that.
func (v *watch) tells() codec.Result {
	now := v.id.result()
	v.toldCode, v.toldEpoch, v.answered = now.Code, now.Epoch, true
	return now
}

// handleWatch puts IDs on the list at once, so that no change is missed, and asks who holds them.
func (c *conn) handleWatch(body []byte) {
	var f codec.Watch
	e := c.loop.eng
	if err := codec.DecodeWatch(body, e.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindWatch)
		return
	}
	r := c.newRequest(codec.KindWatched, f.Seq, &f.IDs)
	if !c.mayAsk(r) {
		return
	}
	if c.watchList == nil {
		l, h := c.loop, c.handle()
		c.watchList = &watchList{loop: l, handle: h, all: make(map[*watchedID]*watch), tell: func() { l.tellChanges(h) }}
	}
	e.watcher.add(c.watchList, r)
	e.spread(r, verbWatch)
}

func (c *conn) handleUnwatch(body []byte) {
	ids, err := codec.DecodeUnwatch(body, c.loop.eng.cfg.MaxIDs)
	if err != nil {
		c.decodeFault(err, codec.KindUnwatch)
		return
	}
	if c.watchList != nil {
		c.loop.eng.watcher.remove(c.watchList, &ids)
	}
}

// endWatches is the end of the list: its connection is gone.
func (c *conn) endWatches() {
	if c.watchList != nil {
		c.loop.eng.watcher.close(c.watchList)
		c.watchList = nil
	}
}

// answerWatch fills in what is known at the moment of the answer: what was found out by a lane may be the past.
func (c *conn) answerWatch(r *request) {
	if r.kind == codec.KindWatched && c.watchList != nil {
		c.loop.eng.watcher.answer(c.watchList, r)
	}
}

// tellChanges tells a connection what it does not know yet of its IDs, as far as there is room: half of its queue is for messages.
func (l *loop) tellChanges(h routing.Handle) {
	for range changesAtOnce {
		c := l.conn(h)
		if c == nil || c.watchList == nil {
			return
		}
		if c.out.queued() > c.out.maxPending/2 || l.now < c.watchList.pause {
			break
		}
		changes, more := l.eng.watcher.take(c.watchList, l.eng.cfg.MaxIDs)
		if len(changes) > 0 {
			c.out.wroteControl(codec.AppendChanged(c.out.buf(), changes))
			l.worked(len(changes))
		}
		if !more {
			c.watchList.pause = l.now + changesPause
			return
		}
	}
	l.behind = append(l.behind, h)
}

// tellBehind goes on with the connections that had not been told everything, as far as the iteration's
// share allows. It reports whether there are more.
func (l *loop) tellBehind() (more bool) {
	behind := l.behind
	l.behind = nil
	for i, h := range behind {
		if l.full {
			l.behind = append(behind[i:], l.behind...)
			return true
		}
		l.tellChanges(h)
		l.worked(1)
	}
	return false
}

// add puts a request's IDs on a list, as far as they are IDs and there is room. What it cannot take it says in the results.
func (w *watcher) add(list *watchList, r *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range r.items {
		switch {
		case !validID(it.id):
			r.results[i].Code = codec.CodeBadID
			continue
		case list.of(w, it.id) != nil:
		case !w.hasRoom(list):
			reason := reasonNodeWatched
			if len(list.all) >= w.eng.cfg.MaxWatched {
				reason = reasonWatched
			}
			r.refuse([]int{i}, codec.CodeOverflow, reason)
			w.refused.Add(1)
			continue
		default:
			id := w.watched(it.id)
			v := &watch{list: list, id: id, at: uint32(len(id.watches))}
			id.watches = append(id.watches, v)
			list.all[id] = v
			w.watches++
		}
		r.results[i].Code = codec.CodeRegistryUnavailable // until something is known
	}
}

// of returns the watch of an ID; nil if there is none. mu is held.
func (list *watchList) of(w *watcher, name string) *watch {
	if id := w.ids[name]; id != nil {
		return list.all[id]
	}
	return nil
}

// hasRoom reports whether a list may grow: up to its own limit, and to its share of what the node has
// for all. mu is held.
func (w *watcher) hasRoom(list *watchList) bool {
	n, most := len(list.all), w.eng.cfg.MaxNodeWatched
	return n < w.eng.cfg.MaxWatched && w.watches < most && n < share.Of(most, w.watches, watchPart)
}

func (w *watcher) answer(list *watchList, r *request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, it := range r.items {
		if v := list.of(w, it.id); v != nil {
			r.results[i] = v.tells()
		}
	}
}

func (w *watcher) remove(list *watchList, ids *codec.IDList) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for it, ok := ids.Next(); ok; it, ok = ids.Next() {
		if v := list.of(w, string(it.ID)); v != nil {
			delete(list.all, v.id)
			w.drop(v)
		}
	}
}

// close ends a list. Taking it apart may take long, and is left to the watcher's own goroutine.
func (w *watcher) close(list *watchList) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list.closed = true
	list.queue = nil
	w.ended = append(w.ended, list)
	wake.Nudge(w.wake)
}

// enqueue has a client told of a change, if it has been told something before: else the answer will do. mu is held.
func (v *watch) enqueue() {
	list := v.list
	if v.queued || !v.answered || list.closed {
		return
	}
	if len(list.queue) > 2*len(list.all)+watchBatch { // most are dropped
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
		list.loop.post(list.tell)
	}
}

// take returns up to n changes that the client of a list does not know; more: there may be others.
func (w *watcher) take(list *watchList, n int) (changes []codec.Change, more bool) {
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
