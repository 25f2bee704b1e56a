package client

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"distmsg/codec"
	"distmsg/discovery"
)

// attachments is the session at the nodes: which session it is, and its connections. Any goroutine
// may call its methods, except where they say that the caller holds mu.
//
// Lock order: its mu, then holdings.mu or budget.mu.
type attachments struct {
	s    *Session
	live atomic.Pointer[liveSet] // where sends go; shared without a lock

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when live grows
	conns   map[*conn]struct{}
	state   State
	// of the session, with the secret to resume it; nil before the first welcome, and after the
	// session's end
	id     []byte
	secret []byte
}

// liveSet is the connections that sends go to, oldest first. It never changes, but is replaced.
type liveSet struct {
	conns []*conn
	nodes []discovery.Node // nodes[i] is where conns[i] leads
}

// all returns the connections that have not ended yet.
func (a *attachments) all() []*conn {
	a.mu.Lock()
	defer a.mu.Unlock()
	conns := make([]*conn, 0, len(a.conns))
	for c := range a.conns {
		conns = append(conns, c)
	}
	return conns
}

// pick returns the connection for a message; nil while there is none.
func (a *attachments) pick(from, to string) *conn {
	set := a.live.Load()
	switch len(set.conns) {
	case 0:
		return nil
	case 1:
		return set.conns[0]
	}
	return set.conns[a.s.cfg.Strategy.Pick(set.nodes, from, to)]
}

// first returns the connection for requests, nil while there is none. It is the same for all
// requests as long as it lives, so that a node handles those about one ID in order.
func (a *attachments) first() *conn {
	if set := a.live.Load(); len(set.conns) > 0 {
		return set.conns[0]
	}
	return nil
}

