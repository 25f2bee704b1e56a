package client

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// Session is an app server's presence among the nodes: it holds IDs, sends from them and receives
// for them. It is attached to one node at a time and finds another when that one is gone; what it
// holds and who waits in it survives that. All methods may be called from any goroutine.
type Session struct {
	// Static after construction.
	cfg   Config
	start time.Time
	inbox *inbox
	calls sync.Pool          // of *call
	stop  context.CancelFunc // of the handlers' context

	// With locks of their own.
	holds  holdings
	window budget
	count  counters

	// Callbacks, each kind in order.
	events   lane // OnKick, OnDrain, OnState
	failures lane // OnPostFailed

	// Shared without a lock.
	current    atomic.Pointer[conn] // where sends go; nil while there is none
	posts      atomic.Uint64        // the last post's number
	defaultTTL atomic.Uint64        // as the last node announced it, in milliseconds
	leaving    atomic.Bool          // Close has begun to turn messages away

	closeOnce sync.Once
	closeErr  error
	life      context.Context // ends when Close begins
	endLife   context.CancelFunc
	kept      chan struct{} // closed when the keeper has ended

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when current is set
	conns   map[*conn]struct{}
	state   State
	stateOf *conn  // the connection that state tells of
	id      []byte // of the session, with the secret to resume it; nil before the first welcome
	secret  []byte
	members []codec.Member // as the last node told them
}

// unlimited stands where a budget has no bound.
const unlimited = 1 << 62

// Dial attaches a new session to one of the nodes. It tries each node once and returns an error that
// says for each why it failed. ctx bounds Dial only; the session lives until Close.
func Dial(ctx context.Context, cfg Config) (*Session, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := newSession(cfg)
	c, err := s.connect(ctx, s.candidates(nil, "", ""))
	if err != nil {
		s.endLife()
		s.stop()
		return nil, err
	}
	go s.keep(c)
	return s, nil
}

func newSession(cfg Config) *Session {
	ctx, stop := context.WithCancel(context.Background())
	s := &Session{
		cfg: cfg, start: time.Now(), stop: stop,
		holds:   holdings{byID: make(map[string]*binding)},
		kept:    make(chan struct{}),
		changed: make(chan struct{}),
		conns:   make(map[*conn]struct{}),
	}
	s.life, s.endLife = context.WithCancel(context.Background())
	s.calls.New = func() any { return &call{result: make(chan result, 1)} }
	s.inbox = newInbox(ctx, s)
	s.window.setLimits(cfg.MaxInFlight, cfg.MaxInFlightBytes)
	return s
}

// State returns where the session is attached.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Close ends the session and its bindings. It lets the sends in flight have their outcomes, hands
// messages that come in the meantime back to the node, lets the handlers finish what they have, and says
// bye to the node. When ctx ends earlier, the rest is cut off: sends end lost, the handlers' context
// ends, and Close returns an error that says so.
//
// Close must not be called from a handler or a callback: it would wait for itself. A second Close returns
// the first one's result.
func (s *Session) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { s.closeErr = s.close(ctx) })
	return s.closeErr
}

func (s *Session) close(ctx context.Context) error {
	s.endLife()
	outcomes := s.window.close(ErrClosed)
	<-s.kept
	finished := await(ctx, outcomes)
	s.leaving.Store(true)
	finished = finished && await(ctx, s.inbox.drained())
	for _, c := range s.live() {
		c.bye()
	}
	for _, c := range s.live() {
		finished = finished && await(ctx, c.dead)
	}
	finished = finished && await(ctx, s.inbox.drained()) // the last callbacks

	sends, _ := s.window.used()
	jobs := s.inbox.queued()
	for _, c := range s.live() {
		c.close(ErrClosed)
		<-c.dead
	}
	s.stop()
	s.inbox.close()
	if !finished {
		return fmt.Errorf("client: closed with %d sends and %d messages or callbacks cut off: %w", sends, jobs, ctx.Err())
	}
	s.inbox.stopped.Wait()
	return nil
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

func (s *Session) live() []*conn {
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

// attached waits for a connection. The error is ctx's or ErrClosed.
func (s *Session) attached(ctx context.Context) (*conn, error) {
	for !s.closed() {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if c := s.current.Load(); c != nil {
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

// publish makes c the connection that sends go to.
func (s *Session) publish(c *conn) {
	s.mu.Lock()
	s.stateOf = c
	s.state = State{Attached: true, Session: c.session, Node: c.node, Addr: c.addr, Resumed: c.resumed}
	s.tellState()
	s.current.Store(c)
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()

	c.mu.Lock()
	shut := c.shut
	c.mu.Unlock()
	if shut { // it died before it was published, and close could not take it back
		s.unpublish(c)
	}
}

// unpublish makes sends wait for another connection than c.
func (s *Session) unpublish(c *conn) { s.current.CompareAndSwap(c, nil) }

// forget removes a connection that has ended.
func (s *Session) forget(c *conn, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if s.stateOf != c || !s.state.Attached {
		return
	}
	s.state.Attached, s.state.Err = false, cause
	s.tellState()
	if !s.closed() {
		s.cfg.Logger.Warn("distmsg: detached", "node", c.node, "addr", c.addr, "cause", cause)
	}
}

// tellState needs s.mu, so that states are told in order.
func (s *Session) tellState() {
	if state := s.state; s.cfg.OnState != nil {
		s.inbox.pushEvent(&s.events, func() { s.cfg.OnState(state) })
	}
}

// kicked tells of a lost ID.
func (s *Session) kicked(k Kick) {
	s.count.kicks.Add(1)
	if s.cfg.OnKick != nil {
		s.inbox.pushEvent(&s.events, func() { s.cfg.OnKick(k) })
	}
}

// admit takes in a welcome: from now on this is the session, and c one of its connections.
func (s *Session) admit(c *conn, f *codec.Welcome) {
	c.gen = s.holds.generation(!c.resumed)
	s.window.setLimits(min(s.cfg.MaxInFlight, int(min(f.Limits.MaxInFlight, unlimited))), s.cfg.MaxInFlightBytes)
	s.defaultTTL.Store(max(f.Limits.DefaultTTL, 1))
	s.count.attaches.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	s.id = append([]byte(nil), f.Session...)
	s.secret = append([]byte(nil), f.Secret...)
	s.members = f.Members
	c.session = hex.EncodeToString(s.id)
}
