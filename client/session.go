package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/internal/asynclog"
	"distmsg/internal/dialing"
)

// Session is an app server's presence in the cluster: it holds IDs, sends from them and receives
// for them. It is attached to one node, or to several at once (Config.Attach), and finds other
// nodes when these are gone. Its bindings and waiting calls survive that. Any goroutine may call
// its methods.
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

	// With locks of their own.
	attachments attachments // its lock also guards nodes and keepers
	nodes       nodes
	keepers     keepers
	holds       holdings
	watches     watches
	window      budget
	count       counters

	// Shared without a lock.
	posts      atomic.Uint64 // the last post's number
	defaultTTL atomic.Uint64 // as the last node announced it, in milliseconds
	leaving    atomic.Bool   // Close has begun to turn messages away

	closing   atomic.Bool     // Close was called
	closeDone chan struct{}   // closed when the first Close has returned
	closeErr  error           // its result
	life      context.Context // ends when Close begins
	endLife   context.CancelFunc
	kept      sync.WaitGroup // the keepers, and what they start
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
	c, err := s.keepers.connect(ctx, s.nodes.candidates(nil, "", ""), nil, &asker{k: &s.keepers})
	if err != nil {
		s.endLife()
		s.stop()
		return nil, err
	}
	s.keepers.running = 1
	s.kept.Go(func() { s.keepers.keep(c) })
	s.kept.Go(s.nodes.follow)
	s.kept.Go(s.watches.keep)
	return s, nil
}

func newSession(cfg Config) *Session {
	ctx, stop := context.WithCancel(context.Background())
	log := asynclog.Wrap(cfg.Logger)
	cfg.Logger = log.Logger
	s := &Session{
		cfg: cfg, log: log, start: time.Now(), stop: stop,
		seldom:    &seldom{log: cfg.Logger, logged: make(map[string]*repeated)},
		holds:     holdings{byID: make(map[string]*binding)},
		closeDone: make(chan struct{}),
	}
	s.attachments = attachments{s: s, changed: make(chan struct{}), conns: make(map[*conn]struct{})}
	s.nodes = nodes{
		s: s, names: make(map[string]string), dialling: make(map[string]bool), news: make(chan struct{}),
	}
	s.watches = watches{s: s, byID: make(map[string]*watched), wake: make(chan struct{}, 1)}
	s.keepers.s = s
	s.keepers.dialer = &dialing.Dialer{Func: s.keepers.callDialer}
	s.attachments.live.Store(new(liveSet))
	s.life, s.endLife = context.WithCancel(context.Background())
	s.calls.New = func() any { return &call{result: make(chan result, 1)} }
	s.cb = newCallbacks(s)
	s.inbox = newInbox(ctx, s)
	s.window.setLimits(cfg.MaxInFlight, cfg.MaxInFlightBytes)
	return s
}

// State returns where the session is attached. Any goroutine may call it.
func (s *Session) State() State {
	s.attachments.mu.Lock()
	defer s.attachments.mu.Unlock()
	return s.attachments.state
}

// Close ends the session and its bindings. It waits for the outcomes of sends in flight, returns
// messages that arrive meanwhile to the node, lets the handlers finish, and says bye to the node.
// If ctx ends earlier, or has already ended, Close cuts off the rest: sends end with lost, the
// handlers' context ends, and Close returns an error that says so, at most a second after the end
// of ctx.
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
	for _, c := range s.attachments.all() {
		c.bye()
	}
	for _, c := range s.attachments.all() {
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
	conns := s.attachments.all()
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

// now returns the milliseconds of the session's clock, which is monotonic.
func (s *Session) now() int64 { return s.at(time.Now()) }

func (s *Session) at(t time.Time) int64 { return t.Sub(s.start).Milliseconds() }

func (s *Session) closed() bool { return s.life.Err() != nil }

// kicked reports a lost ID.
func (s *Session) kicked(k Kick) {
	s.count.kicks.Add(1)
	notify(s, s.cfg.OnKick != nil, s.cb.kicks, k)
}
