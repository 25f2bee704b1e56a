package engine

import (
	"context"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

const (
	// resolveAtOnce is how many questions the resolver may have under way: one that is slow does not
	// hold up the next.
	resolveAtOnce = 4
	// resolveTurn is how many IDs of one connection go into a question before another connection has
	// its turn.
	resolveTurn = 64
	// resolveRounds bounds how often one question asks again about IDs whose sessions turned out to be
	// dead. After that they are asked for anew.
	resolveRounds = 4
	// deadFor is how long it is remembered that a session is dead, which it will always be, and
	// awayFor that one is attached nowhere that this node can reach.
	deadFor = 10 * time.Second
	awayFor = recentFor * time.Millisecond
	// maxAway bounds how many such sessions are remembered.
	maxAway = 1 << 16
)

// resolver asks the registry for the loops. A question is about all IDs that have gathered meanwhile.
// The connections that they are asked for have their turns in it, so that one which asks for many does
// not hold up the others (S32). Each ID is answered by itself: as soon as it is known what to do, and
// whatever becomes of the others.
type resolver struct {
	eng  *Engine
	wake chan struct{} // of capacity 1

	mu    sync.Mutex
	asked map[string]*question              // guarded by mu; what was not answered yet
	lines map[routing.Handle]*askLine       // guarded by mu; IDs to ask for, by who asks
	turns []*askLine                        // guarded by mu; the same, in the order of their turns
	away  map[routing.SessionID]whereabouts // guarded by mu; what the registry said of sessions a moment ago
}

// askLine is IDs that are to be asked for on account of one connection or link; zero: the resolver's own.
type askLine struct {
	by  routing.Handle
	ids []string
}

// question is one ID that loops have asked for.
type question struct {
	loops []uint16
	tries int
	since time.Time
	not   disowned // a binding that is no answer
}

// whereabouts is what a message comes to whose receiver's session no node has told of.
type whereabouts struct {
	code  codec.Code
	heard time.Time
	until time.Time // it is remembered
}

// disowned is a binding of an ID that is over: the session that the registry named for it has given
// a message back. The session's node takes the binding out of the registry. Until then the
// registry's word is old.
type disowned struct {
	session uint64 // the short form
	epoch   uint64
}

func (d disowned) is(b routing.Binding) bool {
	return d.epoch == b.Epoch && d.session == b.Session.Short()
}

// codeMoving is the word on an ID of which more is about to be heard: its session attaches
// somewhere, or somebody else binds it. It never leaves this package.
const codeMoving codec.Code = 126

func newResolver(e *Engine) *resolver {
	return &resolver{eng: e, wake: make(chan struct{}, 1), asked: make(map[string]*question),
		lines: make(map[routing.Handle]*askLine), away: make(map[routing.SessionID]whereabouts)}
}

// ask promises that the loop will hear of the IDs, and of all at once if nobody has asked for them
// before (see loop.resolved). by is the connection or link on whose account. Any goroutine may call it.
func (r *resolver) ask(loop uint16, by routing.Handle, ids ...string) {
	r.mu.Lock()
	var fresh []string
	for _, id := range ids {
		q := r.asked[id]
		if q == nil {
			q = &question{since: time.Now()}
			r.asked[id] = q
			fresh = append(fresh, id)
		}
		q.loops = append(q.loops, loop)
	}
	r.queue(by, fresh)
	r.mu.Unlock()
	wake.Nudge(r.wake)
}

// queue puts IDs into the line of who asks. mu is held.
func (r *resolver) queue(by routing.Handle, ids []string) {
	if len(ids) == 0 {
		return
	}
	ln := r.lines[by]
	if ln == nil {
		ln = &askLine{by: by}
		r.lines[by] = ln
		r.turns = append(r.turns, ln)
	}
	ln.ids = append(ln.ids, ids...)
}

// disown says that a binding of an ID which a loop has asked for is no answer.
func (r *resolver) disown(id string, d disowned) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if q := r.asked[id]; q != nil && q.not.epoch <= d.epoch {
		q.not = d
	}
}

// isDisowned reports whether a binding of an ID is no answer.
func (r *resolver) isDisowned(id string, b routing.Binding) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.asked[id]
	return q != nil && q.not.is(b)
}

func (r *resolver) run(ctx context.Context) {
	slots := make(chan struct{}, resolveAtOnce)
	var under sync.WaitGroup
	defer under.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for {
			select {
			case <-ctx.Done():
				return
			case slots <- struct{}{}:
			}
			batch := r.take(resolveBatch)
			if len(batch) == 0 {
				<-slots
				break
			}
			under.Go(func() {
				defer func() { <-slots }()
				r.resolve(ctx, batch)
			})
		}
	}
}

// take returns the IDs of the next question.
func (r *resolver) take(most int) (batch []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.turns) > 0 && len(batch) < most {
		ln := r.turns[0]
		r.turns[0], r.turns = nil, r.turns[1:]
		n := min(len(ln.ids), resolveTurn, most-len(batch))
		batch = append(batch, ln.ids[:n]...)
		if ln.ids = ln.ids[n:]; len(ln.ids) > 0 {
			r.turns = append(r.turns, ln)
		} else {
			delete(r.lines, ln.by)
		}
	}
	return batch
}

