// Package capacity estimates what a cluster needs for a number of connected IDs: nodes, Redis and
// network. It multiplies what was measured (docs/benchmarks.md) by what a workload does. It does no
// I/O.
package capacity

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Costs are what one thing takes. Times are CPU time, in microseconds.
type Costs struct {
	Message     float64 // of a node: an acked message between two clients of one node, of many
	Forward     float64 // of both nodes together, of a message between nodes: times Message
	Connection  float64 // bytes of a node: a connection with its session
	ID          float64 // bytes of a node: an ID that is bound there
	Route       float64 // bytes of a node: a cached route to an ID at another node
	WatchedID   float64 // bytes of a node: an ID that a client watches
	Frame       float64 // bytes on the wire besides the payload: one frame, with its two IDs
	RedisID     float64 // bytes of Redis: a bound ID
	RedisBind   float64 // of Redis: a bind or an unbind of one ID
	RedisLookup float64 // of Redis: the look-up of one ID
}

// Measured are the costs that docs/benchmarks.md gives. Frame and WatchedID are estimates.
func Measured() Costs {
	return Costs{
		Message: 1.69, Forward: 2.13, Connection: 2.4 * 1024, ID: 160, Route: 76, WatchedID: 200,
		Frame: 70, RedisID: 57.5, RedisBind: 24, RedisLookup: 6.9,
	}
}

// Workload is what the clients do.
type Workload struct {
	IDs            float64 // that are connected at a time
	MessageRate    float64 // messages that one ID sends in a second; each is acked
	Payload        float64 // bytes of a message
	Stay           float64 // seconds for which an ID is bound; then another is
	Misses         float64 // share of the messages between nodes whose receiver is looked up
	Watched        float64 // IDs that one ID watches
	IDsPerSession  float64 // IDs that one app server holds
	VerifyPeriod   float64 // seconds: --verify-period
	RoutesPerNode  float64 // cached routes: engine.Config.MaxRoutes
	WatchPerSecond float64 // watched IDs that a node looks up in a second, at most
}

// Typical is a workload of people who write to each other now and then.
func Typical(ids float64) Workload {
	return Workload{
		IDs: ids, MessageRate: 0.1, Payload: 128, Stay: 1800, Misses: 0.1, IDsPerSession: 10_000,
		VerifyPeriod: 300, RoutesPerNode: 1_000_000, WatchPerSecond: 50_000,
	}
}

// Machine is one machine for a node, and how much of it may be used.
type Machine struct {
	Cores   float64
	Memory  float64 // bytes
	Network float64 // bits in a second, in each direction
	Used    float64 // the share of all of them that may be used when all nodes run
	MaxIDs  float64 // --max-node-ids
	// --max-node-watched; an ID that two connections watch counts twice
	MaxWatched float64

	RedisMemory float64 // bytes of one Redis master
}

// Common is a machine of middle size.
func Common() Machine {
	return Machine{Cores: 8, Memory: 32 << 30, Network: 10e9, Used: 0.5, MaxIDs: 10_000_000, MaxWatched: 1_000_000, RedisMemory: 16 << 30}
}

// Plan is what a cluster needs. Rates are in a second.
type Plan struct {
	Nodes  int    // so many are needed, and one more that may fail
	Limit  string // why there are no fewer nodes
	Cores  float64
	Memory float64 // bytes of one node
	In     float64 // bits to one node; as many leave it
	ByLink float64 // messages on one link

	Sessions float64
	Messages float64
	Forwards float64 // messages that pass between two nodes

	Masters     int    // of Redis
	RedisLimit  string // why there are no fewer masters
	RedisMemory float64
	RedisCores  float64 // of all masters; each uses one thread
	Binds       float64 // IDs bound and unbound
	Lookups     float64 // IDs looked up for messages
	Verified    float64 // IDs looked up to compare bindings and routes
	Polled      float64 // IDs looked up for watchers
	Rebuild     float64 // seconds that an empty Redis needs to get all bindings again
	News        float64 // seconds until a watcher hears of a change, at most; 0 if nobody watches

	Next []Use // the resources, the scarcest first
}

// Use is how much of a resource the plan uses when all nodes run.
type Use struct {
	What  string
	Share float64 // of what may be used
}

