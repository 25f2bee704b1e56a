package engine

import (
	"context"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// Messages to an ID that this node does not know wait, in order, while the registry is asked off the
// loop: the park queue. What waits is copied, is charged to the connection it came from, and bounded.

const (
	// recentFor is how long the registry's "nobody" is believed (S19).
	recentFor = 100 // milliseconds
	// maxRecent bounds how many such answers a loop remembers.
	maxRecent = 1 << 14
	// maxReturned bounds the bytes of returned messages that wait on a loop.
	maxReturned = 16 << 20
	// resolveBatch is the most IDs in one question to the registry.
	resolveBatch = 512
	// resolveTimeout bounds one question.
	resolveTimeout = time.Second
)

// waiting is a message in a park queue.
type waiting struct {
	conn     routing.Handle // whose it is; zero Gen: it came back from another node
	frame    []byte         // the body of a send, or of a forward
	deadline int64          // 0: none
	at       int64          // when it came
}

// parkQueue is what waits for one ID.
type parkQueue struct{ all []waiting }

// recentAnswer is what the registry said of an ID a moment ago.
type recentAnswer struct {
	code  codec.Code
	until int64
}

// recent returns the registry's last word on an ID that nobody holds, while it is fresh.
func (l *loop) recent(id []byte) (codec.Code, bool) {
	a, ok := l.recents[string(id)]
	if !ok {
		return 0, false
	}
	if a.until <= l.now {
		delete(l.recents, string(id))
		return 0, false
	}
	return a.code, true
}

func (l *loop) remember(id string, code codec.Code) {
	if len(l.recents) >= maxRecent {
		clear(l.recents)
	}
	l.recents[id] = recentAnswer{code, l.now + recentFor}
}

// park lets a send wait for the registry's word on its receiver.
func (c *conn) park(m *codec.Send) verdict {
	l := c.loop
	size := len(l.body) + len(m.To)
	if c.parked+size > l.eng.cfg.MaxParked {
		return verdict{codec.CodeOverflow, reasonParked}
	}
	w := waiting{conn: c.handle(), frame: append([]byte(nil), l.body...), at: l.now}
	if m.Flags&codec.FlagAck != 0 {
		w.deadline = l.deadline(m.TTL)
		c.inFlight++
	} else if m.TTL > 0 {
		w.deadline = l.now + int64(m.TTL)
	}
	c.parked += size
	l.parkedSends++
	l.enqueue(string(m.To), w)
	return verdict{}
}

func (l *loop) enqueue(id string, w waiting) {
	q := l.parked[id]
	if q == nil {
		q = new(parkQueue)
		l.parked[id] = q
		l.eng.cluster.resolver.ask(id, l.idx)
	}
	q.all = append(q.all, w)
}

// parkReturned lets a message that came back from another node wait likewise; false: too many do.
func (l *loop) parkReturned(f *codec.Forward) bool {
	frame := codec.AppendForward(nil, codec.KindForward, f)
	if l.returnedBytes+len(frame) > maxReturned {
		return false
	}
	l.returnedBytes += len(frame)
	w := waiting{frame: frame[codec.PrefixLen:], at: l.now}
	if f.TTL > 0 {
		w.deadline = l.now + int64(f.TTL)
	}
	l.enqueue(string(f.To), w)
	return true
}

// resolved goes on with what waited for id: code is CodeOK if the routes are in place, else how they end.
func (l *loop) resolved(id string, code codec.Code) {
	if code == codec.CodeNoRoute || code == codec.CodeUnreachable {
		l.remember(id, code)
	}
	defer l.senderKnown(id, code)
	q := l.parked[id]
	if q == nil {
		return
	}
	delete(l.parked, id)
	for i := range q.all {
		if w := &q.all[i]; w.conn.Gen == 0 {
			l.goOnReturned(w, code)
		} else {
			l.goOnSend(w, code)
		}
	}
}

// goOnSend ends a parked send, or sends it.
func (l *loop) goOnSend(w *waiting, code codec.Code) {
	l.parkedSends--
	m := &l.send
	if err := codec.DecodeSend(w.frame, m); err != nil {
		panic("engine: a parked frame is corrupt") // it was decoded before
	}
	c := l.conn(w.conn)
	if c == nil {
		l.stats.abandoned++ // with or without ack: its sender is gone, and it was not written
		return
	}
	c.parked -= len(w.frame) + len(m.To)
	if m.Flags&codec.FlagAck != 0 {
		c.inFlight--
	}
	v := verdict{code: code}
	if w.deadline != 0 && w.deadline <= l.now {
		v.code = codec.CodeExpired
	}
	if v.code == codec.CodeOK {
		if w.deadline != 0 {
			m.TTL = uint32(w.deadline - l.now)
		}
		v = c.forwardResolved(m)
	}
	c.finish(m, v)
}

// forwardResolved is forward after the registry was asked: what is not there now is not there.
func (c *conn) forwardResolved(m *codec.Send) verdict {
	if v, known := c.forwardLocal(m); known {
		return v
	}
	if v, known := c.forwardKnown(m); known {
		return v
	}
	return verdict{code: codec.CodeUnreachable}
}

// goOnReturned ends a returned message, or sends it again.
func (l *loop) goOnReturned(w *waiting, code codec.Code) {
	l.returnedBytes -= codec.PrefixLen + len(w.frame)
	f := &l.forward
	if err := codec.DecodeForward(w.frame, codec.KindForward, f); err != nil {
		panic("engine: a parked frame is corrupt") // it was encoded here
	}
	if w.deadline != 0 {
		if w.deadline <= l.now {
			l.endReturned(f, codec.CodeExpired)
			return
		}
		f.TTL = uint32(w.deadline - l.now)
	}
	if code == codec.CodeOK {
		var done bool
		if code, done = l.forwardAgain(f); done {
			return
		}
	}
	l.endReturned(f, code)
}

// dropReturned ends the returned messages that wait (S24). Sends end with their connections.
func (l *loop) dropReturned() {
	for _, q := range l.parked {
		kept := q.all[:0]
		for i := range q.all {
			if w := q.all[i]; w.conn.Gen == 0 {
				l.goOnReturned(&w, codec.CodeUnreachable)
			} else {
				kept = append(kept, w)
			}
		}
		clear(q.all[len(kept):])
		q.all = kept
	}
}

// expireParked ends what has waited past its deadline, without losing its place for the rest.
func (l *loop) expireParked() {
	for _, q := range l.parked {
		kept := q.all[:0]
		for i := range q.all {
			w := q.all[i]
			if w.deadline == 0 || w.deadline > l.now {
				kept = append(kept, w)
			} else if w.conn.Gen == 0 {
				l.goOnReturned(&w, codec.CodeExpired)
			} else {
				l.goOnSend(&w, codec.CodeExpired)
			}
		}
		clear(q.all[len(kept):])
		q.all = kept
	}
}

// resolver asks the registry for the loops: one question at a time, with all IDs that have gathered meanwhile.
type resolver struct {
	eng  *Engine
	wake chan struct{} // of capacity 1

	mu    sync.Mutex
	asked map[string][]uint16 // guarded by mu; the loops that wait for an ID
	queue []string            // guarded by mu; IDs that were not asked for yet
}

func newResolver(e *Engine) *resolver {
	return &resolver{eng: e, wake: make(chan struct{}, 1), asked: make(map[string][]uint16)}
}

// ask promises that the loop will hear of id (see loop.resolved). Any goroutine may call it.
func (r *resolver) ask(id string, loop uint16) {
	r.mu.Lock()
	loops, known := r.asked[id]
	r.asked[id] = append(loops, loop)
	if !known {
		r.queue = append(r.queue, id)
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *resolver) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		}
		for batch := r.take(); len(batch) > 0; batch = r.take() {
			r.answer(batch, r.resolve(ctx, batch))
		}
	}
}

