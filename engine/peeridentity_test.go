package engine

import (
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// taken is the line by which a node ends whose name another one has.
const taken = `a node called "n1" already runs at `

// again changes a node's Config so that it is listed beside another node of its name.
func (g *group) again(c *Config) { c.Membership = &hubMember{hub: g.hub, node: "again"} }

// A node is stopped, and its replacement starts elsewhere under its name. When it wakes it ends,
// and nobody else is harmed.
func TestTwinAfterStop(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	for _, id := range []string{"n0", "n1", "n2"} {
		g.nodes = append(g.nodes, g.start(id, 1, func(c *Config) { c.LoopGap = testGap }))
	}
	g.linked(3)
	old := g.nodes[1]
	old.stall(0, func() {
		g.nodes[1] = g.start("n1", 1, g.again)
		g.linked(3)
	})
	if err := old.ended(); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("the one that was stopped ends with %v", err)
	}
	g.linked(3)
	for _, n := range g.nodes {
		n.eventually("health", func() bool { return len(n.Health()) == 0 })
	}
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	a.exchange("a", b, "b")
}

// The membership comes back with another node of this node's name in it, as after a time without
// ZooKeeper. The one that took the name first ends, whichever of the two looks.
func TestTwinInMembership(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0, 1)
	g.nodes = append(g.nodes, g.start("n1", 1, nil))
	other := *g
	other.hub = newHub()
	second := other.start("n1", 1, nil)
	other.hub.record(discovery.Record{ID: "dead", Incarnation: 1, PeerAddr: "127.0.0.1:1"})

	other.hub.mu.Lock()
	other.hub.members["again"] = g.nodes[0].cluster.peers.Record()
	other.hub.tell()
	other.hub.mu.Unlock()
	second.alone(t)

	g.hub.mu.Lock()
	g.hub.members["again"] = second.cluster.peers.Record()
	g.hub.tell()
	g.hub.mu.Unlock()
	want := taken + second.cluster.peers.Record().PeerAddr + ": give one of the two another node ID"
	if err := g.nodes[0].ended(); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
	second.alone(t)
}

// alone checks that a node has looked at those of its name, and goes on.
func (n *node) alone(t *testing.T) {
	t.Helper()
	n.eventually("a look", n.cluster.peers.Settled)
	select {
	case err := <-n.done:
		n.over = true
		t.Fatalf("the one that took the name last ends with %v", err)
	default:
	}
}

// A node that starts under the name of one that lives is refused, even if no membership tells it of
// that one.
func TestTwinStarts(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 3, 1)
	other := *g
	other.hub = newHub() // as a list of peers that each node is given
	other.hub.record(g.nodes[0].cluster.peers.Record())
	other.hub.record(g.nodes[2].cluster.peers.Record())
	if err := other.tryStart("n1"); err == nil || !strings.Contains(err.Error(), taken) {
		t.Errorf("the second n1: %v", err)
	}
	g.linked(3)
	g.nodes[1].alone(t)
}

// Who has not proved that it knows the secret ends nobody.
func TestNameTakenByStranger(t *testing.T) {
	t.Parallel()
	stranger, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	g := startGroup(t, 0, 1)
	n := g.start("n1", 1, nil)
	g.hub.record(discovery.Record{ID: "n2", Incarnation: 1, PeerAddr: stranger.Addr().String()})
	for range 3 {
		nc, err := stranger.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c := clientOn(t, n, nc)
		c.expect(codec.KindPeerHello)
		c.write(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultNameTaken, Flags: codec.ErrorClosing, Message: taken}))
		c.ends()
		nc.Close()
	}
	n.alone(t)
}

