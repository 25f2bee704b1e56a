package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/internal/asynclog"
	"distmsg/internal/dialing"
)

// Session is an app server's presence in the cluster: it holds IDs, sends from them and receives
// for them. It is attached to one node, or to several at once (Config.Attach), and finds other
// nodes when these are gone. Its bindings and waiting calls survive that. Any goroutine may call
// all methods.
type Session struct {
	// Static after construction.
	cfg Config
	// wraps cfg.Logger so that it never waits: readers and holders of locks log
	log    *asynclog.Logger
	start  time.Time
	inbox  *inbox
	cb     *callbacks
	calls  sync.Pool          // of *call
	stop   context.CancelFunc // of the handlers' context
	seldom *seldom
	dialer *dialing.Dialer // calls cfg.Dialer

	// With locks of their own.
	holds   holdings
	watches watches
	window  budget
	count   counters

	// Shared without a lock.
	live       atomic.Pointer[liveSet] // where sends go
	posts      atomic.Uint64           // the last post's number
	defaultTTL atomic.Uint64           // as the last node announced it, in milliseconds
	leaving    atomic.Bool             // Close has begun to turn messages away

	closing   atomic.Bool     // Close was called
	closeDone chan struct{}   // closed when the first Close has returned
	closeErr  error           // its result
	life      context.Context // ends when Close begins
	endLife   context.CancelFunc
	kept      sync.WaitGroup // the keepers, and what they start

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when live grows
	conns   map[*conn]struct{}
	state   State
	// of the session, with the secret to resume it; nil before the first welcome, and after the
	// session's end
	id      []byte
	secret  []byte
	nodes   nodes
	keepers int // one for each attachment that exists or should exist
	seekers int // those of them that have no connection
}

// liveSet is the connections that sends go to, oldest first. It never changes, but is replaced.
type liveSet struct {
	conns []*conn
	nodes []discovery.Node // nodes[i] is where conns[i] leads
}

// unlimited stands where a budget has no bound.
const unlimited = 1 << 62

// Dial attaches a new session to one of the nodes. It tries each node once and returns an error
// that says for each why it failed, and that wraps ctx's error if ctx ended first, whatever
// Config.Dialer does. If Config.Attach asks for several nodes, the session attaches to the others
// later: OnState and State report them. ctx bounds only Dial; the session lives until Close.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := mayBegin(ctx); err != nil {
		return nil, err
	}
	s := newSession(cfg)
	c, err := s.connect(ctx, s.candidates(nil, "", ""), nil)
	if err != nil {
		s.endLife()
		s.stop()
		return nil, err
	}
	s.keepers = 1
	s.kept.Go(func() { s.keep(c) })
	s.kept.Go(s.follow)
	s.kept.Go(s.keepWatching)
	return s, nil
}

func newSession(cfg Config) *Session {
	ctx, stop := context.WithCancel(context.Background())
	log := asynclog.Wrap(cfg.Logger)
	cfg.Logger = log.Logger
	s := &Session{
		cfg: cfg, start: time.Now(), stop: stop,
		seldom:  &seldom{log: cfg.Logger, logged: make(map[string]*repeated)},
		holds:   holdings{byID: make(map[string]*binding)},
		watches: watches{byID: make(map[string]*watched), wake: make(chan struct{}, 1)},
		changed: make(chan struct{}), closeDone: make(chan struct{}),
		conns: make(map[*conn]struct{}),
		log:   log,
		nodes: nodes{names: make(map[string]string), dialling: make(map[string]bool), news: make(chan struct{})},
	}
	s.dialer = &dialing.Dialer{Func: s.callDialer}
	s.live.Store(new(liveSet))
	s.life, s.endLife = context.WithCancel(context.Background())
	s.calls.New = func() any { return &call{result: make(chan result, 1)} }
	s.cb = newCallbacks(s)
	s.inbox = newInbox(ctx, s)
	s.window.setLimits(cfg.MaxInFlight, cfg.MaxInFlightBytes)
	return s
}

// State returns where the session is attached. It may be called from any goroutine.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close ends the session and its bindings. It waits for the outcomes of sends in flight, returns
// messages that arrive meanwhile to the node, lets the handlers finish, and says bye to the node.
// If ctx ends earlier, or has already ended, Close cuts off the rest: sends end lost, the handlers'
// context ends, and Close returns an error that says so, at most a second after the end of ctx.
//
// Do not call Close from a handler or a callback, because it would wait for itself. A second Close
// waits for the first one and returns its result, or an error that wraps its own context's error if
// that ends first.
func (s *Session) Close(ctx context.Context) error {
	if !s.closing.Swap(true) {
		s.closeErr = s.close(ctx)
		s.log.Flush(flushTime)
		close(s.closeDone)
	} else if !await(ctx, s.closeDone) {
		return fmt.Errorf("client: another Close is still under way: %w", ctx.Err())
	}
	return s.closeErr
}

