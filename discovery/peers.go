package discovery

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// PeerList is the membership of a cluster whose nodes are known beforehand: each node is told the
// others, and nobody finds out whether they run. It does no I/O. All methods may be called from any
// goroutine.
type PeerList struct {
	peers []Record // static

	mu      sync.Mutex
	own     *Record       // guarded by mu; as announced, nil if it is not
	changed chan struct{} // guarded by mu; closed when own is another
}

// Peers returns the membership that lists these nodes and the one that announces itself, which
// peers may name, too: its announcement then stands in the place of that. Records of nodes whose
// incarnation is not known have 0.
func Peers(peers ...Record) *PeerList {
	return &PeerList{peers: slices.Clone(peers), changed: make(chan struct{})}
}

// Announce adds r, this node's record, or puts it in the place of the one before. It succeeds,
// unless ctx has ended before.
func (p *PeerList) Announce(ctx context.Context, r Record) error {
	return p.set(ctx, &r)
}

// Withdraw takes this node's record out. It succeeds, unless ctx has ended before.
func (p *PeerList) Withdraw(ctx context.Context) error {
	return p.set(ctx, nil)
}

func (p *PeerList) set(ctx context.Context, own *Record) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("discovery: nothing was done: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own = own
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// Watch calls f with all nodes, this one first if it is announced, now and after each change, until
// ctx ends. f may keep the slice.
func (p *PeerList) Watch(ctx context.Context, f func([]Record)) {
	for ctx.Err() == nil {
		all, changed := p.all()
		f(all)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (p *PeerList) all() ([]Record, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		return slices.Clone(p.peers), p.changed
	}
	all := []Record{*p.own}
	for _, r := range p.peers {
		if r.ID != p.own.ID {
			all = append(all, r)
		}
	}
	return all, p.changed
}
