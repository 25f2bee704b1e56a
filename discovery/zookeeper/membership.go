package zookeeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"distmsg/discovery"
)

var errNotYet = errors.New("no answer yet")

// ErrClosed is returned by the methods of a closed Membership.
var ErrClosed = errors.New("zookeeper: the membership is closed")

// Membership is the membership of one cluster. Any goroutine may call its methods, and none blocks
// beyond the end of its context, whatever ZooKeeper does.
type Membership struct {
	// static after Open
	cfg     Config
	dir     string
	view    *view
	link    *link
	ordered chan struct{} // holds one token: the order has changed
	stop    context.CancelFunc
	kept    chan struct{} // closed when the keeper has ended

	mu     sync.Mutex
	order  order  // guarded by mu
	status status // guarded by mu
}

// order is the registration of this node that the keeper has to establish.
type order struct {
	serial uint64
	name   string // of its znode; empty: none
	data   []byte
}

// status is the result of the keeper's work.
type status struct {
	obeyed     uint64        // the serial of the last order that was carried out
	refused    uint64        // the serial of the last order that failed
	orderError error         // why
	listed     bool          // the keeper has read a complete list at least once
	listError  error         // of the last attempt
	trouble    error         // of the last attempt of any kind
	skipped    []string      // what is left out of the list
	changed    chan struct{} // closed when the status changes
}

func (s *status) tried(serial uint64, err error) {
	if err == nil {
		s.obeyed = serial
		return
	}
	s.refused, s.orderError = serial, err
}

var _ discovery.Membership = (*Membership)(nil)

// ConfigError is what Open returns for an invalid Config. Open has not connected then.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// sayAfter is how long Open waits for ZooKeeper before it logs that it waits.
const sayAfter = 500 * time.Millisecond

// Open connects to ZooKeeper and returns when the membership is known. Its error is one line that
// says what to do.
func Open(ctx context.Context, cfg Config) (*Membership, error) {
	cfg, to, err := cfg.validate()
	if err != nil {
		return nil, &ConfigError{err}
	}
	if err := mayBegin(ctx); err != nil {
		return nil, err
	}
	m := &Membership{
		cfg: cfg, dir: to.path + "/nodes", view: newView(),
		ordered: make(chan struct{}, 1),
		kept:    make(chan struct{}),
		status:  status{changed: make(chan struct{})},
	}
	if m.link, err = connect(cfg, to.servers); err != nil {
		return nil, err
	}
	life, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() {
		defer close(m.kept)
		newKeeper(m, m.link).run(life)
	}()
	start, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	defer time.AfterFunc(sayAfter, func() {
		cfg.Logger.Warn("zookeeper: no session yet; still trying", "servers", strings.Join(to.servers, ","), "for_at_most", cfg.StartTimeout, "error", cmp.Or(m.link.lastFault(), errNotYet))
	}).Stop()
	err = m.await(start, func(s *status) (bool, error) { return s.listed, s.listError })
	if err == nil {
		return m, nil
	}
	reason := cmp.Or(m.link.lastFault(), err)
	m.Close()
	if start.Err() == nil || ctx.Err() != nil {
		return nil, err
	}
	return nil, fmt.Errorf("zookeeper: no session with %s within %v: start ZooKeeper, or correct the address: %w",
		strings.Join(to.servers, ","), cfg.StartTimeout, reason)
}

// Close ends the membership and this node's registration. The registration is removed at once if
// ZooKeeper can be reached, and otherwise when the session expires. Close takes a few seconds at
// most.
func (m *Membership) Close() {
	m.stop()
	<-m.kept
	m.link.close()
}

// Announce registers r as this node until Withdraw or Close, and replaces an earlier announcement.
// It returns when that is done, or with an error when ZooKeeper refuses or ctx ends. After an
// error, the keeper continues to try until the next Announce or Withdraw. If ctx has already ended,
// Announce does nothing.
func (m *Membership) Announce(ctx context.Context, r discovery.Record) error {
	if m.cfg.ReadOnly {
		return errors.New("zookeeper: cannot announce a node in a read-only membership")
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("zookeeper: the record of this node cannot be announced: %w", err)
	}
	if err := mayBegin(ctx); err != nil {
		return err
	}
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("zookeeper: %w", err)
	}
	if err := m.obey(ctx, nameOf(r), data); err != nil {
		return fmt.Errorf("%w (the other nodes do not know this node; it will retry)", err)
	}
	return nil
}

// Withdraw removes this node's registration. It returns as Announce does.
func (m *Membership) Withdraw(ctx context.Context) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	return m.obey(ctx, "", nil)
}

// mayBegin is the first step of every call: if the context has already ended, the call does
// nothing.
func mayBegin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("zookeeper: nothing was done: %w", err)
	}
	return nil
}

func (m *Membership) obey(ctx context.Context, name string, data []byte) error {
	m.mu.Lock()
	m.order = order{serial: m.order.serial + 1, name: name, data: data}
	serial := m.order.serial
	m.mu.Unlock()
	select {
	case m.ordered <- struct{}{}:
	default:
	}
	return m.await(ctx, func(s *status) (bool, error) {
		if s.refused < serial {
			return s.obeyed >= serial, nil // an error would belong to an earlier order
		}
		return s.obeyed >= serial, s.orderError
	})
}

// Watch calls f with the records of all nodes, this one's too, now and after each change, until ctx
// ends or the Membership is closed. They are sorted by ID, and records with the same ID from the
// oldest to the newest. A node that was killed and has started again is listed twice until the
// session of its former incarnation expires. While ZooKeeper cannot be asked, the last list stays
// in force. f may keep the slice but not change it.
func (m *Membership) Watch(ctx context.Context, f func([]discovery.Record)) {
	for ctx.Err() == nil {
		records, changed := m.view.allRecords()
		f(records)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-m.kept:
			return
		}
	}
}

// Nodes implements discovery.Membership: the nodes that accept new sessions.
func (m *Membership) Nodes() ([]discovery.Node, <-chan struct{}) { return m.view.allNodes() }

// Err returns why the list may be out of date or this node may not be registered. It returns nil if
// neither is the case.
func (m *Membership) Err() error {
	if up, fault := m.link.state(); !up {
		if fault == nil {
			return fmt.Errorf("zookeeper: no session with %s", strings.Join(m.link.servers, ","))
		}
		return fmt.Errorf("zookeeper: no session with %s: %w", strings.Join(m.link.servers, ","), fault)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.trouble
}

// Skipped names the znodes that are left out of the list because they are not valid records, one
// line for each with the reason. If there are many, it names some.
func (m *Membership) Skipped() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.status.skipped)
}

// await returns when done accepts the status, or when the status has an error that another attempt
// may not fix.
func (m *Membership) await(ctx context.Context, done func(*status) (bool, error)) error {
	for {
		m.mu.Lock()
		ok, err := done(&m.status)
		changed := m.status.changed
		m.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil && !isLost(err) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("zookeeper: no answer yet: %w", ctx.Err())
		case <-m.kept:
			return ErrClosed
		}
	}
}

// The keeper calls the rest.

func (m *Membership) currentOrder() order {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.order
}

func (m *Membership) obeyed() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status.obeyed
}

func (m *Membership) report(change func(*status)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change(&m.status)
	close(m.status.changed)
	m.status.changed = make(chan struct{})
}
