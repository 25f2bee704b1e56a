package client

import (
	"context"
	"fmt"
	"sync"

	"distmsg/codec"
)

// Watch asks which IDs are online, as [Session.Lookup] does. From then on, until [Session.Unwatch]
// or Close, the session calls Config.OnPresence when that changes, wherever in the cluster the IDs
// are bound. Watch returns an answer for each ID, in the order given: ok (bound), no_route (not
// bound), or the reason why that is not known. With registry_unavailable or timeout, the ID is
// still watched, and OnPresence reports it when it is known. With bad_id or overflow (more IDs than
// the node lets a connection watch), it is not watched. An ID whose session is detached at the
// moment counts as bound. It is no_route when the resume window of the session is over.
//
// What OnPresence reports about an ID is newer than the result of its first Watch. Watch does not
// ask again for an ID that is already watched: it returns the state that was reported last.
//
// Watch takes any number of IDs. It returns when all have an answer, when ctx ends or, if ctx has
// no deadline, after Config.RequestTimeout. If ctx ended the call before all IDs had an answer,
// Watch returns the answers that it has, with an error that wraps ctx's. After any other error,
// nothing is watched. It is ErrClosed, ctx's error if ctx had ended before the call, or
// ErrNotSupported if the node does not support watching. Any goroutine may call Watch.
func (s *Session) Watch(ctx context.Context, ids ...string) ([]Presence, error) {
	if err := s.mayAsk(ctx); err != nil {
		return nil, err
	}
	if c := s.attachments.first(); c != nil && c.limits.MaxWatched == 0 {
		return nil, fmt.Errorf("%w: node %s has no watches", ErrNotSupported, c.node)
	}
	caller := ctx
	ctx, cancel := s.requestContext(ctx)
	defer cancel()
	entries, answered := s.watches.add(ids)
	select {
	case <-answered:
	case <-ctx.Done():
	case <-s.life.Done():
		return nil, ErrClosed
	}
	found := s.watches.answer(ids, entries)
	return found, unanswered(caller, found)
}

// Unwatch stops watching IDs: after it has returned, no new call of OnPresence contains them. IDs
// that are not watched count as done. Unwatch does not wait for the node. Any goroutine may call
// it.
func (s *Session) Unwatch(ids ...string) {
	w := &s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	gone := make([]idEpoch, 0, len(ids))
	for _, id := range ids {
		if e := w.byID[id]; e != nil {
			delete(w.byID, id)
			e.off = true
			e.answered()
			gone = append(gone, idEpoch{id: id})
		}
	}
	if w.conn != nil {
		w.conn.unwatch(gone)
	}
}

// watches holds the watched IDs and what is known about them. Lock order: watches.mu, then conn.mu
// or inbox.mu.
type watches struct {
	s    *Session
	wake chan struct{} // capacity 1: todo is not empty

	mu      sync.Mutex
	byID    map[string]*watched
	conn    *conn      // the connection over which they are watched; nil if there was none yet
	todo    []*watched // IDs that were not requested over conn yet
	news    []*watched // changes that the application has not heard yet
	telling bool       // a callback for news is in progress
}

// watched is one ID. Guarded by watches.mu.
type watched struct {
	now    Presence // the node's latest answer
	told   Presence // the state that the application knows
	fresh  bool     // no Watch has returned it yet, so there is nothing newer to report
	known  bool     // the node has answered
	listed bool     // in news
	off    bool     // Unwatch was called
	calls  []*watchCall
}

// watchCall is a Watch that waits until the node has answered for left more IDs.
type watchCall struct {
	left int
	done chan struct{}
}

// add begins to watch IDs. The channel is closed when the node has answered for all of them. A bad
// ID has no entry.
func (w *watches) add(ids []string) (entries []*watched, answered <-chan struct{}) {
	call := &watchCall{done: make(chan struct{})}
	entries = make([]*watched, len(ids))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, id := range ids {
		if !goodID(id) {
			continue
		}
		e := w.byID[id]
		if e == nil {
			e = &watched{now: Presence{ID: id, Code: codec.CodeTimeout}, fresh: true}
			w.byID[id] = e
			w.todo = append(w.todo, e)
		}
		entries[i] = e
		if !e.known {
			e.calls = append(e.calls, call)
			call.left++
		}
	}
	if call.left == 0 {
		close(call.done)
	}
	if len(w.todo) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
	return entries, call.done
}

// answer makes the result of a Watch. From then on, the application knows those states.
func (w *watches) answer(ids []string, entries []*watched) []Presence {
	found := make([]Presence, len(ids))
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, e := range entries {
		switch {
		case e == nil:
			found[i] = Presence{ID: ids[i], Code: codec.CodeBadID}
		case e.fresh:
			e.fresh, e.told = false, e.now
			found[i] = e.now
		case decided(e.told.Code): // OnPresence reports newer states
			found[i] = e.told
		default: // OnPresence also reports it, if it is decided
			found[i] = e.now
		}
	}
	return found
}

// answered notifies the calls that wait for the node's answer about e. The caller holds watches.mu.
func (e *watched) answered() {
	for _, call := range e.calls {
		if call.left--; call.left == 0 {
			close(call.done)
		}
	}
	e.known, e.calls = true, nil
}

// explained reports whether nodes give a reason with the code of a lookup or watch.
func explained(code Code) bool { return code == codec.CodeOverflow || code == codec.CodeDenied }

