package engine

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/routing"
)

// hub is a membership for the nodes of one test.
type hub struct {
	mu       sync.Mutex
	members  map[string]discovery.Record
	watchers map[int]func([]discovery.Record)
	next     int
	twin     *discovery.Record // always listed, too
}

func newHub() *hub {
	return &hub{members: make(map[string]discovery.Record), watchers: make(map[int]func([]discovery.Record))}
}

type hubMember struct {
	hub  *hub
	node string // the key of its record: its ID, unless another node has that
}

func (h *hub) tell() {
	var all []discovery.Record
	for _, m := range h.members {
		all = append(all, m)
	}
	if h.twin != nil {
		all = append(all, *h.twin)
	}
	for _, f := range h.watchers {
		f(all)
	}
}

func (m *hubMember) Announce(_ context.Context, record discovery.Record) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	setDefault(&m.node, record.ID)
	m.hub.members[m.node] = record
	m.hub.tell()
	return nil
}

func (m *hubMember) Withdraw(context.Context) error {
	m.hub.mu.Lock()
	defer m.hub.mu.Unlock()
	delete(m.hub.members, m.node)
	m.hub.tell()
	return nil
}

func (m *hubMember) Watch(ctx context.Context, f func([]discovery.Record)) {
	m.hub.mu.Lock()
	id := m.hub.next
	m.hub.next++
	m.hub.watchers[id] = f
	m.hub.tell()
	m.hub.mu.Unlock()
	<-ctx.Done()
	m.hub.mu.Lock()
	delete(m.hub.watchers, id)
	m.hub.mu.Unlock()
}

// group is a cluster under test.
type group struct {
	t        testing.TB
	hub      *hub
	registry routing.Registry
	nodes    []*node
}

func startGroup(t testing.TB, n, loops int) *group {
	t.Helper()
	return startGroupWith(t, n, loops, func(*Config) {})
}

// startGroupWith is like startGroup, and changes the Config of each node.
func startGroupWith(t testing.TB, n, loops int, change func(*Config), prepare ...func(*Engine)) *group {
	t.Helper()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	for i := range n {
		g.nodes = append(g.nodes, g.start(fmt.Sprintf("n%d", i), loops, change, prepare...))
	}
	g.linked(n)
	return g
}

func (g *group) start(id string, loops int, change func(*Config), prepare ...func(*Engine)) *node {
	g.t.Helper()
	cfg := Config{NodeID: id, Loops: loops, Registry: g.registry, Membership: &hubMember{hub: g.hub},
		ClusterSecret: []byte("the secret of the test cluster"), PeerAddr: "127.0.0.1:0", ResumeWindow: 2 * time.Second}
	if change != nil {
		change(&cfg)
	}
	return start(g.t, cfg, prepare...)
}

// linked waits until every node has a link to every other.
func (g *group) linked(n int) {
	g.t.Helper()
	for _, node := range g.nodes {
		node.eventually("links", func() bool { return node.Stats().Links == n-1 })
	}
}

func TestClusterRelays(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops), func(t *testing.T) {
			g := startGroup(t, 3, loops)
			a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
			for range 3 {
				a.exchange("a", b, "b")
				b.exchange("b", a, "a")
			}
			a.hears(a.send("a", "nobody", "x"), codec.CodeNoRoute)
		})
	}
}

// A node announces a rounded load, so that its record seldom changes.
func TestLoadIsRough(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	for range 9 {
		n.join()
	}
	n.eventually("load", func() bool { return n.cluster.peers.Record().Load == 8 })
}
