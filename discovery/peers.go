package discovery

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// PeerList is the membership of a cluster whose nodes are known in advance: each node is configured
// with the others, and nobody checks whether they run. It does no I/O. Any goroutine may call all
// methods.
type PeerList struct {
	peers []Record // static

	mu      sync.Mutex
	own     *Record       // guarded by mu; the announced record, or nil
	changed chan struct{} // guarded by mu; closed when own changes
}

// Peers returns the membership that lists these nodes and the node that announces itself. If peers
// name that node, too, its announcement replaces their record. Records of nodes whose incarnation
// is not known have 0.
func Peers(peers ...Record) *PeerList {
	return &PeerList{peers: slices.Clone(peers), changed: make(chan struct{})}
}

// Announce adds r, this node's record, or replaces the previous one by it. It fails only if ctx has
// already ended.
func (p *PeerList) Announce(ctx context.Context, r Record) error {
	return p.set(ctx, &r)
}

// Withdraw removes this node's record. It fails only if ctx has already ended.
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
