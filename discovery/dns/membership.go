package dns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"distmsg/discovery"
	"distmsg/internal/asynclog"
)

// ErrClosed is returned by the methods of a closed Membership.
var ErrClosed = errors.New("dns: the membership is closed")

// ConfigError is what Open returns for an invalid Config. Open has looked nothing up then.
type ConfigError struct{ err error }

func (e *ConfigError) Error() string { return e.err.Error() }
func (e *ConfigError) Unwrap() error { return e.err }

// retryAfter is the pause between two attempts of Open.
const retryAfter = 500 * time.Millisecond

// Membership is a list of addresses from DNS. Any goroutine may call its methods, and none blocks
// beyond the end of its context, whatever DNS does.
type Membership struct {
	// static after Open
	cfg   Config
	to    target
	stop  context.CancelFunc
	ended chan struct{} // closed when the goroutine that looks up has ended

	lookups *lookups // owned by Open, and then by that goroutine
	last    string   // owned by the same; the last complaint

	mu      sync.Mutex
	records []discovery.Record // guarded by mu; nil: none known yet
	nodes   []discovery.Node   // guarded by mu
	changed chan struct{}      // guarded by mu; closed when records is replaced
	skipped []string           // guarded by mu
	trouble error              // guarded by mu; of the last round
}

var _ discovery.Membership = (*Membership)(nil)

// Open looks the nodes up, and returns when DNS has answered. If the answer names no address, the
// list is not known yet. The error is one line that says what to do.
func Open(ctx context.Context, cfg Config) (*Membership, error) {
	cfg, to, err := cfg.validate()
	if err != nil {
		return nil, &ConfigError{err}
	}
	if err := mayBegin(ctx); err != nil {
		return nil, err
	}
	cfg.Logger = asynclog.Wrap(cfg.Logger).Logger
	m := &Membership{
		cfg: cfg, to: to, ended: make(chan struct{}), changed: make(chan struct{}),
		lookups: &lookups{to: to, resolver: to.resolver()},
	}
	start, cancel := context.WithTimeout(ctx, cfg.StartTimeout)
	defer cancel()
	for {
		err := m.refresh(start)
		if err == nil || errors.Is(err, errNothing) || m.isKnown() {
			break
		}
		if !pause(start, retryAfter) {
			if err := ctx.Err(); err != nil {
				return nil, fmt.Errorf("dns: no answer yet: %w", err)
			}
			return nil, fmt.Errorf("dns: no answer within %v: correct the name, or repair DNS: %w", cfg.StartTimeout, err)
		}
	}
	life, stop := context.WithCancel(context.Background())
	m.stop = stop
	go m.run(life)
	return m, nil
}

// Close ends the lookups.
func (m *Membership) Close() {
	m.stop()
	<-m.ended
}

// Announce does nothing, because nobody announces nodes in DNS. It fails only if ctx has already
// ended, or after Close.
func (m *Membership) Announce(ctx context.Context, _ discovery.Record) error { return m.nothing(ctx) }

// Withdraw does nothing, as Announce does.
func (m *Membership) Withdraw(ctx context.Context) error { return m.nothing(ctx) }

func (m *Membership) nothing(ctx context.Context) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	select {
	case <-m.ended:
		return ErrClosed
	default:
		return nil
	}
}

// mayBegin is the first step of every call: if the context has already ended, the call does
// nothing.
func mayBegin(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("dns: nothing was done: %w", err)
	}
	return nil
}

// Watch calls f with a record for each address, sorted by address, until ctx ends or the Membership
// is closed. It calls f as soon as there is an address, and after each change. The list never
// becomes empty. f may keep the slice but not change it.
func (m *Membership) Watch(ctx context.Context, f func([]discovery.Record)) {
	for ctx.Err() == nil {
		records, changed := m.list()
		if records != nil {
			f(records)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		case <-m.ended:
			return
		}
	}
}

// Nodes implements discovery.Membership: all addresses, of nodes whose names are not known.
func (m *Membership) Nodes() ([]discovery.Node, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.nodes, m.changed
}

// Err returns why the list may be out of date, or nil if DNS has answered the last lookup.
func (m *Membership) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

// Skipped names what DNS lists and no node can have as its address, one line for each.
func (m *Membership) Skipped() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.skipped)
}

func (m *Membership) list() ([]discovery.Record, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records, m.changed
}

func (m *Membership) isKnown() bool {
	records, _ := m.list()
	return records != nil
}

func (m *Membership) run(ctx context.Context) {
	defer close(m.ended)
	for pause(ctx, time.Duration((0.8+0.4*rand.Float64())*float64(m.cfg.Refresh))) {
		_ = m.refresh(ctx) // Err has it
	}
}

// pause waits for d. It returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// refresh looks everything up once. It returns why the list may be out of date.
func (m *Membership) refresh(ctx context.Context) error {
	round, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	all, skipped, err := m.lookups.round(round)
	if ctx.Err() != nil {
		return errors.Join(err, ctx.Err())
	}
	if err != nil {
		err = fmt.Errorf("dns: %w", err)
	}
	m.complain(err)
	if before := m.publish(all, skipped, err); before >= 0 {
		m.cfg.Logger.Info("dns: the addresses of the nodes have changed", "name", m.to.name, "before", before, "now", len(all))
	}
	return err
}

// complain logs a failure once, and its end.
func (m *Membership) complain(err error) {
	if err == nil {
		if m.last != "" {
			m.cfg.Logger.Info("dns: answers again", "name", m.to.name)
		}
		m.last = ""
		return
	}
	if text := err.Error(); text != m.last {
		m.last = text
		m.cfg.Logger.Warn("dns: the lookup has failed; the last list of addresses stays in force", "name", m.to.name, "error", err)
	}
}

// publish stores the result of a round. Of an empty list, only the reason counts. It returns how
// many addresses there were before, or -1 if they have not changed.
func (m *Membership) publish(all []discovery.Record, skipped []string, err error) (before int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trouble = err
	if len(all) == 0 {
		return -1
	}
	m.skipped = skipped
	if slices.Equal(all, m.records) {
		return -1
	}
	before = len(m.records)
	m.records, m.nodes = all, nil
	for _, r := range all {
		m.nodes = append(m.nodes, discovery.Node{Addr: r.PeerAddr})
	}
	close(m.changed)
	m.changed = make(chan struct{})
	return before
}
