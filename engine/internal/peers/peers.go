package peers

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/internal/asynclog"
)

// Engine is what this package needs of the engine. Any goroutine calls the methods.
type Engine interface {
	// Record returns this node's record as it is announced. While the node is joining, the record
	// says that it takes no clients.
	Record() discovery.Record
	// ForClients returns this node as clients hear of it, or nothing if it takes no clients. The
	// caller holds a lock, so it must not wait.
	ForClients() []codec.Member
	// NotifyClients queues a list of nodes for all clients.
	NotifyClients(all []codec.Member)
	// NotifyNodes queues what this node says about itself for all nodes that it has a link to.
	// leaves says that it leaves the cluster.
	NotifyNodes(r discovery.Record, leaves bool)
	// ShakeHands hands a socket that leads to that node to an event loop. It returns when the link
	// is open or has ended. If ctx ends first, the attempt ends too, and the error is ctx's cause.
	ShakeHands(ctx context.Context, nc net.Conn, to discovery.Record) (Link, error)
	// Secure does the TLS handshake on a socket that leads to that node, if nodes use TLS. What it
	// returns is used without a loop. The caller closes the socket, also to interrupt it.
	Secure(nc net.Conn, to discovery.Record) (net.Conn, error)
	// Stopping reports whether the node leaves the membership, or has left it.
	Stopping() bool
	// Fail makes the node end with an error.
	Fail(err error)
}

// Link is a connection to another node.
type Link interface {
	// Wait returns when the link or ctx has ended. up is how long the link was open, or zero if ctx
	// has ended first.
	Wait(ctx context.Context) (up time.Duration)
}

// Membership knows which nodes exist. It is the engine's interface of that name.
type Membership interface {
	Announce(ctx context.Context, r discovery.Record) error
	Withdraw(ctx context.Context) error
	Watch(ctx context.Context, f func([]discovery.Record))
}

// Peers is a node's side towards the other nodes of its cluster. It lives as long as the node, and
// any goroutine may use it.
type Peers struct {
	Members   *Members
	Announcer *Announcer

	// static
	self       *Self
	engine     Engine
	membership Membership
	log        *slog.Logger
	began      time.Time
	// of capacity 1: another node with this node's ID, found before this node takes clients
	twin    chan error
	twins   twins
	dialing *dialing
	finder  *finder

	// shared
	joining    atomic.Bool     // not linked to the others yet
	complained asynclog.Seldom // about links

	taking sync.Mutex         // held while follow follows a new list of nodes
	named  []discovery.Record // guarded by taking; the nodes that the membership lists by name
	wrong  []string           // guarded by taking; what is wrong with the list, a line each
}

// New makes the Peers of a node that is about to join.
func New(self *Self, engine Engine, membership Membership, log *slog.Logger) *Peers {
	p := &Peers{self: self, engine: engine, membership: membership, log: log, began: time.Now(), twin: make(chan error, 1)}
	p.joining.Store(true)
	p.Members = newMembers(p)
	p.Announcer = newAnnouncer(p)
	p.twins = twins{peers: p, doubt: make(chan struct{}, 1)}
	p.dialing = newDialing(p)
	p.finder = newFinder(p)
	return p
}

// Run keeps the node announced and its links up until ctx ends.
func (p *Peers) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { p.Announcer.run(ctx) })
	running.Go(func() { p.twins.run(ctx) })
	running.Go(func() { p.Members.notifyClients(ctx) })
	running.Go(func() { p.finder.run(ctx, func() { p.follow(ctx, &running) }) })
	running.Go(func() {
		p.membership.Watch(ctx, func(all []discovery.Record) {
			p.take(all)
			p.follow(ctx, &running)
		})
	})
	running.Wait()
}

// take stores a new list of nodes.
func (p *Peers) take(all []discovery.Record) {
	named, addrs, wrong := check(all)
	p.taking.Lock()
	p.named, p.wrong = named, wrong
	p.taking.Unlock()
	p.finder.set(addrs)
}

// follow follows the list of nodes, and what was found at addresses in it. It begins to dial nodes
// that are new and stops dialling those that are gone. A link to a node that is no longer listed
// lives on: its heartbeats say whether the node can be reached.
func (p *Peers) follow(ctx context.Context, running *sync.WaitGroup) {
	p.taking.Lock()
	defer p.taking.Unlock()
	found, ready := p.finder.members()
	if !ready {
		return
	}
	var own, others []discovery.Record
	for _, r := range slices.Concat(p.named, found) {
		if r.ID == p.self.Node {
			own = append(own, r)
		} else {
			others = append(others, r)
		}
	}
	p.twins.set(own) // before the list is known, so that Join does not overlook one
	p.dialing.follow(ctx, running, p.Members.set(others, p.wrong))
}

// Joining reports whether this node takes no clients yet.
func (p *Peers) Joining() bool { return p.joining.Load() }

// Record returns this node's record as it is announced. While the node is joining, it counts as one
// that takes no clients.
func (p *Peers) Record() discovery.Record {
	r := p.engine.Record()
	r.Draining = r.Draining || p.Joining()
	return r
}

// Complain logs what is wrong with a link, at most once a second, because nodes and strangers try
// again and again.
func (p *Peers) Complain(message string, args ...any) {
	p.complained.Warn(p.log, time.Since(p.began), message, args...)
}
