package client

import (
	"context"
	"fmt"
	"sync"

	"distmsg/codec"
)

// Watch asks which IDs are online, as [Session.Lookup] does, and from then on Config.OnPresence hears when that changes, wherever
// in the cluster the IDs are bound, until [Session.Unwatch] or Close. It answers for each ID in the order given: ok (bound) or
// no_route, or why that is not known: registry_unavailable or timeout, and then the ID is watched all the same and OnPresence hears of
// it when it is known; or bad_id or overflow (more IDs than the node lets a connection watch), and then it is not watched. An ID
// whose session is detached for the moment counts as bound: it is no_route when its resume window is over.
//
// What OnPresence hears of an ID is newer than what the first Watch of it returned. An ID that is watched already is
// not asked for again: Watch returns what was last told of it.
//
// Watch takes any number of IDs and returns when ctx ends at the latest, or after
// Config.RequestTimeout if ctx has no deadline. If ctx ended the call before all IDs had an answer,
// Watch returns the answers that it has, with an error that wraps ctx's. After any other error
// nothing is watched: ErrClosed, ctx's if it had ended before the call, or ErrNotSupported if the
// node does not support watching. It may be called from any goroutine.
func (s *Session) Watch(ctx context.Context, ids ...string) ([]Presence, error) {
	if err := s.mayAsk(ctx); err != nil {
		return nil, err
	}
	if c := s.first(); c != nil && c.limits.MaxWatched == 0 {
		return nil, fmt.Errorf("%w: node %s knows no watch", ErrNotSupported, c.node)
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

// Unwatch ends the watching of IDs: when it has returned, OnPresence begins to hear of none of them. Those that are not watched
// count as done. It does not wait for the node and may be called from any goroutine.
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

// watches is which IDs are watched and what is known of them. Lock order: its mu, then conn.mu or inbox.mu.
type watches struct {
	wake chan struct{} // capacity 1: todo is not empty

	mu      sync.Mutex
	byID    map[string]*watched
	conn    *conn      // the connection that they are watched over; nil: none yet
	todo    []*watched // not asked for over conn yet
	news    []*watched // the application is to hear of
	telling bool       // and a callback is under way for that
}

// watched is one ID. Guarded by watches.mu.
type watched struct {
	now    Presence // as the node said last
	told   Presence // as the application knows
	fresh  bool     // no Watch has returned it yet: there is nothing newer to tell
	known  bool     // the node has answered
	listed bool     // in news
	off    bool     // by Unwatch
	calls  []*watchCall
}

// watchCall is a Watch that waits until the node has answered for left more IDs.
type watchCall struct {
	left int
	done chan struct{}
}

// add begins to watch IDs. The channel is closed when the node has answered for all of them. A bad ID has no entry.
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

// answer puts together what a Watch returns, which the application knows from then on.
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
		case decided(e.told.Code): // OnPresence hears of what is newer
			found[i] = e.told
		default: // OnPresence hears of it, too, if it is decided
			found[i] = e.now
		}
	}
	return found
}

// answered tells those who wait for the node's word on e. It needs watches.mu.
func (e *watched) answered() {
	for _, call := range e.calls {
		if call.left--; call.left == 0 {
			close(call.done)
		}
	}
	e.known, e.calls = true, nil
}

// decided reports whether an ID with that code is online or not, without doubt.
func decided(code Code) bool { return code == codec.CodeOK || code == codec.CodeNoRoute }

// keepWatching has the IDs watched over one connection, and anew over another when that is gone, until Close.
func (s *Session) keepWatching() {
	w := &s.watches
	var c *conn
	var dead, retired <-chan struct{}
	for {
		select {
		case <-w.wake:
		case <-dead:
			c = nil
		case <-retired:
			c = nil
		case <-s.life.Done():
			return
		}
		if c == nil {
			var err error
			if c, err = s.attached(s.life); err != nil {
				return
			}
			dead, retired = c.dead, c.retired
			w.begin(c)
		}
		if over, ids := c, w.take(); len(ids) > 0 {
			s.kept.Go(func() { s.askWatched(over, ids) }) // the next ones need not wait for these
		}
	}
}