// closeGrace is how long Close waits, after its context has ended, for connections that it has cut
// off.
const closeGrace = time.Second

// flushTime bounds how long Close waits for the log handler to take the records that are queued.
const flushTime = 100 * time.Millisecond

func (s *Session) close(ctx context.Context) error {
	s.endLife()
	outcomes := s.window.close(ErrClosed)
	s.cb.room.close(ErrClosed)
	kept := make(chan struct{})
	go func() { s.kept.Wait(); close(kept) }()
	finished := await(ctx, kept) && await(ctx, outcomes)
	s.leaving.Store(true)
	finished = finished && await(ctx, s.inbox.drained()) && await(ctx, s.cb.group.Drained())
	for _, c := range s.all() {
		c.bye()
	}
	for _, c := range s.all() {
		finished = finished && await(ctx, c.dead)
	}
	// the last callbacks
	finished = finished && await(ctx, s.inbox.drained()) && await(ctx, s.cb.group.Drained())

	sends, _ := s.window.used()
	jobs, _ := s.inbox.queued()
	jobs += s.cb.group.Pending()
	s.cutOff()
	s.stop()
	s.inbox.close()
	if !finished {
		return fmt.Errorf("client: closed with %d sends and %d messages or callbacks cut off: %w", sends, jobs, ctx.Err())
	}
	s.inbox.stopped.Wait()
	return nil
}

// cutOff closes all connections. It does not wait for connections that do not end promptly: a
// connection of the application's Dialer may take long to close.
func (s *Session) cutOff() {
	grace, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	conns := s.all()
	for _, c := range conns {
		go c.close(ErrClosed)
	}
	for _, c := range conns {
		await(grace, c.dead)
	}
}

// await reports whether done was closed before ctx ended.
func await(ctx context.Context, done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	select {
	case <-done: // both
		return true
	default:
		return false
	}
}

// all returns the connections that have not ended yet.
func (s *Session) all() []*conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	return conns
}

// now returns the milliseconds of the session's clock, which is monotonic.
func (s *Session) now() int64 { return s.at(time.Now()) }

func (s *Session) at(t time.Time) int64 { return t.Sub(s.start).Milliseconds() }

func (s *Session) closed() bool { return s.life.Err() != nil }

// pick returns the connection for a message; nil while there is none.
func (s *Session) pick(from, to string) *conn {
	set := s.live.Load()
	switch len(set.conns) {
	case 0:
		return nil
	case 1:
		return set.conns[0]
	}
	return set.conns[s.cfg.Strategy.Pick(set.nodes, from, to)]
}

// first returns the connection for requests, nil while there is none. It is the same for all
// requests as long as it lives, so that a node handles those about one ID in order.
func (s *Session) first() *conn {
	if set := s.live.Load(); len(set.conns) > 0 {
		return set.conns[0]
	}
	return nil
}

