package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
	"distmsg/routing"
)

// An in-process session is a connection without a socket: the same frames, the same rules, handed
// over in memory. So its IDs have the same outcomes, order and limits as remote ones.

// InProcessConfig says what an in-process session does with what it gets. Handler, OnKick and
// OnPresence each have a goroutine of their own: calls of one kind come one at a time and in order,
// and do not wait for other kinds. They may block and may call every method of the session except
// Close. A slow Handler fills the session's queue (Config.MaxPending), and senders hear overflow. A
// callback that panics, or ends its goroutine (runtime.Goexit, testing.T.Fatal), is logged with its
// stack and called again for what comes next; one that has not returned after a second or two is
// logged.
type InProcessConfig struct {
	// Identity is what Hooks.Authenticate would have returned.
	Identity string
	// Handler gets the messages. It answers with Ack or Reject; if it does neither, the message is
	// acked when it returns, and rejected if it panics or ends its goroutine. It must not wait for
	// a message to this same session: nothing else is handled meanwhile. A message whose deadline
	// passed while it waited is not handled, because its sender has heard timeout; Stats.Unhandled
	// counts it. Default: everything is rejected.
	Handler func(*Message)
	// OnKick hears that an ID was bound by another session. The session does not hold it any more. While a Bind
	// of that ID is under way it is not called: Bind says how that ended.
	OnKick func(id string, epoch uint64)
	// OnPresence hears what becomes of the IDs that Watch has been called for: the code is CodeOK, or CodeNoRoute with the epoch of the
	// binding that was. Several changes of an ID may become one.
	OnPresence func(Presence)
}

// InProcess is a session of the process that embeds the engine. All methods may be called from any goroutine, but from hooks that
// run on a loop only Post and SendAsync, and those with a context that ends soon: the loop cannot
// make room meanwhile.
//
// If its context has ended before, a call does nothing and returns an error that wraps the
// context's. If a context ends a call, errors.Is finds context.Canceled or context.DeadlineExceeded
// in the error.
type InProcess struct {
	eng  *Engine
	cfg  InProcessConfig
	conn *conn // only its loop touches it

	joined  chan struct{} // closed when the session is open
	session *routing.Session
	ended   chan struct{} // closed when the session is over
	done    chan struct{} // closed when the last callback has returned

	mu       sync.Mutex
	seq      uint64              // guarded by mu
	waiting  map[uint64]call     // guarded by mu
	inFlight int                 // guarded by mu; sends in waiting, and those in outcomes
	held     map[string]*holding // guarded by mu
	in       []byte              // guarded by mu; frames for the loop
	room     sync.Cond           // on mu; broadcast when in has been taken, when inFlight has shrunk, and at the end
	pumping  bool                // guarded by mu; the loop has been asked to read in
	over     bool                // guarded by mu
	queue    []arrival           // guarded by mu
	wake     sync.Cond           // on mu
	queued   atomic.Int64        // bytes in queue
	pump     func()
	handling handling // the handler's goroutine's

	// Callbacks, each kind in a line of its own.
	callbacks *callback.Group
	outcomes  *callback.Line[outcome]
	uncalled  int // guarded by mu; the sends in flight that outcomes has yet to call for
	kicks     *callback.Line[kick]
	changes   *callback.Line[string]
	changed   map[string]Presence // guarded by mu; the IDs in changes, each with what became of it last
}

// kick is an ID that the session has lost.
type kick struct {
	id    string
	epoch uint64
}

// holding is an ID that the session has, or is about to have. Its fields are guarded by InProcess.mu.
type holding struct {
	epoch  uint64 // of the binding; 0: none
	binds  int    // how many binds of it are under way
	kicked uint64 // the greatest epoch of the kicks that have come meanwhile
}

// arrival is a buffer with deliver frames, and when the first of them came.
type arrival struct {
	buf []byte
	at  time.Time
}

// answer is what ends a request.
type answer struct {
	code    codec.Code
	reason  string
	reply   []byte
	results []codec.Result
	reasons map[uint64]string // by index of results
	byCtx   bool              // the deadline of the send was its context's
}

