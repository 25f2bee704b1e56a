package loadtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/routing"
)

// hub is the membership of a test's cluster, for its nodes and for the load test.
type hub struct {
	mu      sync.Mutex
	records map[string]discovery.Record
	changed chan struct{}
}

func newHub() *hub {
	return &hub{records: make(map[string]discovery.Record), changed: make(chan struct{})}
}

func (h *hub) set(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	close(h.changed)
	h.changed = make(chan struct{})
}

func (h *hub) list() ([]discovery.Record, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []discovery.Record
	for _, id := range slices.Sorted(maps.Keys(h.records)) {
		all = append(all, h.records[id])
	}
	return all, h.changed
}

// Nodes makes the hub a discovery.Membership.
func (h *hub) Nodes() (nodes []discovery.Node, changed <-chan struct{}) {
	all, changed := h.list()
	for _, r := range all {
		if !r.Draining {
			nodes = append(nodes, discovery.Node{ID: r.ID, Addr: r.Addr})
		}
	}
	return nodes, changed
}

// member is one node's engine.Membership.
type member struct {
	*hub
	id string
}

func (m member) Announce(_ context.Context, r discovery.Record) error {
	m.set(func() { m.records[m.id] = r })
	return nil
}

func (m member) Withdraw(context.Context) error {
	m.set(func() { delete(m.records, m.id) })
	return nil
}