// decided reports whether the code says for certain that an ID is online or offline.
func decided(code Code) bool { return code == codec.CodeOK || code == codec.CodeNoRoute }

// keep watches the IDs over one connection, and over another when that one has closed,
// until Close.
func (w *watches) keep() {
	var c *conn
	var dead, retired <-chan struct{}
	for {
		select {
		case <-w.wake:
		case <-dead:
			c = nil
		case <-retired:
			c = nil
		case <-w.s.life.Done():
			return
		}
		if c == nil {
			var err error
			if c, err = w.s.attachments.wait(w.s.life); err != nil {
				return
			}
			dead, retired = c.dead, c.retired
			w.begin(c)
		}
		if over, ids := c, w.take(); len(ids) > 0 {
			w.s.kept.Go(func() { w.ask(over, ids) }) // later IDs need not wait for these
		}
	}
}

// begin makes c the connection over which all IDs are watched.
func (w *watches) begin(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil { // otherwise all of them are in todo
		w.todo = w.todo[:0]
		for _, e := range w.byID {
			w.todo = append(w.todo, e)
		}
	}
	w.conn = c
}

// take returns the IDs to request.
func (w *watches) take() []idEpoch {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids := make([]idEpoch, 0, len(w.todo))
	for _, e := range w.todo {
		if id := e.now.ID; w.byID[id] == e {
			ids = append(ids, idEpoch{id: id})
		}
	}
	w.todo = nil
	return ids
}

// ask requests the watch of IDs over c.
func (w *watches) ask(c *conn, ids []idEpoch) {
	if c.limits.MaxWatched == 0 {
		w.s.cfg.Logger.Warn("distmsg: the node does not support watching; presence is not updated", "node", c.node, "ids", len(ids))
		return
	}
	ctx, cancel := context.WithTimeout(w.s.life, w.s.cfg.RequestTimeout)
	defer cancel()
	// The reader handles the answers, in order with the changes that follow them.
	late := func(ids []idEpoch, a answer) { w.heard(c, ids, a) }
	heard := func(_ uint64, ids []idEpoch, a answer) { w.heard(c, ids, a) }
	c.ask(ctx, question{kind: codec.KindWatch, heard: heard, late: late}, ids, func(int, codec.Result) {})
}

// heard handles the answers to a watch frame.
func (w *watches) heard(c *conn, ids []idEpoch, a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != c {
		return
	}
	var strays []idEpoch // Unwatch came in between
	for i, r := range a.results {
		if e := w.byID[ids[i].id]; e != nil {
			e.now.Reason = ""
			if explained(r.Code) {
				e.now.Reason = a.reasons[uint64(i)]
			}
			w.learn(e, r.Code, r.Epoch)
		} else if decided(r.Code) || r.Code == codec.CodeRegistryUnavailable {
			strays = append(strays, ids[i])
		}
	}
	c.unwatch(strays)
}

// onChanged handles changes of watched IDs.
func (c *conn) onChanged(body []byte) error {
	all, err := codec.DecodeChanged(body)
	if err != nil {
		return err
	}
	w := &c.s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != c {
		return nil
	}
	for v, ok := all.Next(); ok; v, ok = all.Next() {
		if e := w.byID[string(v.ID)]; e != nil && decided(v.Code) {
			w.learn(e, v.Code, v.Epoch)
		}
	}
	return nil
}

// learn records what the node says about e. The caller holds watches.mu.
func (w *watches) learn(e *watched, code Code, epoch uint64) {
	switch {
	case decided(code):
		e.now.Code, e.now.Epoch = code, epoch
	case code == codec.CodeRegistryUnavailable: // the last known state stays valid
		if e.now.Code == codec.CodeTimeout {
			e.now.Code = code
		}
	default: // it is not watched
		delete(w.byID, e.now.ID)
		e.now.Code, e.now.Epoch = code, 0
	}
	e.answered()
	if w.s.cfg.OnPresence == nil || e.fresh || e.listed || !e.changed() {
		return
	}
	e.listed = true
	w.news = append(w.news, e)
	if !w.telling {
		w.telling = true
		w.s.cb.presences.Push(struct{}{})
	}
}

// changed reports whether OnPresence must report e.
func (e *watched) changed() bool {
	switch e.now.Code {
	case codec.CodeTimeout, codec.CodeRegistryUnavailable:
		return false
	case codec.CodeOK:
		return e.told.Code != codec.CodeOK || e.told.Epoch != e.now.Epoch
	}
	return e.told.Code != e.now.Code // the epoch of a past binding makes no difference
}

// tellPresence reports everything that has changed since its last call.
func (w *watches) tellPresence() {
	w.mu.Lock()
	changed := make([]Presence, 0, len(w.news))
	for _, e := range w.news {
		e.listed = false
		if !e.off && e.changed() {
			e.told = e.now
			changed = append(changed, e.now)
		}
	}
	w.news, w.telling = nil, false
	w.mu.Unlock()
	if len(changed) > 0 {
		w.s.cfg.OnPresence(changed)
	}
}

func (w *watches) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byID)
}

// unwatch asks the node to stop watching the IDs.
func (c *conn) unwatch(ids []idEpoch) {
	for len(ids) > 0 {
		n := c.frameful(ids)
		plain := plainIDs(ids[:n])
		c.append(func(b []byte) []byte { return codec.AppendUnwatch(b, plain) })
		ids = ids[n:]
	}
}