// attached waits for the connection that requests go over. The error is ctx's or ErrClosed.
func (s *Session) attached(ctx context.Context) (*conn, error) {
	for !s.closed() {
		if err := over(ctx); err != nil {
			return nil, err
		}
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if c := s.first(); c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-s.life.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, ErrClosed
}

// publish makes sends go to c, and no longer to old if that is not nil.
func (s *Session) publish(c, old *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old != nil {
		s.remove(old)
		s.moveAway(old)
	}
	if !c.gone { // otherwise it has already died
		set := s.live.Load()
		s.setLive(append(set.conns[:len(set.conns):len(set.conns)], c))
		close(s.changed)
		s.changed = make(chan struct{})
	}
	c.told = true
	s.state = State{Attached: true, Session: c.session, Node: c.node, Addr: c.addr, Resumed: c.resumed, Nodes: s.live.Load().nodes}
	s.tellState()
}

// setLive needs s.mu.
func (s *Session) setLive(conns []*conn) {
	set := &liveSet{conns: conns, nodes: make([]discovery.Node, len(conns))}
	for i, c := range conns {
		set.nodes[i] = discovery.Node{ID: c.node, Addr: c.addr}
	}
	s.live.Store(set)
}

// remove makes sends go to other connections than c, or wait for one. It needs s.mu.
func (s *Session) remove(c *conn) {
	c.gone = true
	if conns := s.live.Load().conns; slices.Contains(conns, c) {
		s.setLive(slices.DeleteFunc(slices.Clone(conns), func(o *conn) bool { return o == c }))
	}
}

// drop records that c is closed.
func (s *Session) drop(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.closed = true
	s.remove(c)
}

// retire moves the session away from c. The session leaves c when all nodes know the new
// connection, and closes it when it is idle.
func (s *Session) retire(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(c)
	if c.told {
		s.lost(c, errMoved)
	}
	s.moveAway(c)
}

// moveAway needs s.mu.
func (s *Session) moveAway(c *conn) {
	c.gone, c.told = true, false
	if c.moved.CompareAndSwap(0, max(s.now(), 1)) {
		close(c.retired)
	}
}

// forget removes a connection that has ended.
func (s *Session) forget(c *conn, cause error) {
	if !s.forgotten(c, cause) {
		return
	}
	if c.lasted() {
		s.seldom.forget()
	}
	s.seldom.say(slog.LevelWarn, c.addr, "distmsg: detached", "node", c.node, "addr", c.addr, "cause", cause)
}

// forgotten is forget without the log, which is not written under a lock. It reports whether the
// session has unintentionally lost one of its attachments with that connection.
func (s *Session) forgotten(c *conn, cause error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.remove(c)
	if !c.told || !s.state.Attached {
		return false
	}
	s.lost(c, cause)
	return !s.closed()
}

// lost reports that c is no longer one of the session's attachments. The caller holds s.mu.
func (s *Session) lost(c *conn, cause error) {
	nodes := s.live.Load().nodes
	s.state = State{Attached: len(nodes) > 0, Session: c.session, Node: c.node, Addr: c.addr, Err: cause, Nodes: nodes}
	s.tellState()
}

// tellState queues the state for OnState. The caller holds s.mu, so that states are reported in
// order.
func (s *Session) tellState() {
	notify(s, s.cfg.OnState != nil, s.cb.states, s.state)
}

// kicked reports a lost ID.
func (s *Session) kicked(k Kick) {
	s.count.kicks.Add(1)
	notify(s, s.cfg.OnKick != nil, s.cb.kicks, k)
}

// admit accepts a welcome: from now on this is the session, and c one of its connections. It
// returns errStranger if c belongs to another session than the one that lives at other nodes, and
// errTwice if the session is already attached to this node. Then the caller must only leave c. It
// returns ErrClosed if the session was closed meanwhile.
func (s *Session) admit(c *conn, f *codec.Welcome) error {
	s.count.attaches.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed() { // under the lock: Close sees all others
		return ErrClosed
	}
	if c.node != "" {
		s.nodes.names[c.addr] = c.node
	}
	if len(f.Members) > 0 {
		s.heardOf(f.Members)
	}
	same := s.id != nil && bytes.Equal(s.id, f.Session)
	if !same && s.hasSettled() {
		return errStranger
	}
	twice := false
	for o := range s.conns {
		twice = twice || same && !o.gone && c.node != "" && o.node == c.node && o.incarnation == c.incarnation
	}
	s.conns[c] = struct{}{}
	if twice {
		s.moveAway(c)
		c.gen = s.holds.generation(false)
		return errTwice
	}
	c.gen = s.holds.generation(!same || !c.resumed)
	s.window.setLimits(min(s.cfg.MaxInFlight, int(min(f.Limits.MaxInFlight, unlimited))), s.cfg.MaxInFlightBytes)
	s.defaultTTL.Store(max(f.Limits.DefaultTTL, 1))
	s.id = append([]byte(nil), f.Session...)
	s.secret = append([]byte(nil), f.Secret...)
	for o := range s.conns {
		// what drains is left when this one is ready
		if o.session != c.session && !o.draining.Load() {
			s.remove(o)
			s.moveAway(o)
		}
	}
	return nil
}

// hasSettled reports whether a connection of the session stays: it is alive and its node does not
// drain. It needs s.mu.
func (s *Session) hasSettled() bool {
	id := hex.EncodeToString(s.id)
	for c := range s.conns {
		if !c.gone && !c.draining.Load() && c.session == id {
			return true
		}
	}
	return false
}

func (s *Session) settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hasSettled()
}

// begin forgets the session that has ended according to c, so that the next attachment starts a new
// one (S17).
func (s *Session) begin(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if hex.EncodeToString(s.id) == c.session {
		s.id, s.secret = nil, nil
	}
}