func (m member) Watch(ctx context.Context, f func([]discovery.Record)) {
	for {
		all, changed := m.list()
		f(all)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// cluster runs real nodes that share a registry.
type cluster struct {
	t        *testing.T
	hub      *hub
	registry routing.Registry
	nodes    map[string]*clusterNode
}

type clusterNode struct {
	*engine.Engine
	cancel context.CancelFunc
	ended  chan error
}

func startCluster(t *testing.T, n int) *cluster {
	c := &cluster{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{}), nodes: make(map[string]*clusterNode)}
	t.Cleanup(func() {
		for id := range c.nodes {
			c.stop(id)
		}
	})
	for i := range n {
		c.start(fmt.Sprintf("n%d", i))
	}
	c.linked()
	return c
}

func (c *cluster) start(id string) {
	c.t.Helper()
	e, err := engine.New(engine.Config{NodeID: id, Addr: "127.0.0.1:0", PeerAddr: "127.0.0.1:0", Loops: 1, Registry: c.registry,
		Membership: member{c.hub, id}, Secret: []byte("signs all resume secrets"), ClusterSecret: []byte("known to all the nodes"),
		DrainSpread: 500 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &clusterNode{Engine: e, cancel: cancel, ended: make(chan error, 1)}
	go func() { n.ended <- e.Run(ctx) }()
	select {
	case <-e.Ready():
	case err := <-n.ended:
		cancel()
		c.t.Fatalf("node: %v", err)
	}
	c.nodes[id] = n
}

// stop ends a node without draining it.
func (c *cluster) stop(id string) {
	n := c.nodes[id]
	n.cancel()
	if err := <-n.ended; err != nil {
		c.t.Errorf("node %s: %v", id, err)
	}
	delete(c.nodes, id)
}

// drainTime is the time that a node gets to drain: its grace and more. The drain ends early when
// all clients have left.
const drainTime = 20 * time.Second

// drain makes a node's clients leave, and then ends the node.
func (c *cluster) drain(id string, limit time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := c.nodes[id].Drain(ctx); err != nil {
		c.t.Errorf("drain of %s: %v", id, err)
	}
	c.stop(id)
}

// linked waits until every node has a link to every other one and accepts clients.
func (c *cluster) linked() {
	c.t.Helper()
	c.eventually("links", func() bool {
		for _, n := range c.nodes {
			if n.Stats().Links != len(c.nodes)-1 {
				return false
			}
		}
		open, _ := c.hub.Nodes()
		return len(open) == len(c.nodes)
	})
}

func (c *cluster) eventually(what string, f func() bool) {
	c.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(30 * time.Second); !f(); {
		select {
		case <-tick.C:
		case <-deadline:
			c.t.Errorf("waited in vain for %s", what)
			return
		}
	}
}

// run sends messages until script has injected its faults and messages flow again.
func (c *cluster) run(cfg Config, script func()) *Report {
	c.t.Helper()
	until := make(chan struct{})
	var working sync.WaitGroup
	cfg.Membership, cfg.Warmup, cfg.Duration, cfg.Until = c.hub, -1, 10*time.Minute, until
	setDefault(&cfg.Conns, 12)
	cfg.Window = 4
	var asked func() Snapshot
	cfg.Started = func(snapshot func() Snapshot) {
		asked = snapshot
		working.Go(func() {
			defer close(until)
			flow := func() {
				from := snapshot().Delivered
				c.eventually("deliveries", func() bool {
					s := snapshot()
					return s.DownConnections == 0 && s.Delivered > from+1000
				})
			}
			flow()
			script()
			flow()
		})
	}
	report, err := Run(c.t.Context(), cfg)
	working.Wait()
	if err != nil {
		c.t.Fatal(err)
	}
	if s := asked(); s.Sent != report.Sent || s.Delivered != report.Delivered || s.Acked != report.Acked {
		c.t.Errorf("after the run: %+v, the report has %+v", s, report)
	}
	if code, why := report.Verdict(); code != ExitOK || report.Partial {
		c.t.Errorf("exit code %d (%s): %+v", code, why, report)
	}
	return report
}

func eachDriver(t *testing.T, f func(t *testing.T, cfg Config)) {
	for _, strategy := range []string{"random", "round-robin", "pair-hash"} {
		t.Run("spread,"+strategy, func(t *testing.T) {
			f(t, Config{Driver: DriverSDK, Attach: client.AllNodes, Strategy: strategy})
		})
	}
	for _, d := range []Driver{DriverRelay, DriverSDK} {
		for _, noAck := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,noAck=%v", d, noAck), func(t *testing.T) { f(t, Config{Driver: d, NoAck: noAck}) })
			t.Run(fmt.Sprintf("%s,noAck=%v,fanout", d, noAck), func(t *testing.T) { f(t, Config{Driver: d, NoAck: noAck, Fanout: 4}) })
		}
	}
	t.Run("spread,fanout", func(t *testing.T) { f(t, Config{Driver: DriverSDK, Attach: client.AllNodes, Fanout: 4}) })
}

// TestCross sends all, none, and half of the messages to another node.
func TestCross(t *testing.T) {
	c := startCluster(t, 2)
	for _, share := range []float64{0, 0.5, 1} {
		for _, d := range []Driver{DriverRelay, DriverSDK} {
			r := c.run(Config{Driver: d, Cross: &share}, func() {})
			if r.Cross == nil || *r.Cross < share-0.1 || *r.Cross > share+0.1 || share != 0.5 && *r.Cross != share {
				t.Errorf("%s: a share of %v, want %v", d, r.Cross, share)
			}
			if r.Sent != r.Acked {
				t.Errorf("%d sent, outcomes %v", r.Sent, r.Outcomes)
			}
		}
	}
}

// TestSixteenNodes sends between 160 connections at 16 nodes, which all have links to each other.
// Every message goes from one node to another.
func TestSixteenNodes(t *testing.T) {
	c := startCluster(t, 16)
	share := 1.0
	r := c.run(Config{Conns: 160, Cross: &share}, func() {})
	if r.Sent != r.Acked || r.Cross == nil || *r.Cross != share {
		t.Errorf("%d sent, outcomes %v, a share of %v between nodes", r.Sent, r.Outcomes, r.Cross)
	}
	used := 0
	for _, n := range c.nodes {
		if n.Stats().Sends > 0 {
			used++
		}
	}
	if used < 8 {
		t.Errorf("clients have sent through %d nodes of 16", used)
	}
}

func TestCrossNeedsNodes(t *testing.T) {
	c := startCluster(t, 1)
	share := 1.0
	if _, err := Run(t.Context(), Config{Membership: c.hub, Cross: &share}); err == nil || errors.Is(err, ErrUsage) {
		t.Errorf("one node: %v", err)
	}
	if _, err := Run(t.Context(), Config{Membership: newHub()}); err == nil {
		t.Error("no node, and no error")
	}
	for _, cfg := range []Config{
		{Cross: &share}, {Cross: &share, Nodes: []string{"a:1"}}, {Cross: &share, Nodes: []string{"a:1", "b:1"}, Conns: 1},
		{Membership: c.hub, Nodes: []string{"a:1"}}, {Membership: c.hub, Driver: DriverNATS},
	} {
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrUsage) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

// TestDrainedNode drains one node of three. No send may fail.
func TestDrainedNode(t *testing.T) {
	long(t)
	eachDriver(t, func(t *testing.T, cfg Config) {
		c := startCluster(t, 3)
		limit := drainTime
		// the node stays until the grace is over, because it does not know when all has arrived
		if cfg.NoAck && cfg.Driver == DriverRelay {
			limit = 7 * time.Second
		}
		r := c.run(cfg, func() { c.drain("n1", limit) })
		if !cfg.NoAck && r.Acked != r.Sent {
			t.Errorf("%d sent, outcomes %v", r.Sent, r.Outcomes)
		}
		if r.Drains == 0 || cfg.Attach != client.AllNodes && r.Moves == 0 {
			t.Errorf("%d connections were told to leave, %d moved", r.Drains, r.Moves)
		}
	})
}

// TestStoppedNode ends one node of three without a drain, and starts it again.
func TestStoppedNode(t *testing.T) {
	long(t)
	eachDriver(t, func(t *testing.T, cfg Config) {
		c := startCluster(t, 3)
		r := c.run(cfg, func() {
			c.stop("n1")
			c.start("n1")
			c.linked()
		})
		if r.LostConnections == 0 {
			t.Error("no connection was lost")
		}
	})
}

// TestRollingRestart drains and replaces all nodes, one by one. Each new node has another address
// than the old one.
func TestRollingRestart(t *testing.T) {
	long(t)
	c := startCluster(t, 3)
	r := c.run(Config{}, func() {
		for _, id := range []string{"n0", "n1", "n2"} {
			c.drain(id, drainTime)
			c.start(id)
			c.linked()
		}
	})
	if r.Acked != r.Sent || r.Moves < 12 {
		t.Errorf("%d sent, outcomes %v, %d moves, %d connections lost", r.Sent, r.Outcomes, r.Moves, r.LostConnections)
	}
}
