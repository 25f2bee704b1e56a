package engine

import (
	"context"
	"math/bits"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/peers"
	"distmsg/engine/internal/wake"
	"distmsg/internal/asynclog"
	"distmsg/routing"
)

// Membership tells which nodes exist. The engine announces its own node and watches the others.
// Its methods are called from goroutines of their own and may block until ctx ends.
type Membership interface {
	// Announce makes m known as this node until Withdraw, and again with other contents whenever it is called again.
	Announce(ctx context.Context, m discovery.Record) error
	// Withdraw takes this node out.
	Withdraw(ctx context.Context) error
	// Watch calls f with all members, now and after each change, until ctx ends. While the source
	// cannot be asked, the last list stands.
	Watch(ctx context.Context, f func([]discovery.Record))
}

// cluster is what a node knows of the others: who they are, which of them it has a link to, which
// sessions are attached there, and the routes that lead to those.
type cluster struct {
	// static
	eng  *Engine
	self *peers.Self // what this node says of itself in handshakes
	// remote holds the sessions that are attached elsewhere, with the links that lead to them in place of
	// connections, and the routes that the registry has told of.
	remote   *routing.Table
	resolver *resolver
	holders  *holders
	overs    *overs
	changed  chan struct{} // of capacity 1: this node's record is not what was announced
	news     chan struct{} // of capacity 1: the list of nodes that clients are sent may have changed
	twin     chan error    // of capacity 1: another node with this node's ID, that must be heard of before this one takes clients
	doubt    chan struct{} // of capacity 1: look now who else has this node's ID
	dialling dialling      // the attempts to link with them that are under way

	// shared
	open       atomic.Pointer[[]routing.Handle] // of the open links; replaced, never changed
	detaching  atomic.Int32                     // links that have ended, and whose sessions are not all forgotten yet
	complained asynclog.Seldom                  // about links

	announcing chan struct{} // of capacity 1: a token while announcing or withdrawing, so that no older record comes behind a newer one, or the end

	mu       sync.Mutex
	outdated func()                      // guarded by mu; ends the announcement under way
	listing  []codec.Member              // guarded by mu; what a client that comes now is told
	listings uint64                      // guarded by mu; how often that has changed
	listed   bool                        // guarded by mu; the membership has been told once
	alike    []discovery.Record          // guarded by mu; records with this node's ID that are not this incarnation's
	doubtful bool                        // guarded by mu; nobody has looked at alike yet
	refused  map[string]string           // guarded by mu; by node, why there is no link to it
	skipped  []string                    // guarded by mu; what is listed and left out, a line each
	beyond   int                         // guarded by mu; of that, how many nodes are too many
	members  map[string]discovery.Record // guarded by mu; by node, without this one
	dialers  map[string]func()           // guarded by mu; by node, stops the dialling
	links    map[string]*link            // guarded by mu; by node, the open ones
}

func newCluster(e *Engine) *cluster {
	c := &cluster{
		eng:     e,
		remote:  routing.NewTable(),
		changed: make(chan struct{}, 1),
		news:    make(chan struct{}, 1),
		twin:    make(chan error, 1),
		doubt:   make(chan struct{}, 1),
		refused: make(map[string]string),

		dialling: newDialling(),

		announcing: make(chan struct{}, 1),

		members: make(map[string]discovery.Record),
		dialers: make(map[string]func()),
		links:   make(map[string]*link),
	}
	c.self = &peers.Self{
		Node: e.cfg.NodeID, Cluster: e.cfg.Cluster, Secret: e.cfg.ClusterSecret,
		MinVersion: codec.PeerVersion, MaxVersion: codec.PeerVersion,
		Identity: e.identity, ClientAddr: func() string { return e.member().Addr },
	}
	c.resolver = newResolver(e)
	c.holders = newHolders(e)
	c.overs = newOvers(overRounds*e.cfg.VerifyPeriod, maxOvers)
	c.open.Store(new([]routing.Handle))
	return c
}

// run keeps the node announced and its links up until ctx ends.
func (c *cluster) run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.resolver.run(ctx) })
	running.Go(func() { c.holders.run(ctx) })
	running.Go(func() { c.keepRoutes(ctx) })
	running.Go(func() { c.keepAnnounced(ctx) })
	running.Go(func() { c.lookForTwins(ctx) })
	running.Go(func() { c.notifyClients(ctx) })
	running.Go(func() {
		c.eng.cfg.Membership.Watch(ctx, func(all []discovery.Record) { c.setMembers(ctx, &running, all) })
	})
	running.Wait()
}

// loadEvery is how often a node looks whether it has to announce another load.
const loadEvery = 10 * time.Second

// keepAnnounced announces this node, and again after each change.
func (c *cluster) keepAnnounced(ctx context.Context) {
	tick := time.NewTicker(loadEvery)
	defer tick.Stop()
	for {
		load := c.eng.member().Load
		c.announce(ctx)
		if !c.waitChange(ctx, tick.C, load) {
			return
		}
	}
}