// takeLate returns the IDs that have waited for so long that the registry, which has just not answered,
// need not be asked for them: each would wait for a timeout of its own.
func (r *resolver) takeLate() (late []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	turns := r.turns
	r.turns = nil
	for _, ln := range turns {
		kept := ln.ids[:0:0]
		for _, id := range ln.ids {
			if q := r.asked[id]; q != nil && time.Since(q.since) >= resolveTimeout/2 {
				late = append(late, id)
			} else {
				kept = append(kept, id)
			}
		}
		if ln.ids = kept; len(kept) > 0 {
			r.turns = append(r.turns, ln)
		} else {
			delete(r.lines, ln.by)
		}
	}
	return late
}

// answer tells every loop that asked, but of sessions that move: about those it asks again. A nil stale
// means that nothing is stale.
func (r *resolver) answer(ids []string, codes []codec.Code, stale []bool) {
	words := make([][]*word, len(r.eng.loops))
	again := make(map[int][]string) // by tries
	r.mu.Lock()
	for i, id := range ids {
		q := r.asked[id]
		if q == nil {
			continue // it was answered
		}
		code := codes[i]
		if code == codeMoving {
			if q.tries++; q.tries < attachTries {
				again[q.tries] = append(again[q.tries], id)
				continue
			}
			code = codec.CodeUnreachable
		}
		for _, loop := range q.loops {
			words[loop] = append(words[loop], &word{id: id, code: code, stale: stale != nil && stale[i]})
		}
		delete(r.asked, id)
	}
	r.mu.Unlock()
	for tries, ids := range again {
		time.AfterFunc(attachPause<<(tries-1), func() { r.requeue(ids) })
	}
	for i, mine := range words {
		if l := r.eng.loops[i]; len(mine) > 0 {
			l.post(func() { l.resolved(mine) })
		}
	}
}

func (r *resolver) requeue(ids []string) {
	r.mu.Lock()
	r.queue(routing.Handle{}, ids)
	r.mu.Unlock()
	wake.Nudge(r.wake)
}

// answerAll answers all alike.
func (r *resolver) answerAll(ids []string, code codec.Code) {
	codes := make([]codec.Code, len(ids))
	for i := range codes {
		codes[i] = code
	}
	r.answer(ids, codes, nil)
}

// resolve asks the registry who holds the IDs, puts the routes in place, and answers.
//
// A session that turns out to be dead may have been followed by another one between the two
// questions, for the ID and for the session. So the ID is asked for again: nobody holds it only if
// it still names a session that was dead before.
func (r *resolver) resolve(ctx context.Context, ids []string) {
	for range resolveRounds {
		if ids = r.resolveOnce(ctx, ids); len(ids) == 0 {
			return
		}
	}
	r.answerAll(ids, codeMoving)
}

// resolveOnce returns the IDs whose sessions have turned out to be dead. The others are answered.
func (r *resolver) resolveOnce(ctx context.Context, ids []string) (again []string) {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	began := time.Now()
	found, err := r.eng.registry.Lookup(ctx, ids)
	if err != nil {
		r.answerAll(ids, codec.CodeRegistryUnavailable)
		r.answerAll(r.takeLate(), codec.CodeRegistryUnavailable)
		return nil
	}
	var known, open answers
	var learning []lesson
	var sessions []routing.SessionID
	for i, id := range ids {
		b := found[i].Binding
		switch {
		case found[i].Unknown:
			known.add(id, found[i], codec.CodeRegistryUnavailable, false)
		case b == routing.Binding{}:
			known.add(id, found[i], codec.CodeNoRoute, false)
		case r.isDisowned(id, b):
			known.add(id, found[i], codeMoving, false)
		default:
			switch s, code, done := r.install(id, b); {
			case s != nil:
				learning = append(learning, lesson{s, id, found[i]})
			case done:
				known.add(id, found[i], code, false)
			default:
				open.add(id, found[i], 0, false)
				sessions = append(sessions, b.Session)
			}
		}
	}
	r.tell(&known)
	r.learn(learning)
	return r.tellWhereabouts(ctx, &open, sessions, began)
}

// answers are IDs with what the registry said of them.
type answers struct {
	ids   []string
	found []routing.LookupResult
	codes []codec.Code
	stale []bool
}

func (a *answers) add(id string, f routing.LookupResult, code codec.Code, stale bool) {
	a.ids, a.found = append(a.ids, id), append(a.found, f)
	a.codes, a.stale = append(a.codes, code), append(a.stale, stale)
}

func (r *resolver) tell(a *answers) {
	if len(a.ids) > 0 {
		r.eng.watcher.heardResolved(a.ids, a.found, a.codes)
		r.answer(a.ids, a.codes, a.stale)
	}
}

