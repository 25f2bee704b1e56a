package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/peers"
	"distmsg/internal/asynclog"
	"distmsg/internal/callback"
	"distmsg/internal/tlsline"
	"distmsg/routing"
)

// Membership knows which nodes exist. The engine announces its own node and watches the others. It
// calls the methods on goroutines of their own, and they may block until ctx ends.
type Membership interface {
	// Announce publishes m as this node's record until Withdraw. A later call replaces the record.
	Announce(ctx context.Context, m discovery.Record) error
	// Withdraw removes this node's record.
	Withdraw(ctx context.Context) error
	// Watch calls f with all members, at once and after each change, until ctx ends. While the
	// source is unreachable, the last list stays in force.
	Watch(ctx context.Context, f func([]discovery.Record))
}

// cluster is the engine's half of its dealings with other nodes: the open links, the sessions that
// are attached at their other ends, and the routes to those sessions. internal/peers does the work
// that waits for other nodes.
type cluster struct {
	// static
	eng   *Engine
	self  *peers.Self // how this node describes itself in handshakes
	log   *slog.Logger
	peers *peers.Peers
	// remote holds the sessions that are attached to other nodes. A route in it names a link
	// instead of a connection. It also holds the routes that the registry has returned.
	remote *routing.Table

	// the open links; the slice is replaced, never changed
	open atomic.Pointer[[]routing.Handle]
	// links that have ended, but whose sessions are not all forgotten yet
	detaching atomic.Int32

	panicked asynclog.Seldom // a TLS handshake that did not return was logged

	mu    sync.Mutex       // held while peers.Members takes its lock
	links map[string]*link // guarded by mu; the open links by node
}

func newCluster(e *Engine, remote *routing.Table) *cluster {
	c := &cluster{eng: e, remote: remote, links: make(map[string]*link), log: e.cfg.Logger.With(component, "links")}
	c.self = &peers.Self{
		Node: e.cfg.NodeID, Cluster: e.cfg.Cluster, Secrets: e.secrets.cluster,
		MinVersion: codec.PeerVersion, MaxVersion: codec.PeerVersion,
		Identity: c.peerIdentity, ClientAddr: func() string { return e.advertised(e.cfg.Advertise, e.acceptor.listener) },
	}
	c.peers = peers.New(c.self, c, e.cfg.Membership, c.log)
	c.open.Store(new([]routing.Handle))
	return c
}

// cluster is the engine as internal/peers sees it.
var _ peers.Engine = (*cluster)(nil)

// Record returns this node's own record as it is now.
func (c *cluster) Record() discovery.Record {
	e := c.eng
	return discovery.Record{
		ID: e.cfg.NodeID, Incarnation: e.incarnation.Load(), Draining: e.drain.begun.Load(),
		Addr: e.advertised(e.cfg.Advertise, e.acceptor.listener), PeerAddr: e.advertised(e.cfg.PeerAdvertise, e.acceptor.peerListener),
		Load: peers.RoughLoad(e.acceptor.clients.sockets()),
	}
}

func (e *Engine) advertised(configured string, l net.Listener) string {
	if configured != "" || l == nil {
		return configured
	}
	return l.Addr().String()
}

// ForClients returns this node's entry in the lists that clients get.
func (c *cluster) ForClients() []codec.Member { return c.eng.self() }

// NotifyClients queues a list of nodes for all clients.
func (c *cluster) NotifyClients(all []codec.Member) {
	frame := codec.AppendMembers(nil, all)
	c.eng.eachConn(func(c *conn) {
		if c.state == stateOpen && c.kind == clientConn {
			c.out.wroteControl(append(c.out.buf(), frame...))
			c.loop.pace.worked(writeWork + len(frame)/bytesPerUnit)
		}
	})
}

// eachConn calls f for all connections, each on its loop. It does not wait for that. Before Run,
// and until the node is ready, there are none.
func (e *Engine) eachConn(f func(*conn)) {
	select {
	case <-e.ready:
	default:
		return
	}
	for _, l := range e.loops {
		l.post(func() { l.eachConn(0, f) })
	}
}

// eachConn calls f for the connections from a slot on. When the iteration's share of work is used
// up, it continues in the next iteration.
func (l *loop) eachConn(slot int, f func(*conn)) {
	for ; slot < len(l.conns); slot++ {
		if l.pace.full {
			l.post(func() { l.eachConn(slot, f) })
			return
		}
		if c := l.conns[slot]; c != nil {
			l.pace.worked(1)
			f(c)
		}
	}
}

// NotifyNodes queues what this node says about itself for all open links.
func (c *cluster) NotifyNodes(r discovery.Record, leaves bool) {
	frame := announceFrame(nil, r, leaves)
	for _, l := range c.eng.loops { // not by mail: a node that leaves closes its links next
		l.post(func() { l.links.sendOwn(frame) })
	}
}

func announceFrame(b []byte, r discovery.Record, leaves bool) []byte {
	f := codec.Announce{Addr: []byte(r.Addr), PeerAddr: []byte(r.PeerAddr)}
	if r.Draining {
		f.Flags |= codec.AnnounceClosed
	}
	if leaves {
		f.Flags |= codec.AnnounceLeaves
	}
	return codec.AppendAnnounce(b, &f)
}