// begin lets c be the connection that all IDs are watched over.
func (w *watches) begin(c *conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != nil { // else all of them are in todo
		w.todo = w.todo[:0]
		for _, e := range w.byID {
			w.todo = append(w.todo, e)
		}
	}
	w.conn = c
}

// take returns the IDs that are to be asked for.
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

// askWatched has c watch IDs.
func (s *Session) askWatched(c *conn, ids []idEpoch) {
	if c.limits.MaxWatched == 0 {
		s.cfg.Logger.Warn("distmsg: the node knows no watch: presence stands still", "node", c.node, "ids", len(ids))
		return
	}
	ctx, cancel := context.WithTimeout(s.life, s.cfg.RequestTimeout)
	defer cancel()
	// The answers are taken in by the reader, in order with the changes that come behind them.
	late := func(ids []idEpoch, a answer) { s.heardWatched(c, ids, a) }
	heard := func(_ uint64, ids []idEpoch, a answer) { s.heardWatched(c, ids, a) }
	c.ask(ctx, question{kind: codec.KindWatch, heard: heard, late: late}, ids, func(int, codec.Result) {})
}

// heardWatched takes in the answers to a watch frame.
func (s *Session) heardWatched(c *conn, ids []idEpoch, a answer) {
	w := &s.watches
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conn != c {
		return
	}
	var strays []idEpoch // Unwatch came between
	for i, r := range a.results {
		if e := w.byID[ids[i].id]; e != nil {
			e.now.Reason = ""
			if r.Code == codec.CodeOverflow {
				e.now.Reason = a.reasons[uint64(i)]
			}
			s.learn(e, r.Code, r.Epoch)
		} else if decided(r.Code) || r.Code == codec.CodeRegistryUnavailable {
			strays = append(strays, ids[i])
		}
	}
	c.unwatch(strays)
}

// onChanged takes in what became of watched IDs.
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
			c.s.learn(e, v.Code, v.Epoch)
		}
	}
	return nil
}

// learn takes in what the node says of e. It needs watches.mu.
func (s *Session) learn(e *watched, code Code, epoch uint64) {
	w := &s.watches
	switch {
	case decided(code):
		e.now.Code, e.now.Epoch = code, epoch
	case code == codec.CodeRegistryUnavailable: // what was known stands
		if e.now.Code == codec.CodeTimeout {
			e.now.Code = code
		}
	default: // it is not watched
		delete(w.byID, e.now.ID)
		e.now.Code, e.now.Epoch = code, 0
	}
	e.answered()
	if s.cfg.OnPresence == nil || e.fresh || e.listed || !e.changed() {
		return
	}
	e.listed = true
	w.news = append(w.news, e)
	if !w.telling {
		w.telling = true
		s.cb.presences.Push(struct{}{})
	}
}

// changed reports whether the application is to hear of e.
func (e *watched) changed() bool {
	switch e.now.Code {
	case codec.CodeTimeout, codec.CodeRegistryUnavailable:
		return false
	case codec.CodeOK:
		return e.told.Code != codec.CodeOK || e.told.Epoch != e.now.Epoch
	}
	return e.told.Code != e.now.Code // an epoch that was makes no difference
}

// tellPresence tells of everything that has changed since it did so last.
func (s *Session) tellPresence() {
	w := &s.watches
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
		s.cfg.OnPresence(changed)
	}
}

func (w *watches) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byID)
}

// unwatch tells the node that nobody wants to hear of the IDs.
func (c *conn) unwatch(ids []idEpoch) {
	for len(ids) > 0 {
		n := c.frameful(ids)
		plain := plainIDs(ids[:n])
		c.append(func(b []byte) []byte { return codec.AppendUnwatch(b, plain) })
		ids = ids[n:]
	}
}
