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

// Membership is the membership of one cluster. Its methods may be called from any goroutine, and
// none blocks longer than its context says, whatever ZooKeeper does.
type Membership struct {
	// static after Open
	cfg     Config
	dir     string
	view    *view
	link    *link
	ordered chan struct{} // holds one: the order has changed
	stop    context.CancelFunc
	kept    chan struct{} // closed when the keeper has ended

	mu     sync.Mutex
	order  order  // guarded by mu
	status status // guarded by mu
}

// order is what the keeper is to make of this node.
type order struct {
	serial uint64
	name   string // of its znode; empty: none
	data   []byte
}

// status is what the keeper has come to.
type status struct {
	obeyed     uint64        // the serial of the last order that was obeyed
	refused    uint64        // the serial of the last order that was not
	orderError error         // why
	listed     bool          // there was a complete list at least once
	listError  error         // of the last attempt
	trouble    error         // of the last attempt at anything
	skipped    []string      // what is left out of the list
	changed    chan struct{} // closed when there is another status
}

func (s *status) tried(serial uint64, err error) {
	if err == nil {
		s.obeyed = serial
		return
	}
	s.refused, s.orderError = serial, err
}

var _ discovery.Membership = (*Membership)(nil)

// ConfigError is what Open returns for a Config that cannot be. Nothing was connected then.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// sayAfter is how long Open waits for ZooKeeper in silence.
const sayAfter = 500 * time.Millisecond

// Open connects to ZooKeeper and returns when the membership is known, or with one line that says
// what to do.
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

// Close ends everything, and with it this node's registration: at once if ZooKeeper can be reached,
// else when the session expires. It takes a few seconds at most.
func (m *Membership) Close() {
	m.stop()
	<-m.kept
	m.link.close()
}

// Announce makes r known as this node until Withdraw or Close, in the place of what was announced
// before. It returns when that is done, or with an error when ZooKeeper refuses or ctx ends. After
// an error it is still attempted, until the next Announce or Withdraw. If ctx has ended before,
// nothing is attempted.
func (m *Membership) Announce(ctx context.Context, r discovery.Record) error {
	if m.cfg.ReadOnly {
		return errors.New("zookeeper: announced in a membership that is read-only")
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
		return fmt.Errorf("%w (this node is not known to the others; the attempt goes on)", err)
	}
	return nil
}

// Withdraw takes this node out. It returns as Announce does.
func (m *Membership) Withdraw(ctx context.Context) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	return m.obey(ctx, "", nil)
}

// mayBegin is what every call asks first: a context that has ended before lets nothing be done.
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
			return s.obeyed >= serial, nil // an error would be that of an earlier order
		}
		return s.obeyed >= serial, s.orderError
	})
}

// Watch calls f with the records of all nodes, this one's too, now and after each change, until ctx
// ends or the Membership is closed. They are sorted by ID, those with one ID from the oldest to the
// newest: a node that was killed and has started again is listed twice until the session of its
// former self expires. While ZooKeeper cannot be asked, the last list stands. f may keep the slice
// but not change it.
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

// Nodes implements discovery.Membership: the nodes that take new sessions.
func (m *Membership) Nodes() ([]discovery.Node, <-chan struct{}) { return m.view.allNodes() }

// Err returns why the list may be out of date, or this node not be registered; nil if all is well.
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

// Skipped names the znodes that are left out of the list because they are no records of nodes, with
// what is wrong, a line each. Of many it names some.
func (m *Membership) Skipped() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.status.skipped)
}

// await returns when there is a status that is done, or that has an error which another attempt may
// not cure.
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

// The rest is for the keeper.

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