// Stopping reports whether this node has withdrawn its record or is about to.
func (c *cluster) Stopping() bool { return c.eng.serving.Err() != nil }

// Fail makes Run return an error.
func (c *cluster) Fail(err error) { c.eng.fail(err) }

// ShakeHands hands a socket to another node to a loop, which does the handshake. It returns the
// link when the link is open or has ended. If ctx ends first, the attempt ends too.
func (c *cluster) ShakeHands(ctx context.Context, nc net.Conn, to discovery.Record) (peers.Link, error) {
	e, k := c.eng, newLink(c)
	k.dialled, k.node = true, to.ID
	conn := newConn(linkConn, nc.RemoteAddr(), e.cfg.MaxPending)
	conn.link = k
	if err := c.shakeTLS(ctx, nc, conn, to); err != nil {
		nc.Close()
		return nil, err
	}
	e.acceptor.dialled.Add(1)
	if err := e.acceptor.enroll(nc, conn); err != nil {
		e.acceptor.dialled.Add(-1)
		return nil, err
	}
	select {
	case <-k.up:
	case <-k.ended:
	case <-ctx.Done():
		conn.loop.post(func() {
			if conn.state == stateHello {
				conn.dismiss("no answer yet, and other nodes wait to be dialled")
			}
		})
		return nil, context.Cause(ctx)
	}
	return k, nil
}

// shakeTLS does the TLS handshake with a node that this one has dialled, if nodes use TLS.
func (c *cluster) shakeTLS(ctx context.Context, nc net.Conn, conn *conn, to discovery.Record) error {
	e := c.eng
	if e.cfg.PeerTLS == nil {
		return nil
	}
	_ = nc.SetDeadline(time.Now().Add(e.cfg.HelloTimeout))
	interrupt := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	var line *tlsline.Conn
	err := c.contain(to.PeerAddr, func() error {
		line = tlsline.Client(nc, c.dialTLS(to))
		return line.Handshake()
	})
	if !interrupt() {
		return context.Cause(ctx)
	}
	header := tls.RecordHeaderError{}
	switch {
	case err == nil:
		conn.wire = &tlsWire{conn: conn, line: line}
	case errors.As(err, &header):
		c.peers.Complain("a node does not use TLS for links, and this node does: use it on all nodes or on none", "node", to.ID, "addr", to.PeerAddr)
		return fmt.Errorf("it does not use TLS for links, and this node does: %w", err)
	case !isGone(err) && !errors.Is(err, errBroken):
		c.peers.Complain("the TLS handshake with a node failed", "node", to.ID, "addr", to.PeerAddr, "error", err)
		fallthrough
	default:
		return fmt.Errorf("the TLS handshake with it failed: %w", err)
	}
	return nil
}

// Secure does the TLS handshake with a node that this one asks something, if nodes use TLS.
func (c *cluster) Secure(nc net.Conn, to discovery.Record) (net.Conn, error) {
	if c.eng.cfg.PeerTLS == nil {
		return nc, nil
	}
	var secure *tls.Conn
	err := c.contain(to.PeerAddr, func() error {
		secure = tls.Client(nc, c.dialTLS(to))
		return secure.Handshake()
	})
	return secure, err
}

// errBroken means that code of the application in a TLS handshake has not returned.
var errBroken = errors.New("engine: the TLS handshake has not returned")

// contain does the TLS handshake with the node at addr. It returns errBroken if code of the
// application in it does not return.
func (c *cluster) contain(addr string, handshake func() error) (err error) {
	if f := callback.Apart(func() { err = handshake() }); f != nil {
		if c.panicked.Due(c.eng.clock()) {
			f.Log(c.eng.cfg.Logger, "the TLS handshake with a node", "addr", addr)
		}
		return errBroken
	}
	return err
}

// dialTLS returns the configuration for a connection to another node.
func (c *cluster) dialTLS(to discovery.Record) *tls.Config {
	config := c.eng.cfg.PeerTLS
	host := to.PeerName
	if host == "" {
		host, _, _ = net.SplitHostPort(to.PeerAddr) // it was checked
	}
	if f := c.eng.cfg.PeerTLSClient; f != nil {
		if own := f(host); own != nil {
			config = tlsline.Prepare(own)
		}
	}
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = host
	}
	return config
}

// opened registers a link. It returns false if another link to the same node is open.
func (c *cluster) opened(k *link) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.links[k.node] != nil {
		return false
	}
	c.links[k.node] = k
	c.peers.Members.Up(k.node, k.incarnation, k)
	c.publish()
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
		c.peers.Members.Down(k.node)
		c.publish()
	}
}

// publish replaces the list of open links that the loops read. The caller holds mu.
func (c *cluster) publish() {
	open := make([]routing.Handle, 0, len(c.links))
	for _, k := range c.links {
		open = append(open, k.handle)
	}
	c.open.Store(&open)
}