// attached waits for the connection that requests go over. The error is ctx's or ErrClosed.
func (a *attachments) wait(ctx context.Context) (*conn, error) {
	for !a.s.closed() {
		if err := over(ctx); err != nil {
			return nil, err
		}
		a.mu.Lock()
		changed := a.changed
		a.mu.Unlock()
		if c := a.first(); c != nil {
			return c, nil
		}
		select {
		case <-changed:
		case <-a.s.life.Done():
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, ErrClosed
}

// publish makes sends go to c, and no longer to old if that is not nil.
func (a *attachments) publish(c, old *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old != nil {
		a.remove(old)
		a.moveAway(old)
	}
	if !c.gone { // otherwise it has already died
		set := a.live.Load()
		a.setLive(append(set.conns[:len(set.conns):len(set.conns)], c))
		close(a.changed)
		a.changed = make(chan struct{})
	}
	c.told = true
	a.state = State{Attached: true, Session: c.session, Node: c.node, Addr: c.addr, Resumed: c.resumed, Nodes: a.live.Load().nodes}
	a.tellState()
}

// setLive makes sends go to conns. The caller holds mu.
func (a *attachments) setLive(conns []*conn) {
	set := &liveSet{conns: conns, nodes: make([]discovery.Node, len(conns))}
	for i, c := range conns {
		set.nodes[i] = discovery.Node{ID: c.node, Addr: c.addr}
	}
	a.live.Store(set)
}

// remove makes sends go to other connections than c, or wait for one. The caller holds mu.
func (a *attachments) remove(c *conn) {
	c.gone = true
	if conns := a.live.Load().conns; slices.Contains(conns, c) {
		a.setLive(slices.DeleteFunc(slices.Clone(conns), func(o *conn) bool { return o == c }))
	}
}

// drop records that c is closed.
func (a *attachments) drop(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.closed = true
	a.remove(c)
}

// retire moves the session away from c. The session leaves c when all nodes know the new
// connection, and closes it when it is idle.
func (a *attachments) retire(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(c)
	if c.told {
		a.lost(c, errMoved)
	}
	a.moveAway(c)
}

// moveAway marks c as left behind, once. The caller holds mu.
func (a *attachments) moveAway(c *conn) {
	c.gone, c.told = true, false
	if c.moved.CompareAndSwap(0, max(a.s.now(), 1)) {
		close(c.retired)
	}
}

// forget removes a connection that has ended.
func (a *attachments) forget(c *conn, cause error) {
	if !a.forgotten(c, cause) {
		return
	}
	if c.lasted() {
		a.s.seldom.forget()
	}
	a.s.seldom.say(slog.LevelWarn, c.addr, "distmsg: detached", "node", c.node, "addr", c.addr, "cause", cause)
}

// forgotten is forget without the log, which is not written under a lock. It reports whether the
// session has unintentionally lost one of its attachments with that connection.
func (a *attachments) forgotten(c *conn, cause error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
	a.remove(c)
	if !c.told || !a.state.Attached {
		return false
	}
	a.lost(c, cause)
	return !a.s.closed()
}

// lost reports that c is no longer one of the session's attachments. The caller holds mu.
func (a *attachments) lost(c *conn, cause error) {
	nodes := a.live.Load().nodes
	a.state = State{Attached: len(nodes) > 0, Session: c.session, Node: c.node, Addr: c.addr, Err: cause, Nodes: nodes}
	a.tellState()
}

// tellState queues the state for OnState. The caller holds mu, so that states are reported in
// order.
func (a *attachments) tellState() {
	notify(a.s, a.s.cfg.OnState != nil, a.s.cb.states, a.state)
}

// admit accepts a welcome: from now on this is the session, and c one of its connections. It
// returns errStranger if c belongs to another session than the one that lives at other nodes, and
// errTwice if the session is already attached to this node. Then the caller must only leave c. It
// returns ErrClosed if the session was closed meanwhile.
func (a *attachments) admit(c *conn, f *codec.Welcome) error {
	a.s.count.attaches.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.s.closed() { // under the lock: Close sees all others
		return ErrClosed
	}
	if c.node != "" {
		a.s.nodes.names[c.addr] = c.node
	}
	if len(f.Members) > 0 {
		a.s.nodes.heardOf(f.Members)
	}
	same := a.id != nil && bytes.Equal(a.id, f.Session)
	if !same && a.hasSettled() {
		return errStranger
	}
	twice := false
	for o := range a.conns {
		twice = twice || same && !o.gone && c.node != "" && o.node == c.node && o.incarnation == c.incarnation
	}
	a.conns[c] = struct{}{}
	if twice {
		a.moveAway(c)
		c.gen = a.s.holds.generation(false)
		return errTwice
	}
	c.gen = a.s.holds.generation(!same || !c.resumed)
	a.s.window.setLimits(min(a.s.cfg.MaxInFlight, int(min(f.Limits.MaxInFlight, unlimited))), a.s.cfg.MaxInFlightBytes)
	a.s.defaultTTL.Store(max(f.Limits.DefaultTTL, 1))
	a.id = append([]byte(nil), f.Session...)
	a.secret = append([]byte(nil), f.Secret...)
	for o := range a.conns {
		// what drains is left when this one is ready
		if o.session != c.session && !o.draining.Load() {
			a.remove(o)
			a.moveAway(o)
		}
	}
	return nil
}

// hasSettled reports whether a connection of the session stays: it is alive and its node does not
// drain. The caller holds mu.
func (a *attachments) hasSettled() bool {
	id := hex.EncodeToString(a.id)
	for c := range a.conns {
		if !c.gone && !c.draining.Load() && c.session == id {
			return true
		}
	}
	return false
}

func (a *attachments) settled() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.hasSettled()
}

// begin forgets the session that has ended according to c, so that the next attachment starts a new
// one (S17).
func (a *attachments) begin(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if hex.EncodeToString(a.id) == c.session {
		a.id, a.secret = nil, nil
	}
}

// mayReplace reports whether whatever connection the node at addr still has of this session is one
// that is closed here: then that node should not wait to find out. The caller holds mu.
func (a *attachments) mayReplace(addr string) bool {
	node := a.s.nodes.names[addr]
	for c := range a.conns {
		if !c.closed && (node == "" || c.node == node) {
			return false
		}
	}
	return true
}