// OpenInProcess begins an in-process session, once the engine is ready. The error wraps ctx's, is ErrStopped if Run has
// ended, or a *SendError of draining.
func (e *Engine) OpenInProcess(ctx context.Context, cfg InProcessConfig) (*InProcess, error) {
	if err := mayBegin(ctx); err != nil {
		return nil, err
	}
	select {
	case <-e.ready:
	case <-e.stopped:
		return nil, ErrStopped
	case <-ctx.Done():
		return nil, fmt.Errorf("engine: not ready: %w", contextError(ctx))
	}
	switch {
	case e.serving.Err() != nil:
		return nil, ErrStopped
	case e.drain.leaving():
		return nil, &SendError{Code: codec.CodeDraining}
	}
	s := &InProcess{
		eng: e, cfg: cfg,
		joined: make(chan struct{}), ended: make(chan struct{}), done: make(chan struct{}),
		waiting: make(map[uint64]call), held: make(map[string]*holding),
	}
	s.wake.L, s.room.L = &s.mu, &s.mu
	s.pump = s.read
	s.newCallbacks()
	l := e.loops[e.nextLoop.Add(1)%uint64(len(e.loops))]
	s.conn = newConn(insideConn, nil, e.cfg.MaxPending)
	s.conn.loop, s.conn.local, s.conn.receiver.takesMany = l, s, true
	l.post(func() {
		l.addConn(s.conn)
		s.conn.state = stateJoining
		j := &join{loop: l, handle: s.conn.handle()}
		j.enqueue(cfg.Identity)
	})
	select {
	case <-s.joined:
		go s.handleAll()
		return s, nil
	case <-s.ended:
		return nil, ErrSessionOver
	case <-e.ctx.Done():
		return nil, ErrSessionOver
	case <-ctx.Done():
		l.post(s.conn.end)
		return nil, fmt.Errorf("engine: not open: %w", contextError(ctx))
	}
}

// ID returns the session's ID.
func (s *InProcess) ID() routing.SessionID { return s.session.ID() }

// Done is closed when the session is over: after Close, when another node has ended it, when it did not keep up, or when the engine stops.
func (s *InProcess) Done() <-chan struct{} { return s.ended }

// Bind makes this session the receiver of ids; another session that holds one is kicked. The error
// joins a *BindError for each ID that was not bound. If ctx ends before the engine has answered,
// the session does not hold the IDs that have no answer yet. If the engine binds one of them later,
// the session unbinds it.
func (s *InProcess) Bind(ctx context.Context, ids ...string) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	var bad []error
	for _, id := range ids {
		if !validID(id) {
			bad = append(bad, &BindError{ID: id, Code: codec.CodeBadID})
		}
	}
	err := s.eachFrame(ctx, ids, func(part []codec.IDEpoch) error {
		holdings := s.beginBind(part)
		late := func(a answer) { s.takeBack(part, a.results) }
		a, err := s.request(ctx, late, func(b []byte, seq uint64) []byte {
			return codec.AppendBind(b, seq, codec.PolicyKickOld, part)
		})
		return s.settleBind(part, holdings, a, err)
	})
	return errors.Join(append(bad, err)...)
}

// beginBind makes IDs the session's own for the time being: deliver may come before the answer.
func (s *InProcess) beginBind(part []codec.IDEpoch) []*holding {
	holdings := make([]*holding, len(part))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, v := range part {
		h := s.held[string(v.ID)]
		if h == nil {
			h = new(holding)
			s.held[string(v.ID)] = h
		}
		h.binds++
		holdings[i] = h
	}
	return holdings
}

// settleBind notes what was bound, and takes back what was not or was kicked already.
func (s *InProcess) settleBind(part []codec.IDEpoch, holdings []*holding, a answer, err error) error {
	errs := []error{err}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, h := range holdings {
		id := string(part[i].ID)
		h.binds--
		if err == nil {
			r := a.results[i]
			switch {
			case r.Code != codec.CodeOK:
				errs = append(errs, &BindError{ID: id, Code: r.Code, Reason: a.reasons[uint64(i)]})
			case r.Epoch < h.kicked:
				errs = append(errs, &BindError{ID: id, Code: codec.CodeSuperseded})
			default:
				h.epoch = max(h.epoch, r.Epoch)
			}
		}
		if h.binds > 0 {
			continue
		}
		h.kicked = 0
		if h.epoch == 0 && s.held[id] == h {
			delete(s.held, id)
		}
	}
	return errors.Join(errs...)
}

// takeBack gives back what was bound for a Bind that has given up, unless the session holds it
// anyway. mu is held.
func (s *InProcess) takeBack(part []codec.IDEpoch, results []codec.Result) {
	var back []codec.IDEpoch
	for i, r := range results {
		switch h := s.held[string(part[i].ID)]; {
		case r.Code != codec.CodeOK:
		case h != nil: // another Bind has come
			h.epoch = max(h.epoch, r.Epoch)
		default:
			back = append(back, codec.IDEpoch{ID: part[i].ID, Epoch: r.Epoch})
		}
	}
	if len(back) > 0 {
		s.append(func(b []byte, seq uint64) []byte { return codec.AppendUnbind(b, seq, back) })
	}
}