// tellWhereabouts answers IDs whose sessions no node has told of. The registry was asked for the IDs
// after began. It returns those whose sessions have turned out to be dead since.
func (r *resolver) tellWhereabouts(ctx context.Context, open *answers, sessions []routing.SessionID, began time.Time) (again []string) {
	if len(open.ids) == 0 {
		return nil
	}
	where := r.whereabouts(ctx, sessions)
	var told answers
	for i, id := range open.ids {
		w, known := where[sessions[i]]
		stale := w.heard.Before(began)
		switch {
		case !known:
			told.add(id, open.found[i], codec.CodeRegistryUnavailable, false)
		case w.code == codec.CodeNoRoute && !stale:
			again = append(again, id)
		default:
			// That a session is dead stays true, so only the look-up counts.
			told.add(id, open.found[i], w.code, stale && w.code != codec.CodeNoRoute)
		}
	}
	r.tell(&told)
	return again
}

// install makes a route of what the registry said. The session may be attached here, without this
// node having been told of the ID: then it returns the session, see learn. Known is false if
// the registry has to be asked where the session is.
func (r *resolver) install(id string, b routing.Binding) (here *routing.Session, code codec.Code, known bool) {
	e := r.eng
	if s := e.table.Session(b.Session); s != nil && len(s.Handles()) > 0 {
		if e.cluster.overs.has([]byte(id), b.Epoch) {
			return nil, codeMoving, true // this node has ended that binding since the registry was asked
		}
		return s, 0, true
	}
	remote := e.cluster.remote
	if s := remote.Session(b.Session); s != nil { // detached or not: when it attaches anywhere, the route leads there
		e.cluster.makeRoom()
		remote.Bind(id, s, b.Epoch)
		if len(s.Handles()) > 0 {
			return nil, codec.CodeOK, true
		}
	}
	return nil, 0, false
}

// whereabouts says of sessions that no node has told of what a message to them comes to. What was not
// remembered is one question. A session of which the registry does not say is not in the map.
func (r *resolver) whereabouts(ctx context.Context, sessions []routing.SessionID) map[routing.SessionID]whereabouts {
	where := make(map[routing.SessionID]whereabouts, len(sessions))
	var asking []routing.SessionID
	asked := make(map[routing.SessionID]bool)
	r.mu.Lock()
	now := time.Now()
	for _, id := range sessions {
		if w, known := r.away[id]; known && now.Before(w.until) {
			where[id] = w
		} else if !asked[id] {
			asked[id] = true
			asking = append(asking, id)
		}
	}
	r.mu.Unlock()
	if len(asking) == 0 {
		return where
	}
	presences, err := r.eng.registry.Presences(ctx, asking)
	if err != nil {
		return where
	}
	for i, p := range presences {
		if !p.Unknown {
			where[asking[i]] = r.place(p)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.away)+len(asking) > maxAway {
		clear(r.away)
	}
	for _, id := range asking {
		if w, known := where[id]; known && w.code != codeMoving {
			r.away[id] = w
		}
	}
	return where
}

// place is what a message comes to whose session is where the registry has just said.
func (r *resolver) place(p routing.SessionPresence) whereabouts {
	now := time.Now()
	switch {
	case p.Dead:
		return whereabouts{codec.CodeNoRoute, now, now.Add(deadFor)}
	case len(p.Nodes) == 0, r.eng.cluster.linkedToAny(p.Nodes):
		return whereabouts{codeMoving, now, now} // also if the registry knows of no place: an attach may be written later than a bind
	}
	return whereabouts{codec.CodeUnreachable, now, now.Add(awayFor)}
}

// linkedToAny reports whether there is a link to one of the nodes where a session is said to be attached.
func (c *cluster) linkedToAny(at []routing.Presence) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range at {
		if k := c.links[p.Node]; k != nil && k.incarnation == p.Incarnation {
			return true
		}
	}
	return false
}

// lesson is an ID of a session of this node that the node had not been told of.
type lesson struct {
	session *routing.Session
	id      string
	found   routing.LookupResult
}

// learn has bindings of sessions of this node put into the table, and answers when they are there. If a
// lane is slow, the messages that wait hear after a while that the registry cannot be asked.
func (r *resolver) learn(all []lesson) {
	e := r.eng
	var byLane [laneCount]answers
	for _, v := range all {
		lane := e.lanes.of([]byte(v.id))
		byLane[lane].add(v.id, v.found, codec.CodeOK, false)
		e.learn(v.session, v.id, v.found.Binding.Epoch)
	}
	for lane := range byLane {
		mine := &byLane[lane]
		if len(mine.ids) == 0 {
			continue
		}
		late := time.AfterFunc(resolveTimeout, func() { r.answerAll(mine.ids, codec.CodeRegistryUnavailable) })
		if !e.lanes.quick(lane, func() { late.Stop(); r.tell(mine) }) { // behind those of e.learn
			late.Stop()
			r.answerAll(mine.ids, codec.CodeRegistryUnavailable) // the engine is stopping
		}
	}
}