func (r *resolver) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(len(r.queue), resolveBatch)
	batch := r.queue[:n:n]
	r.queue = r.queue[n:]
	return batch
}

// answer tells every loop that asked.
func (r *resolver) answer(ids []string, codes []codec.Code) {
	type word struct {
		id   string
		code codec.Code
	}
	words := make([][]word, len(r.eng.loops))
	r.mu.Lock()
	for i, id := range ids {
		for _, loop := range r.asked[id] {
			words[loop] = append(words[loop], word{id, codes[i]})
		}
		delete(r.asked, id)
	}
	r.mu.Unlock()
	for i, mine := range words {
		if l := r.eng.loops[i]; len(mine) > 0 {
			l.post(func() {
				for _, w := range mine {
					l.resolved(w.id, w.code)
				}
			})
		}
	}
}

// resolve asks the registry who holds the IDs and puts the routes in place.
func (r *resolver) resolve(ctx context.Context, ids []string) []codec.Code {
	codes := make([]codec.Code, len(ids))
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := r.eng.registry.Lookup(ctx, ids)
	ended := make(map[routing.SessionID]bool)
	for i, id := range ids {
		switch {
		case err != nil:
			codes[i] = codec.CodeRegistryUnavailable
		case found[i].Unknown:
			codes[i] = codec.CodeRegistryUnavailable
		case found[i].Binding == routing.Binding{}:
			codes[i] = codec.CodeNoRoute
		default:
			codes[i] = r.install(ctx, id, found[i].Binding, ended)
		}
	}
	return codes
}

// install makes a route of what the registry said. The session may be attached here, without this
// node having been told of the ID; or elsewhere; or nowhere. ended remembers what was asked about sessions before.
func (r *resolver) install(ctx context.Context, id string, b routing.Binding, ended map[routing.SessionID]bool) codec.Code {
	e := r.eng
	if s := e.table.Session(b.Session); s != nil && len(s.Handles()) > 0 {
		e.learn(s, id, b.Epoch)
		return codec.CodeOK
	}
	remote := e.cluster.remote
	if s := remote.Session(b.Session); s != nil && len(s.Handles()) > 0 {
		e.cluster.makeRoom()
		remote.Bind(id, s, b.Epoch)
		return codec.CodeOK
	}
	dead, asked := ended[b.Session]
	if !asked {
		p, err := e.registry.Presence(ctx, b.Session)
		if err != nil {
			return codec.CodeRegistryUnavailable
		}
		dead = p.Dead
		ended[b.Session] = dead
	}
	if dead {
		return codec.CodeNoRoute
	}
	return codec.CodeUnreachable
}

// learn puts a binding of a session of this node into the table, if no newer one is known.
func (e *Engine) learn(s *routing.Session, id string, epoch uint64) {
	done := make(chan struct{})
	// In the ID's lane, so that it cannot come behind an answer that the registry gave later (S12).
	if e.lanes.must(e.lanes.of([]byte(id)), func() { e.table.Bind(id, s, epoch); close(done) }) {
		<-done
	}
}

// makeRoom drops some routes when there are too many. Which ones does not matter much: a route that is
// missed costs one question.
func (c *cluster) makeRoom() {
	if c.remote.Len() < c.eng.cfg.MaxRoutes {
		return
	}
	n := c.eng.cfg.MaxRoutes / 8
	for id, r := range c.remote.All() {
		c.remote.Unbind(id, r.Session, r.Epoch)
		if n--; n <= 0 {
			return
		}
	}
}