// Unbind gives ids back. IDs that the session does not hold are passed over.
func (s *InProcess) Unbind(ctx context.Context, ids ...string) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	return s.eachFrame(ctx, ids, func(part []codec.IDEpoch) error {
		a, err := s.request(ctx, nil, func(b []byte, seq uint64) []byte {
			for i := range part { // not before it is certain that they are asked for
				id := string(part[i].ID)
				if h := s.held[id]; h != nil {
					part[i].Epoch = h.epoch
					delete(s.held, id)
				}
			}
			return codec.AppendUnbind(b, seq, part)
		})
		errs := []error{err}
		for i, r := range a.results {
			if r.Code.Temporary() {
				errs = append(errs, fmt.Errorf("engine: unbind %q: %s", part[i].ID, r.Code))
			}
		}
		return errors.Join(errs...)
	})
}

// Presence is what is known of an ID.
type Presence struct {
	ID    string
	Code  codec.Code // CodeOK: bound; CodeUnreachable: bound, and detached (Lookup only); CodeNoRoute; or why it is not known
	Epoch uint64     // of the binding
}

// Lookup tells of each ID, in the order given, whether anybody holds it. The error is one that leaves all of them open.
func (s *InProcess) Lookup(ctx context.Context, ids ...string) ([]Presence, error) {
	return s.find(ctx, ids, codec.AppendLookup)
}

// Watch has OnPresence called whenever one of ids is bound, by whatever session, or bound no more, until Unwatch. It returns how
// things stand: an ID with CodeOverflow is one too many and is not watched, one with CodeRegistryUnavailable is, and OnPresence hears of it
// when it is known. IDs that are watched already stay so; of those, OnPresence may still hear what was before.
func (s *InProcess) Watch(ctx context.Context, ids ...string) ([]Presence, error) {
	return s.find(ctx, ids, codec.AppendWatch)
}

// Unwatch ends what Watch began. What is on its way to OnPresence still arrives. IDs that are not watched are passed over. It fails if
// the session is over.
func (s *InProcess) Unwatch(ids ...string) error {
	for part := range slices.Chunk(sendableIDs(ids), s.eng.cfg.MaxIDs) {
		if err := s.submit(context.Background(), nil, func(b []byte, _ uint64) []byte { return codec.AppendUnwatch(b, part) }); err != nil {
			return err
		}
	}
	return nil
}

// find asks for ids, as many in a frame as one may hold.
func (s *InProcess) find(ctx context.Context, ids []string, frame func([]byte, uint64, [][]byte) []byte) ([]Presence, error) {
	if err := mayBegin(ctx); err != nil {
		return nil, err
	}
	all := make([]Presence, 0, len(ids))
	for part := range slices.Chunk(sendableIDs(ids), s.eng.cfg.MaxIDs) {
		a, err := s.request(ctx, nil, func(b []byte, seq uint64) []byte { return frame(b, seq, part) })
		if err != nil {
			return nil, err
		}
		for _, r := range a.results {
			all = append(all, Presence{ID: ids[len(all)], Code: r.Code, Epoch: r.Epoch})
		}
	}
	return all, nil
}

// sendableIDs are ids as frames take them. In place of those that are too long, empty ones are answered the same.
func sendableIDs(ids []string) [][]byte {
	out := make([][]byte, len(ids))
	for i, id := range ids {
		if validID(id) {
			out[i] = []byte(id)
		}
	}
	return out
}

func validID(id string) bool { return len(id) > 0 && len(id) <= codec.MaxID }

// eachFrame cuts ids into as many as one frame may hold. It leaves out those that are no IDs.
func (s *InProcess) eachFrame(ctx context.Context, ids []string, f func([]codec.IDEpoch) error) error {
	var errs []error
	ids = slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return !validID(id) })
	for len(ids) > 0 && contextError(ctx) == nil {
		n := min(len(ids), s.eng.cfg.MaxIDs)
		part := make([]codec.IDEpoch, n)
		for i, id := range ids[:n] {
			part[i].ID = []byte(id)
		}
		ids = ids[n:]
		errs = append(errs, f(part))
	}
	if len(ids) > 0 {
		errs = append(errs, fmt.Errorf("engine: %d IDs were not asked for: %w", len(ids), contextError(ctx)))
	}
	return errors.Join(errs...)
}