// watchRound is how often a node looks up the IDs that its clients watch, in seconds.
const watchRound = 2

// enough is the limit if a single node, or a single Redis, carries the load.
const enough = "one is enough"

// MaxLinks is the number of nodes that one node links to, at most.
const MaxLinks = 1024

// Estimate returns the plan for a workload. It is an error if no number of nodes is enough.
func Estimate(w Workload, c Costs, m Machine) (Plan, error) {
	for n := 1; n <= MaxLinks+1; n++ {
		if p, uses := estimate(w, c, m, n); uses[0].Share <= 1 {
			// That many carry the load: one more may fail.
			limit := enough
			if n > 1 {
				_, fewer := estimate(w, c, m, n-1)
				limit = fewer[0].What
			}
			p, uses = estimate(w, c, m, n+1)
			p.Limit = limit
			p.Next = append(uses, p.Next...)
			sortUses(p.Next)
			return p, nil
		}
	}
	return Plan{}, fmt.Errorf("more than %d nodes would be needed: split the load over several clusters, or take larger machines", MaxLinks)
}

// estimate returns what n nodes use of their machines, the scarcest first. Redis is in Plan.Next.
func estimate(w Workload, c Costs, m Machine, n int) (Plan, []Use) {
	nodes := float64(n)
	away := 1 - 1/nodes // the share of receivers at other nodes
	p := Plan{Nodes: n, Messages: w.IDs * w.MessageRate, Sessions: math.Ceil(w.IDs / w.IDsPerSession)}
	p.Forwards = p.Messages * away
	p.Cores = (p.Messages + p.Forwards*(c.Forward-1)) * c.Message / 1e6

	routes := math.Min(w.RoutesPerNode, w.IDs*away)
	p.Memory = (w.IDs*c.ID+p.Sessions*c.Connection+w.IDs*w.Watched*c.WatchedID)/nodes + routes*c.Route
	// A message reaches a node as a send and as an ack, and leaves as a delivery and an outcome. A
	// message between nodes does the same on the link.
	p.In = (p.Messages + p.Forwards) * (w.Payload + 2*c.Frame) * 8 / nodes
	if n > 1 {
		p.ByLink = p.Forwards / nodes / (nodes - 1)
	}

	p.Binds = 2 * w.IDs / w.Stay
	p.Lookups = p.Forwards * w.Misses
	p.Verified = (w.IDs + routes*nodes) / w.VerifyPeriod
	if different := math.Min(w.IDs*w.Watched/nodes, w.IDs); different > 0 {
		p.News = math.Max(watchRound, different/w.WatchPerSecond)
		p.Polled = nodes * different / p.News
	}
	p.RedisCores = (p.Binds*c.RedisBind + (p.Lookups+p.Verified+p.Polled)*c.RedisLookup) / 1e6
	p.RedisMemory = w.IDs * c.RedisID
	redis := []Use{{"Redis CPU", p.RedisCores / m.Used}, {"Redis memory", p.RedisMemory / m.RedisMemory / m.Used}}
	sortUses(redis)
	p.Masters = int(math.Max(1, math.Ceil(redis[0].Share)))
	if p.RedisLimit = enough; p.Masters > 1 {
		p.RedisLimit = redis[0].What
	}
	for i := range redis {
		redis[i].Share /= float64(p.Masters)
	}
	p.Rebuild = w.IDs * c.RedisBind / 1e6 / float64(p.Masters)
	p.Next = redis

	uses := []Use{
		{"node CPU", p.Cores / (nodes * m.Cores * m.Used)},
		{"node memory", p.Memory / (m.Memory * m.Used)},
		{"node network", p.In / (m.Network * m.Used)},
		{"IDs of a node", w.IDs / nodes / m.MaxIDs},
		{"watched IDs of a node", w.IDs * w.Watched / nodes / m.MaxWatched},
		{"links of a node", (nodes - 1) / MaxLinks},
	}
	sortUses(uses)
	return p, uses
}

// sortUses puts the scarcest resource first.
func sortUses(uses []Use) {
	slices.SortStableFunc(uses, func(a, b Use) int { return cmp.Compare(b.Share, a.Share) })
}
