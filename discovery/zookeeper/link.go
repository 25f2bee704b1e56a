package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

const (
	maxReceive = maxFrame  // a list of some 80,000 znodes
	maxSend    = 256 << 10 // zk sends at most half of it at once when it sets watches again
)

// errSilent means that a call was not answered in time, and its connection was closed.
var errSilent = errors.New("no answer from ZooKeeper")

// link is the connection to ZooKeeper. The keeper calls through it; zk's goroutines leave their
// news in it.
type link struct {
	// static after construction
	cfg     Config
	servers []string
	wake    chan struct{} // holds one token: there is news

	// Owned by the keeper, and by Close after it.
	conn   *zk.Conn
	dialer *dialer
	ended  <-chan zk.Event // closed when zk's loop has ended
	calls  sync.WaitGroup  // the goroutines of all calls, abandoned ones too

	mu sync.Mutex
	up bool // guarded by mu; there is a session
	// guarded by mu; counts how often up became true: connections, not ZooKeeper's sessions
	session int
	fired   map[string]struct{} // guarded by mu; paths whose watch has gone since the last look
	watched map[string]struct{} // guarded by mu; paths that zk may have watches on
	fault   error               // guarded by mu; why there is no session
}

func connect(cfg Config, servers []string) (*link, error) {
	l := &link{cfg: cfg, servers: servers, wake: make(chan struct{}, 1), fired: make(map[string]struct{})}
	return l, l.connect()
}

func (l *link) connect() (err error) {
	l.watchOnly(nil)
	dialer := newDialer(l.cfg, l.failed, l.allWatched)
	l.dialer = dialer
	l.conn, l.ended, err = zk.Connect(l.servers, l.cfg.SessionTimeout,
		zk.WithHostProvider(dialer), zk.WithDialer(dialer.open), zk.WithEventCallback(l.tell),
		zk.WithLogger(logger{l.cfg.Logger}), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(maxReceive), zk.WithMaxConnBufferSize(maxSend))
	if err != nil {
		return fmt.Errorf("zookeeper: %w", err)
	}
	return nil
}

// renew starts again as if zk had never been connected, because a server that has lost its data
// refuses a client that has seen newer data. There must be no session. It takes a few seconds at
// most.
func (l *link) renew() error {
	l.close()
	return l.connect()
}

// tell is called by zk's goroutines and must not block.
func (l *link) tell(e zk.Event) {
	l.mu.Lock()
	switch {
	case e.Type == zk.EventSession && e.State == zk.StateHasSession:
		l.up, l.fault = true, nil
		l.session++
	case e.Type == zk.EventSession && e.State == zk.StateDisconnected:
		l.up = false
	case e.Type == zk.EventSession && e.State == zk.StateExpired: // the keeper checks this itself
	case e.Type != zk.EventSession && e.Path != "":
		l.fired[e.Path] = struct{}{}
	default:
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// look returns the news. The paths are returned once.
func (l *link) look() (up bool, session int, fired map[string]struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fired, l.fired = l.fired, make(map[string]struct{})
	return l.up, l.session, fired
}

func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fault = err
}

// watch must be called before a request that leaves a watch on path.
func (l *link) watch(path string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched[path] = struct{}{}
}

// watchOnly forgets all other paths. No request may be in progress.
func (l *link) watchOnly(paths map[string]struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watched == nil || len(l.watched) > len(paths) {
		l.watched = make(map[string]struct{}, len(paths))
		maps.Copy(l.watched, paths)
	}
}

func (l *link) allWatched() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Keys(l.watched))
}

// call makes one request. If it is not answered in time, call closes the connection, which also
// ends the request: there is no other way to end a zk call.
func call[T any](ctx context.Context, l *link, request func(*zk.Conn) (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	answer := make(chan outcome, 1)
	conn := l.conn
	l.calls.Go(func() {
		value, err := request(conn)
		answer <- outcome{value, err}
	})
	timeout := time.NewTimer(l.cfg.patience())
	defer timeout.Stop()
	var none T
	select {
	case o := <-answer:
		return o.value, o.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-timeout.C:
		l.mu.Lock()
		l.up = false // until zk reports the next session
		l.mu.Unlock()
		l.dialer.cut()
		return none, errSilent
	}
}

// isLost reports whether err means that there is no connection (any more), so that the caller must
// wait for the next one.
func isLost(err error) bool {
	for _, lost := range []error{
		errSilent, zk.ErrConnectionClosed, zk.ErrNoServer, zk.ErrSessionExpired, zk.ErrClosing, context.Canceled,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}

// state reports whether there is a session and, as far as known, why not.
func (l *link) state() (up bool, fault error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up, l.fault
}

// lastFault returns why there is no session, as far as known.
func (l *link) lastFault() error {
	_, fault := l.state()
	return fault
}

// close ends the session and waits for all goroutines. If ZooKeeper can be reached, the
// registration is removed at once.
func (l *link) close() {
	l.mu.Lock()
	up := l.up
	l.mu.Unlock()
	if !up {
		l.end() // there is no server to notify
	}
	l.conn.Close() // waits a second for the answer
	l.end()
	for range l.ended {
	}
	l.calls.Wait()
}

func (l *link) end() {
	l.dialer.end()
	l.dialer.cut()
}

// logger receives zk's log. The keeper logs the important parts in its own words.
type logger struct{ *slog.Logger }

// Printf implements zk.Logger.
func (l logger) Printf(format string, args ...any) {
	if l.Enabled(context.Background(), slog.LevelDebug) {
		l.Debug("zookeeper: " + fmt.Sprintf(format, args...))
	}
}
