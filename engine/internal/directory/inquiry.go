package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// Inquiry is what operators ask of the directory, and order. Any goroutine may use it. Its methods
// wait for the registry.
type Inquiry struct{ dir *Directory }

// NewInquiry returns what operators may ask of a directory.
func NewInquiry(d *Directory) Inquiry { return Inquiry{d} }

// Holding is what the registry says of an ID.
type Holding struct {
	Found routing.LookupResult
	At    routing.SessionPresence // of the session that holds the ID
}

// Holdings asks the registry who holds IDs, and where those sessions are attached.
func (q Inquiry) Holdings(ctx context.Context, ids []string) ([]Holding, error) {
	found, err := q.dir.registry.Lookup(ctx, ids)
	if err != nil {
		return nil, err
	}
	all := make([]Holding, len(ids))
	var sessions []routing.SessionID
	var of []int
	for i := range found {
		all[i].Found = found[i]
		if s := found[i].Binding.Session; !s.IsZero() {
			sessions, of = append(sessions, s), append(of, i)
		}
	}
	if len(sessions) == 0 {
		return all, nil
	}
	presences, err := q.dir.registry.Presences(ctx, sessions)
	if err != nil {
		return nil, err
	}
	for k, i := range of {
		all[i].At = presences[k]
	}
	return all, nil
}

// ErrNotBound means that nobody holds an ID.
var ErrNotBound = errors.New("the ID is not bound")

var errStopping = errors.New("the node is stopping")

// KickOut ends the binding of an ID, as if another session had bound it, and returns it. The
// session hears a kick, with an epoch that is greater by one. It waits for the ID's lane.
func (q Inquiry) KickOut(ctx context.Context, id string) (kicked routing.Binding, err error) {
	if !validID(id) {
		return kicked, fmt.Errorf("an ID has 1 to %d bytes", codec.MaxID)
	}
	done := make(chan struct{})
	var b routing.Binding
	var failed error
	lanes := q.dir.lanes
	if !lanes.must(lanes.of([]byte(id)), func() {
		defer close(done)
		b, failed = q.dir.bindings.kickOut(ctx, id)
	}) {
		return kicked, errStopping
	}
	select {
	case <-done:
		return b, failed
	case <-ctx.Done():
		return kicked, ctx.Err()
	}
}

// kickOut works in the ID's lane. The ID may change hands between the two calls.
func (b *bindings) kickOut(ctx context.Context, id string) (kicked routing.Binding, err error) {
	ctx, cancel := context.WithTimeout(ctx, RegistryTimeout)
	defer cancel()
	for range maxSwaps {
		found, err := b.dir.registry.Lookup(ctx, []string{id})
		switch {
		case err != nil:
			return kicked, err
		case found[0].Unknown:
			return kicked, routing.ErrUnavailable
		case found[0].Binding == routing.Binding{}:
			return kicked, ErrNotBound
		}
		kicked = found[0].Binding
		results, err := b.dir.registry.Unbind(ctx, []routing.UnbindOp{{ID: id, Session: kicked.Session, Epoch: kicked.Epoch}})
		switch {
		case err != nil:
			return kicked, err
		case results[0].Unanswered:
			return kicked, routing.ErrUnavailable
		case results[0].Removed:
			b.dir.news.kickedOut(id, kicked)
			return kicked, nil
		}
	}
	return kicked, errors.New(reasonSwaps)
}

// kickedOut notes that a binding is over on an operator's order, and notifies the session and the
// other nodes. Call it in the ID's lane.
func (n *news) kickedOut(id string, b routing.Binding) {
	over := b.Epoch + 1
	n.expelled(b.Session, id, over)
	n.dir.watcher.unbound(id, b.Epoch)
	if !n.dir.alone() {
		n.expel(b.Session, id, over)
	}
}

// Observe calls f with the state of IDs as soon as it is known, and with each change from then on,
// until ctx ends. It calls f on this goroutine. f may wait: then states are skipped. If f returns a
// time, Observe calls it again after that time, without changes, if nothing changes before.
func (q Inquiry) Observe(ctx context.Context, ids []string, f func([]codec.Change) time.Duration) error {
	d := q.dir
	list := NewWatches(routing.Handle{}, "")
	list.changed = make(chan struct{}, 1)
	r := d.NewRequest(nil, routing.Handle{}, 0, 0, len(ids))
	for _, id := range ids {
		r.Add(id, 0)
	}
	defer d.EndWatches(list)
	d.watcher.add(list, r)
	for i := range r.Results {
		if code := r.Results[i].Code; code != codec.CodeRegistryUnavailable {
			return fmt.Errorf("%q cannot be watched: %v", ids[i], code)
		}
	}
	var later <-chan time.Time
	tell := func(changes []codec.Change) {
		if later = nil; ctx.Err() != nil {
			return
		}
		if wait := f(changes); wait > 0 {
			later = time.After(wait)
		}
	}
	if known := d.watcher.begin(list, r); len(known) > 0 {
		tell(known)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-later:
			tell(nil)
			continue
		case <-list.changed:
		}
		for more := true; more; {
			var changes []codec.Change
			if changes, more = d.watcher.take(list, WatchBatch); len(changes) > 0 {
				tell(changes)
			}
		}
	}
}

// begin returns the state of the IDs of a list as far as it is known, and has the registry asked
// for the others.
func (w *watcher) begin(list *Watches, r *Request) (known []codec.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, it := range r.items {
		v := list.of(w, it.id)
		now := v.tells()
		if v.id.known {
			known = append(known, codec.Change{ID: []byte(it.id), Code: now.Code, Epoch: v.id.epoch})
		} else {
			w.askSoon(v.id)
		}
	}
	return known
}

// Find asks the resolver about an ID as a loop does, and waits for its answer. There must be other
// nodes.
func (q Inquiry) Find(ctx context.Context, id string) (Resolved, error) {
	heard := make(chan Resolved, 1)
	r := q.dir.resolver
	r.mu.Lock()
	asked := r.asked[id]
	if asked == nil {
		asked = r.newQuestion(id)
		r.queue(routing.Handle{}, []string{id})
	}
	asked.heard = append(asked.heard, heard)
	r.mu.Unlock()
	wake.Nudge(r.wake)
	select {
	case answer := <-heard:
		return answer, nil
	case <-ctx.Done():
		return Resolved{}, ctx.Err()
	}
}
