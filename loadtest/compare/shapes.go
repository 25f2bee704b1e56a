package compare

import (
	"fmt"
	"slices"
	"strings"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// The servers.
const (
	floorServer = "floor"
	node        = "node"
	redis       = "redis"
	nats        = "nats"
	node2Loops  = "node, 2 loops"
	node4Loops  = "node, 4 loops"
	nodeTLS     = "node, TLS"
	natsTLS     = "nats, TLS"
	twoNodes    = "node, two of them"
)

// Peers returns the kinds of servers.
func Peers() []string { return []string{floorServer, node, redis, nats} }

// kind returns the peer that a server belongs to.
func kind(server string) string {
	peer, _, _ := strings.Cut(server, ",")
	return peer
}

// shape is a load, and where it goes.
type shape struct {
	group, name, title string
	load               loadtest.Config
	servers            []string
	ratios             []ratio
	metric             result.Metric
	// half names another shape. The rate of this one is half of what the node reached with that one
	// in the same round.
	half string
}

// ratio is two servers that are compared, with the aim.
type ratio struct {
	of, to string
	aim    float64 // 0: none
}

// shapes returns all shapes in the order of the tables.
func shapes() []shape {
	few, many := loadtest.Config{Conns: 200, Window: 1}, loadtest.Config{Conns: 2000, Window: 1}
	send, acked := loadtest.Config{Conns: 200, Window: 50, NoAck: true}, loadtest.Config{Conns: 200, Window: 50}
	kb, kb16 := loadtest.Config{Conns: 200, Window: 8, Payload: 1 << 10}, loadtest.Config{Conns: 200, Window: 8, Payload: 16 << 10}
	crowd := loadtest.Config{Conns: 1001, Fanout: 1000, Rate: 200, NoAck: true}
	toFloor := func(aim float64) []ratio { return []ratio{{node, floorServer, aim}} }
	toPlain := func(aim float64) []ratio { return []ratio{{nodeTLS, node, aim}, {nodeTLS, natsTLS, 1}} }
	toOne, pair := func(aim float64) []ratio { return []ratio{{twoNodes, node, aim}} }, []string{node, twoNodes}
	secure, loops := []string{node, nodeTLS, natsTLS}, []string{node, node2Loops, node4Loops}
	all := []shape{
		{group: "peers", name: "acked-1", title: "acked, 1 in flight", load: few, servers: Peers(), ratios: toFloor(1.1)},
		{group: "peers", name: "send-50", title: "send, 50 in flight", load: send, servers: Peers(), ratios: toFloor(1.4)},
		{group: "peers", name: "acked-50", title: "acked, 50 in flight", load: acked, servers: Peers(), ratios: toFloor(1.4)},
		{group: "peers", name: "acked-1-2000", title: "acked, 1 in flight, 2,000 connections", load: many, servers: Peers(), ratios: toFloor(1.2)},
		{group: "peers", name: "acked-8-1k", title: "acked, 8 in flight, 1 KiB", load: kb, servers: Peers(), ratios: toFloor(1.15)},
		{group: "peers", name: "acked-8-16k", title: "acked, 8 in flight, 16 KiB", load: kb16, servers: Peers(), ratios: toFloor(1.2)},
		{group: "loops", name: "loops", title: "acked, 50 in flight, loops on one core", load: acked, servers: loops,
			ratios: []ratio{{node2Loops, node, 1.15}, {node4Loops, node, 1.3}}},
		{group: "tls", name: "tls-acked-1", title: "acked, 1 in flight", load: few, servers: secure, ratios: toPlain(0)},
		{group: "tls", name: "tls-send-50", title: "send, 50 in flight", load: send, servers: secure, ratios: toPlain(1.35)},
		{group: "tls", name: "tls-acked-50", title: "acked, 50 in flight", load: acked, servers: secure, ratios: toPlain(1.35)},
		{group: "nodes", name: "nodes-acked-1", title: "acked, 1 in flight", load: few, servers: pair, ratios: toOne(0)},
		{group: "nodes", name: "nodes-send-50", title: "send, 50 in flight", load: send, servers: pair, ratios: toOne(2.3)},
		{group: "nodes", name: "nodes-acked-50", title: "acked, 50 in flight", load: acked, servers: pair, ratios: toOne(2.3)},
		{group: "rate", name: "half-rate", title: "acked, half of the node's rate with 50 in flight", load: loadtest.Config{Conns: 200}, servers: Peers(),
			ratios: []ratio{{node, redis, 0}, {node, nats, 0}}, metric: result.P99, half: "acked-50"},
		{group: "fanout", name: "fanout-1000", title: "send to 1,000 others, 200 times a second", load: crowd, servers: Peers(),
			ratios: []ratio{{node, floorServer, 0}, {node, redis, 0}, {node, nats, 0}}},
	}
	for i := range all {
		if all[i].metric == "" {
			all[i].metric = result.ServerCPU
		}
	}
	return all
}

// DefaultShapes are the groups of the shapes that have aims from one sitting.
func DefaultShapes() []string { return []string{"peers", "loops"} }

// All names all shapes.
const All = "all"

// ShapeNames returns what Config.Shapes may name: All, and each group with its shapes.
func ShapeNames() []string {
	names := []string{All}
	for _, s := range shapes() {
		for _, name := range []string{s.group, s.name} {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// choose returns the shapes with these names or groups, at the peers with these names. A ratio
// stays if both servers do.
func choose(names, peers []string) ([]shape, error) {
	for _, p := range peers {
		if !slices.Contains(Peers(), p) {
			return nil, fmt.Errorf("%w: peers has %q, want %s", loadtest.ErrUsage, p, strings.Join(Peers(), ", "))
		}
	}
	for _, name := range names {
		if known := ShapeNames(); !slices.Contains(known, name) {
			return nil, fmt.Errorf("%w: shapes has %q, want %s", loadtest.ErrUsage, name, strings.Join(known, ", "))
		}
	}
	var chosen []shape
	for _, s := range shapes() {
		if !slices.ContainsFunc(names, func(name string) bool { return name == All || name == s.group || name == s.name }) {
			continue
		}
		s.servers = slices.DeleteFunc(slices.Clone(s.servers), func(server string) bool { return !slices.Contains(peers, kind(server)) })
		s.ratios = slices.DeleteFunc(s.ratios, func(r ratio) bool {
			return !slices.Contains(s.servers, r.of) || !slices.Contains(s.servers, r.to)
		})
		if len(s.servers) > 0 {
			chosen = append(chosen, s)
		}
	}
	if len(chosen) == 0 {
		return nil, fmt.Errorf("%w: shapes %s have no server in peers %s", loadtest.ErrUsage, strings.Join(names, ","), strings.Join(peers, ","))
	}
	return chosen, nil
}

// flags returns the load as flags of run.
func (s *shape) flags() string {
	f := fmt.Sprintf("--conns %d", s.load.Conns)
	if s.load.Window > 0 {
		f += fmt.Sprintf(" --window %d", s.load.Window)
	}
	if s.half != "" {
		f += " --rate (half)"
	}
	if s.load.Rate > 0 {
		f += fmt.Sprintf(" --rate %g", s.load.Rate)
	}
	if s.load.Fanout > 0 {
		f += fmt.Sprintf(" --fanout %d", s.load.Fanout)
	}
	if s.load.Payload > 0 {
		f += fmt.Sprintf(" --payload %d", s.load.Payload)
	}
	if s.load.NoAck {
		f += " --no-ack"
	}
	return f
}