// Close ends the session; its IDs are no longer bound. It returns nil when the last callback has
// returned, so a callback must not call it. If ctx ends earlier, or has ended before, the session
// ends all the same: Close then does not wait for the callbacks, and returns an error that wraps
// ctx's. It may be called more than once, from any other goroutine.
func (s *InProcess) Close(ctx context.Context) error {
	s.mu.Lock()
	if !s.over { // it needs no room: a session that is full can be closed, too
		s.append(func(b []byte, _ uint64) []byte { return codec.AppendBye(b) })
	}
	s.mu.Unlock()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-s.done: // both
		return nil
	default:
		return fmt.Errorf("engine: the session ends, but not all of its callbacks have returned: %w", contextError(ctx))
	}
}

// read runs on the loop: it takes what was submitted, as OnTraffic takes what came over a socket.
func (s *InProcess) read() {
	c := s.conn
	if c.in.inTurns {
		return // the loop comes back to it when it has handled what it took before
	}
	s.mu.Lock()
	in := s.in
	s.in = nil
	s.pumping = false
	s.room.Broadcast()
	s.mu.Unlock()
	if c.state == stateOpen {
		c.loop.stats.bytesIn += uint64(len(in))
		c.in.take(in)
		c.in.count()
	}
}

// opened runs on the loop when the session is there.
func (s *InProcess) opened(session *routing.Session) {
	s.session = session
	close(s.joined)
}

// receive runs on the loop, in place of a write to a socket. Answers, kicks and changes are passed
// on at once, so that a slow handler cannot hold them up; messages queue for the handler's
// goroutine.
func (s *InProcess) receive(bufs [][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, b := range bufs {
		if !s.control(b) {
			s.conn.loop.bufs.put(b)
			continue
		}
		s.queued.Add(int64(len(b)))
		// What fits behind the last buffer goes there, or a slow handler's queue would hold a whole
		// buffer for each small message.
		if n := len(s.queue); n > 0 && cap(s.queue[n-1].buf)-len(s.queue[n-1].buf) >= len(b) && now.Sub(s.queue[n-1].at) < tickEvery {
			s.queue[n-1].buf = append(s.queue[n-1].buf, b...)
			s.conn.loop.bufs.put(b)
			continue
		}
		s.eng.memory.held.Add(int64(cap(b)))
		s.queue = append(s.queue, arrival{b, now})
	}
	s.wake.Signal()
}

// control passes on what is no message in b and reports whether there is anything else in it. mu is
// held.
func (s *InProcess) control(b []byte) (more bool) {
	eachFrame(b, func(kind codec.Kind, body []byte) {
		switch kind {
		case codec.KindOutcome:
			var f codec.Outcome
			if codec.DecodeOutcome(body, &f) == nil {
				s.answer(f.Seq, answer{code: f.Code, reason: string(f.Reason), reply: append([]byte(nil), f.Reply...)})
			}
		case codec.KindBound, codec.KindUnbound, codec.KindFound, codec.KindWatched:
			var f codec.Results
			if codec.DecodeResults(body, kind, &f) == nil {
				a := answer{results: make([]codec.Result, 0, f.All.Len())}
				for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
					a.results = append(a.results, r)
				}
				for r, ok := f.Reasons.Next(); ok; r, ok = f.Reasons.Next() {
					if a.reasons == nil {
						a.reasons = make(map[uint64]string)
					}
					a.reasons[r.Index] = string(r.Text)
				}
				s.answer(f.Seq, a)
			}
		case codec.KindKick:
			if id, epoch, err := codec.DecodeKick(body); err == nil {
				s.kick(string(id), epoch)
			}
		case codec.KindChanged:
			if all, err := codec.DecodeChanged(body); err == nil {
				for v, ok := all.Next(); ok; v, ok = all.Next() {
					s.change(Presence{ID: string(v.ID), Code: v.Code, Epoch: v.Epoch})
				}
			}
		case codec.KindDeliver, codec.KindDeliverMany:
			more = true
		}
	})
	return more
}

// eachFrame walks a buffer that the engine has filled with whole frames.
func eachFrame(b []byte, f func(kind codec.Kind, body []byte)) {
	for len(b) > 0 {
		body, n, err := codec.Split(b, len(b))
		if err != nil || n == 0 {
			panic("engine: frames for an in-process session are corrupt") // our own bytes, so our own bug
		}
		kind, _ := codec.PeekKind(body)
		f(kind, body)
		b = b[n:]
	}
}

// closed runs on the loop when the session's connection has ended, for whatever reason.
func (s *InProcess) closed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, a := range s.queue {
		s.eng.memory.held.Add(-int64(cap(a.buf)))
	}
	s.queue = nil
	s.endSends()
	close(s.ended)
	s.wake.Signal()
	s.room.Broadcast()
}