// waitChange returns when this node's record is not what was announced with that load; false: ctx has ended.
func (c *cluster) waitChange(ctx context.Context, tick <-chan time.Time, load int) bool {
	for {
		select {
		case <-c.changed:
			return true
		case <-tick:
			if c.eng.member().Load != load {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// roughly keeps the three highest bits of a number, so that it seldom changes.
func roughly(n int) int {
	low := max(0, bits.Len(uint(n))-3)
	return n >> low << low
}

// announceSoon has this node's record announced anew.
func (c *cluster) announceSoon() { wake.Nudge(c.changed) }

// announce announces this node's record as it is now. An announcement that is under way carries an
// older one and ends: it may wait for as long as the membership cannot be reached.
func (c *cluster) announce(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !c.takeTurn(ctx, cancel) {
		return
	}
	defer func() { <-c.announcing }()
	if c.eng.serving.Err() != nil {
		return // it is withdrawn, or about to be
	}
	if err := c.eng.cfg.Membership.Announce(ctx, c.eng.member()); err != nil && ctx.Err() == nil {
		c.eng.cfg.Logger.Warn("cannot announce this node", "error", err)
	}
}

// takeTurn ends the announcement under way and waits until it has ended. It returns false if ctx
// ends first.
func (c *cluster) takeTurn(ctx context.Context, cancel func()) bool {
	c.mu.Lock()
	outdated := c.outdated
	c.outdated = cancel
	c.mu.Unlock()
	if outdated != nil {
		outdated()
	}
	select {
	case c.announcing <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// member is this node's own record.
func (e *Engine) member() discovery.Record {
	return discovery.Record{
		ID: e.cfg.NodeID, Incarnation: e.incarnation.Load(), Draining: e.draining.Load() || e.joining.Load(),
		Addr: e.advertised(e.cfg.Advertise, e.listener), PeerAddr: e.advertised(e.cfg.PeerAdvertise, e.peerListener),
		Load: roughly(e.clients.sockets()),
	}
}

func (e *Engine) advertised(configured string, l net.Listener) string {
	if configured != "" || l == nil {
		return configured
	}
	return l.Addr().String()
}

// complain logs what is wrong with a link, once a second at most: links are tried again and again, and by strangers, too.
func (c *cluster) complain(message string, args ...any) {
	c.complained.Warn(c.eng.cfg.Logger, c.eng.clock(), message, args...)
}

// opened registers a link; false: there is another one to the same node.
func (c *cluster) opened(k *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[k.node] != nil {
		return false
	}
	c.links[k.node] = k
	delete(c.refused, k.node)
	c.publish()
	wake.Nudge(c.news)
	return true
}

// linkTo returns the open link to a node, or nil.
func (c *cluster) linkTo(node string) *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.links[node]
}

func (c *cluster) closed(k *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[k.node] == k {
		delete(c.links, k.node)
		c.publish()
	}
}

// publish makes the set of open links known to the loops. mu is held.
func (c *cluster) publish() {
	open := make([]routing.Handle, 0, len(c.links))
	for _, k := range c.links {
		open = append(open, k.handle)
	}
	c.open.Store(&open)
}

// expel tells the other nodes that a session has lost an ID (S13). All of them: it may be attached
// anywhere, or come back anywhere.
func (c *cluster) expel(session routing.SessionID, id string, epoch uint64) {
	c.eng.tellLinks(codec.AppendExpel(nil, codec.KindExpel, session[:], id, epoch))
}

// livesElsewhere reports whether a session that this node does not know goes on at another one, or may be resumed. With
// the registry away it may: the client has proved that the session was its own, and if that has ended, the
// registry will say so when it has the attach written.
func (e *Engine) livesElsewhere(id routing.SessionID) bool {
	if e.cluster == nil {
		return false
	}
	if s := e.cluster.remote.Session(id); s != nil {
		return true
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	p, err := e.registry.Presence(ctx, id)
	return err != nil || !p.Dead && len(p.Nodes) > 0
}

// endOrphan ends a session that was last attached at a node which is dead: nobody else will. A node
// that can merely not be reached looks after its sessions itself.
func (e *Engine) endOrphan(id routing.SessionID, node string, incarnation uint64) {
	if !e.Gone(routing.Presence{Node: node, Incarnation: incarnation}) || e.attached(id) {
		return
	}
	ctx, cancel := e.registryContext()
	defer cancel()
	p, err := e.registry.Presence(ctx, id)
	if err != nil || p.Dead {
		return
	}
	op := routing.EndOp{Session: id}
	for _, at := range p.Nodes {
		if at.Node == node && at.Incarnation == incarnation {
			op.Gone = append(op.Gone, at)
		}
	}
	if _, err := e.endInRegistry(op); err != nil {
		e.endsFailed.Warn(e.cfg.Logger, e.clock(), "cannot end a session whose node is gone", "session", id, "node", node, "error", err)
	}
}

// withdraw takes the node out of the membership, for good.
func (c *cluster) withdraw() {
	ctx, cancel := c.eng.registryContext()
	defer cancel()
	if !c.takeTurn(ctx, cancel) {
		return
	}
	defer func() { <-c.announcing }()
	if err := c.eng.cfg.Membership.Withdraw(ctx); err != nil {
		c.eng.cfg.Logger.Warn("cannot withdraw this node's record", "error", err)
	}
}

// addrs are the client addresses of the other nodes that take sessions, in random order.
func (c *cluster) addrs() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var addrs []string
	for _, m := range c.members {
		if takesClients(m) && c.refused[m.ID] == "" {
			addrs = append(addrs, m.Addr)
		}
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// takesClients reports whether clients may be sent to a node. One with in-process sessions only has no address for them.
func takesClients(m discovery.Record) bool { return !m.Draining && m.Addr != "" }

// forClients are this node and the others that take sessions, sorted. mu is held.
func (c *cluster) forClients() []codec.Member {
	out := c.eng.self()
	for _, m := range c.members {
		if takesClients(m) && c.refused[m.ID] == "" {
			out = append(out, codec.Member{Node: m.ID, Addr: m.Addr})
		}
	}
	slices.SortFunc(out, func(a, b codec.Member) int { return strings.Compare(a.Node, b.Node) })
	return out
}