// Nodes that do not agree on what they must agree on are not linked, say what differs, and send no
// client to each other.
func TestDisagreement(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, differs string
		change        func(*Config)
	}{
		{"registry", "registry ", func(c *Config) { c.Registry = routing.NewMemory(routing.MemoryConfig{}) }},
		{"window", "resume window 5s there, 2s here", func(c *Config) { c.ResumeWindow = 5 * time.Second }},
		{"payload", "max payload 2048 there, 1048576 here", func(c *Config) { c.MaxPayload = 2048 }},
		{"secret", "secrets for resuming ", func(c *Config) { c.Secret = randomBytes(32) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, id := range []string{"a", "z"} { // which dials, and which is dialled
				g := startGroup(t, 2, 1)
				other := g.start(id, 1, c.change)
				for _, n := range g.nodes {
					n.eventually("health", func() bool {
						h := n.Health()
						return len(h) == 1 && strings.Contains(h[0], "no link to node "+`"`+id+`"`) && strings.Contains(h[0], c.differs)
					})
				}
				other.eventually("its health", func() bool {
					h := other.Health()
					return len(h) == 2 && strings.Contains(h[0], `no link to node "n0": its settings differ`) && strings.Contains(h[1], `"n1": its settings`)
				})
				g.linked(2)
				a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
				a.exchange("a", b, "b")
				if m := a.welcome.Members; len(m) != 2 {
					t.Errorf("clients are told of %v", m)
				}
			}
		})
	}
}

// A registry whose data are others than before is another registry: the links are made anew, and
// compared.
func TestRegistryReplaced(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub()}
	first := &exchangeable{Registry: routing.NewMemory(routing.MemoryConfig{}), id: "one"}
	second := &exchangeable{Registry: first.Registry, id: "one"}
	for i, r := range []*exchangeable{first, second} {
		g.nodes = append(g.nodes, g.start([]string{"n0", "n1"}[i], 1, func(c *Config) { c.Registry = r }))
	}
	g.linked(2)
	second.set("two")
	for _, n := range g.nodes {
		n.eventually("health", func() bool {
			h := n.Health()
			return len(h) == 1 && strings.Contains(h[0], "registry ")
		})
	}
	first.set("two")
	g.linked(2)
	for _, n := range g.nodes {
		n.eventually("health is well", func() bool { return len(n.Health()) == 0 })
	}
}

// Two nodes that announce one address are in health.
func TestOneAddressForTwo(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 1, 1)
	own := g.nodes[0].cluster.peers.Record()
	g.hub.record(discovery.Record{ID: "n7", Incarnation: 1, Addr: "127.0.0.1:1", PeerAddr: own.PeerAddr})
	want := `nodes "n0" and "n7" both announce the address ` + own.PeerAddr + ": give each its own"
	g.nodes[0].eventually("health", func() bool { return slices.Contains(g.nodes[0].Health(), want) })
}

// unreachable is a membership that accepts nothing while it is held.
type unreachable struct {
	hubMember
	asked chan struct{} // of capacity 1: an announcement waits
	held  chan struct{} // closed: it can be reached
}

func (m *unreachable) Announce(ctx context.Context, r discovery.Record) error {
	wake.Nudge(m.asked)
	select {
	case <-m.held:
		return m.hubMember.Announce(ctx, r)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A drain does not wait for an announcement that waits for the membership.
func TestDrainWithoutMembership(t *testing.T) {
	t.Parallel()
	g := startGroup(t, 0, 1)
	m := &unreachable{hubMember: hubMember{hub: g.hub}, asked: make(chan struct{}, 1), held: make(chan struct{})}
	n := g.start("n1", 1, func(c *Config) { c.Membership = m })
	n.eventually("an announcement waits", func() bool { return len(m.asked) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	began := time.Now()
	if err := n.Drain(ctx); err != nil {
		t.Errorf("drain: %v after %v", err, time.Since(began))
	}
	close(m.held)
}

// exchangeable is a registry whose data get another ID.
type exchangeable struct {
	routing.Registry
	mu sync.Mutex
	id string // guarded by mu
}

func (r *exchangeable) Identity() routing.Identity {
	r.mu.Lock()
	defer r.mu.Unlock()
	return routing.Identity{ID: r.id}
}

func (r *exchangeable) set(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.id = id
}
