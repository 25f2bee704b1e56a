package engine

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/routing"
)

// addresses is a membership that names addresses only, as DNS does.
type addresses struct {
	mu      sync.Mutex
	all     []discovery.Record // guarded by mu
	changed chan struct{}      // guarded by mu; closed when all changes
}

func (a *addresses) set(addrs ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.all = nil
	for _, addr := range addrs {
		a.all = append(a.all, discovery.Record{PeerAddr: addr})
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

func (a *addresses) Announce(context.Context, discovery.Record) error { return nil }

func (a *addresses) Withdraw(context.Context) error { return nil }

func (a *addresses) Watch(ctx context.Context, f func([]discovery.Record)) {
	for ctx.Err() == nil {
		a.mu.Lock()
		all, changed := a.all, a.changed
		a.mu.Unlock()
		if len(all) > 0 {
			f(all)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Nodes that know only addresses link with each other, send clients to each other, and notice at
// once when one of them drains or leaves.
func TestNodesAtAddresses(t *testing.T) {
	t.Parallel()
	g := &group{t: t, registry: routing.NewMemory(routing.MemoryConfig{})}
	list := &addresses{changed: make(chan struct{})}
	var addrs []string
	for i := range 3 {
		n := g.start(fmt.Sprintf("n%d", i), 2, func(c *Config) { c.Membership = list })
		if links := n.Stats().Links; links != i {
			t.Errorf("%s accepts clients with %d links", n.NodeID(), links)
		}
		g.nodes = append(g.nodes, n)
		addrs = append(addrs, n.acceptor.peerListener.Addr().String())
		list.set(addrs...)
	}
	g.linked(3)
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	a.exchange("a", b, "b")
	told := func(n *node) (names []string) {
		for _, m := range n.cluster.peers.Members.List() {
			names = append(names, m.Node)
		}
		return names
	}
	for _, n := range g.nodes {
		n.eventually("clients are told of all nodes", func() bool { return slices.Equal(told(n), []string{"n0", "n1", "n2"}) })
		if health := n.Health(); len(health) > 0 {
			t.Errorf("health: %q", health)
		}
	}
	leaver := g.nodes[2]
	left := routing.Presence{Node: leaver.NodeID(), Incarnation: leaver.Incarnation()}
	go func() { _ = leaver.Drain(t.Context()) }()
	for _, n := range g.nodes[:2] {
		n.eventually("nobody is sent to a node that drains", func() bool { return !slices.Contains(told(n), leaver.NodeID()) })
	}
	if err := leaver.stop(); err != nil {
		t.Error(err)
	}
	for _, n := range g.nodes[:2] {
		n.eventually("a node that has left is no member", func() bool {
			return n.Stats().Links == 1 && !slices.Contains(n.cluster.peers.Members.Troubles(), `no link to node "n2"`)
		})
		n.eventually("who has left is gone", func() bool { return n.Gone(left) })
		if n.Gone(routing.Presence{Node: "unknown", Incarnation: 1}) {
			t.Error("who may be found yet is gone")
		}
	}
	a.hears(a.send("a", "nobody", "x"), codec.CodeNoRoute)
}
