package directory

import (
	"context"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

const (
	// resolveBatch is how many IDs there are at most in one question to the registry. The
	// recipients of a multicast are to be answered together.
	resolveBatch = 1 << 14
	// ResolveTimeout bounds one question of a loop.
	ResolveTimeout = time.Second
	// attachTries is how often the registry is asked about an ID whose session moves: by the
	// registry the session is attached at a node that has not said so yet. attachPause is the time
	// before the second question, and doubles from then on.
	attachTries = 6
	attachPause = 10 * time.Millisecond
	// resolveAtOnce is how many questions the resolver may have under way: one that is slow does
	// not hold up the next.
	resolveAtOnce = 4
	// resolveTurn is how many IDs of one connection go into a question before another connection
	// has its turn.
	resolveTurn = 64
	// resolveRounds bounds how often one question asks again about IDs whose sessions turned out to
	// be dead. After that they are asked for anew.
	resolveRounds = 4
	// deadFor is how long it is remembered that a session is dead, which it will always be, and
	// awayFor that one is attached nowhere that this node can reach.
	deadFor = 10 * time.Second
	awayFor = 100 * time.Millisecond
	// maxAway bounds how many such sessions are remembered.
	maxAway = 1 << 16
)

// resolver asks the registry for the loops. A question covers all IDs that have gathered meanwhile.
// The connections that ask have their turns in it, so that one that asks for many IDs does not
// delay the others (S32). The resolver answers each ID as soon as it knows what to do, whatever
// happens to the others.
type resolver struct {
	dir  *Directory
	wake chan struct{} // of capacity 1

	mu    sync.Mutex
	asked map[string]*question        // guarded by mu; what was not answered yet
	lines map[routing.Handle]*askLine // guarded by mu; IDs to ask for, by who asks
	turns []*askLine                  // guarded by mu; the same, in the order of their turns
	// guarded by mu; what the registry said of sessions a moment ago
	away map[routing.SessionID]whereabouts
}

// askLine is the IDs to ask for on account of one connection or link. If by is zero, they are the
// resolver's own.
type askLine struct {
	by  routing.Handle
	ids []string
}

// question is one ID that loops have asked for.
type question struct {
	loops []uint16
	heard []chan<- Resolved // of capacity 1; others that have asked, see Find
	tries int
	since time.Time
	not   disowned // a binding that is no answer
}

// whereabouts is what the registry said of a session that no node has announced.
type whereabouts struct {
	at    standing
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

func newResolver(d *Directory) *resolver {
	return &resolver{dir: d, wake: make(chan struct{}, 1), asked: make(map[string]*question),
		lines: make(map[routing.Handle]*askLine), away: make(map[routing.SessionID]whereabouts)}
}

// Resolved says how messages to an ID go on after the registry was asked.
type Resolved struct {
	ID    string
	Code  codec.Code // CodeOK if there is a route now, else how sends end
	Stale bool       // a part of it was remembered: whoever remembers it does so for no longer
}

// Resolve makes sure that the loop hears of the IDs by Loops.Resolved, and of all at once if nobody
// has asked for them before. by is the connection or link that asks. There must be other nodes.
func (d *Directory) Resolve(loop uint16, by routing.Handle, ids ...string) {
	d.resolver.ask(loop, by, ids...)
}

// Disown says that a binding of an ID which a loop has asked for is no answer: its session has
// given a message back. session is the short form.
func (d *Directory) Disown(id string, session, epoch uint64) {
	d.resolver.disown(id, disowned{session, epoch})
}

func (r *resolver) ask(loop uint16, by routing.Handle, ids ...string) {
	r.mu.Lock()
	var fresh []string
	for _, id := range ids {
		q := r.asked[id]
		if q == nil {
			q = r.newQuestion(id)
			fresh = append(fresh, id)
		}
		q.loops = append(q.loops, loop)
	}
	r.queue(by, fresh)
	r.mu.Unlock()
	wake.Nudge(r.wake)
}

// newQuestion notes that an ID is asked for. The caller holds mu.
func (r *resolver) newQuestion(id string) *question {
	q := &question{since: time.Now()}
	r.asked[id] = q
	return q
}

// queue puts IDs into the line of the connection or link that asks. The caller holds mu.
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

// takeLate returns the IDs that have waited for so long that the registry, which has just not
// answered, need not be asked for them: each would wait for a timeout of its own.
func (r *resolver) takeLate() (late []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	turns := r.turns
	r.turns = nil
	for _, ln := range turns {
		kept := ln.ids[:0:0]
		for _, id := range ln.ids {
			if q := r.asked[id]; q != nil && time.Since(q.since) >= ResolveTimeout/2 {
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

// finding is the result of the question for one ID.
type finding struct {
	id     string
	found  routing.LookupResult
	code   codec.Code // how messages to it go on; see Resolved
	moving bool       // or more is about to be heard of it: its session or the ID moves
	stale  bool       // see Resolved
}

// answer notifies every loop that asked, except of IDs that move. It asks again about those.
func (r *resolver) answer(all []finding) {
	words := make([][]Resolved, r.dir.cfg.Loops)
	again := make(map[int][]string) // by tries
	r.mu.Lock()
	for _, f := range all {
		q := r.asked[f.id]
		if q == nil {
			continue // it was answered
		}
		code := f.code
		if f.moving {
			if q.tries++; q.tries < attachTries {
				again[q.tries] = append(again[q.tries], f.id)
				continue
			}
			code = codec.CodeUnreachable
		}
		for _, ch := range q.heard {
			ch <- Resolved{ID: f.id, Code: code, Stale: f.stale}
		}
		for _, loop := range q.loops {
			words[loop] = append(words[loop], Resolved{ID: f.id, Code: code, Stale: f.stale})
		}
		delete(r.asked, f.id)
	}
	r.mu.Unlock()
	for tries, ids := range again {
		time.AfterFunc(attachPause<<(tries-1), func() { r.requeue(ids) })
	}
	for loop, mine := range words {
		if len(mine) > 0 {
			r.dir.loops.Resolved(loop, mine)
		}
	}
}

func (r *resolver) requeue(ids []string) {
	r.mu.Lock()
	r.queue(routing.Handle{}, ids)
	r.mu.Unlock()
	wake.Nudge(r.wake)
}

// answerAll gives all IDs the same answer. f has all of it but the ID.
func (r *resolver) answerAll(ids []string, f finding) {
	all := make([]finding, len(ids))
	for i, id := range ids {
		all[i] = f
		all[i].id = id
	}
	r.answer(all)
}

// notSaid answers that the registry did not reply.
func (r *resolver) notSaid(ids []string) {
	r.answerAll(ids, finding{code: codec.CodeRegistryUnavailable})
}

// resolve asks the registry who holds the IDs, installs the routes, and answers.
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
	r.answerAll(ids, finding{moving: true})
}

// resolveOnce returns the IDs whose sessions have turned out to be dead. The others are answered.
func (r *resolver) resolveOnce(ctx context.Context, ids []string) (again []string) {
	ctx, cancel := context.WithTimeout(ctx, ResolveTimeout)
	defer cancel()
	began := time.Now()
	found, err := r.dir.registry.Lookup(ctx, ids)
	if err != nil {
		r.notSaid(ids)
		r.notSaid(r.takeLate())
		return nil
	}
	var known, open []finding
	var learning []lesson
	for i, id := range ids {
		f := finding{id: id, found: found[i]}
		b := found[i].Binding
		switch {
		case found[i].Unknown:
			f.code = codec.CodeRegistryUnavailable
			known = append(known, f)
		case b == routing.Binding{}:
			f.code = codec.CodeNoRoute
			known = append(known, f)
		case r.isDisowned(id, b):
			f.moving = true
			known = append(known, f)
		default:
			switch s, done := r.install(&f); {
			case s != nil:
				learning = append(learning, lesson{s, f})
			case done:
				known = append(known, f)
			default:
				open = append(open, f)
			}
		}
	}
	r.tell(known)
	r.learn(learning)
	return r.tellWhereabouts(ctx, open, began)
}

// tell answers, and passes what the registry has said to the watcher as hints.
func (r *resolver) tell(all []finding) {
	if len(all) == 0 {
		return
	}
	for _, f := range all {
		if f.moving || f.code != codec.CodeRegistryUnavailable {
			r.dir.watcher.heard(f.id, f.moving || f.code != codec.CodeNoRoute, f.found.Binding.Epoch)
		}
	}
	r.answer(all)
}

// tellWhereabouts answers IDs whose sessions no node has told of. The registry was asked for the
// IDs after began. It returns those whose sessions have turned out to be dead since.
func (r *resolver) tellWhereabouts(ctx context.Context, open []finding, began time.Time) (again []string) {
	if len(open) == 0 {
		return nil
	}
	where := r.whereabouts(ctx, open)
	var told []finding
	for _, f := range open {
		w, known := where[f.found.Binding.Session]
		old := w.heard.Before(began)
		switch {
		case !known:
			f.code = codec.CodeRegistryUnavailable
		case w.at == ended && !old:
			again = append(again, f.id)
			continue
		case w.at == ended: // that stays true, so only the lookup counts
			f.code = codec.CodeNoRoute
		case moves(w.at):
			f.moving, f.stale = true, old
		default:
			f.code, f.stale = codec.CodeUnreachable, old
		}
		told = append(told, f)
	}
	r.tell(told)
	return again
}

// moves reports whether a session is about to be heard of: it is attached at a node that there is a
// link to. So it may be if the registry knows of no place: an attach may be written later than a
// bind.
func moves(at standing) bool { return at == nowhere || at == onLink }

// install makes a route of what the registry said of an ID. The session may be attached here,
// without this node having been told of the ID: then it returns the session, see learn. It returns
// false if the registry has to be asked where the session is; if not, f says how messages go on.
func (r *resolver) install(f *finding) (here *routing.Session, known bool) {
	d, b := r.dir, f.found.Binding
	if s := d.table.Session(b.Session); s != nil && len(s.Handles()) > 0 {
		if d.news.overs.has([]byte(f.id), b.Epoch) {
			f.moving = true // this node has ended that binding since the registry was asked
			return nil, true
		}
		return s, true
	}
	// The session may be detached: when it attaches anywhere, the route leads there.
	if s := d.remote.Session(b.Session); s != nil {
		d.news.makeRoom()
		d.remote.Bind(f.id, s, b.Epoch)
		if len(s.Handles()) > 0 {
			f.code = codec.CodeOK
			return nil, true
		}
	}
	return nil, false
}

// whereabouts says where sessions are that no node has told of. What was not remembered is one
// question. A session of which the registry does not say is not in the map.
func (r *resolver) whereabouts(ctx context.Context, open []finding) map[routing.SessionID]whereabouts {
	where := make(map[routing.SessionID]whereabouts, len(open))
	var asking []routing.SessionID
	asked := make(map[routing.SessionID]bool)
	r.mu.Lock()
	now := time.Now()
	for _, f := range open {
		id := f.found.Binding.Session
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
	for id, at := range r.dir.whereAre(ctx, asking) {
		where[id] = remembered(at)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.away)+len(asking) > maxAway {
		clear(r.away)
	}
	for _, id := range asking {
		if w, known := where[id]; known && !moves(w.at) {
			r.away[id] = w
		}
	}
	return where
}

// remembered is where the registry has just said that a session is, and for how long that is
// remembered.
func remembered(at standing) whereabouts {
	now := time.Now()
	if at == ended {
		return whereabouts{at, now, now.Add(deadFor)}
	}
	return whereabouts{at, now, now.Add(awayFor)}
}

// lesson is an ID of a session of this node that the node had not been told of.
type lesson struct {
	session *routing.Session
	finding finding
}

// learn has bindings of sessions of this node put into the table, and answers when they are there.
// If a lane is slow, the messages that wait hear after a while that the registry cannot be asked.
func (r *resolver) learn(all []lesson) {
	d := r.dir
	var byLane [laneCount][]finding
	for _, v := range all {
		f := v.finding
		f.code = codec.CodeOK
		lane := d.lanes.of([]byte(f.id))
		byLane[lane] = append(byLane[lane], f)
		d.news.learn(v.session, f.id, f.found.Binding.Epoch)
	}
	for lane, mine := range byLane {
		if len(mine) == 0 {
			continue
		}
		ids := make([]string, len(mine))
		for i, f := range mine {
			ids[i] = f.id
		}
		late := time.AfterFunc(ResolveTimeout, func() { r.notSaid(ids) })
		// behind those of news.learn
		if !d.lanes.quick(lane, func() { late.Stop(); r.tell(mine) }) {
			late.Stop()
			r.notSaid(ids) // the engine is stopping
		}
	}
}
