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

// attachments holds the session's identity at the nodes and its connections. Any goroutine may call
// its methods. Where a comment says that the caller holds mu, the caller must hold it.
//
// Lock order: attachments.mu, then holdings.mu or budget.mu.
type attachments struct {
	s    *Session
	live atomic.Pointer[liveSet] // where sends go; read without a lock

	mu      sync.Mutex
	changed chan struct{} // closed and replaced when live grows
	conns   map[*conn]struct{}
	state   State
	// the session's ID and the secret to resume it; nil before the first welcome, and after the
	// session's end
	id     []byte
	secret []byte
}

// liveSet holds the connections that sends go to, oldest first. It is immutable: a change replaces
// it.
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

// pick returns the connection for a message, or nil while there is none.
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

// first returns the connection for requests, or nil while there is none. All requests use the same
// connection until it closes, so one node handles the requests for an ID in order.
func (a *attachments) first() *conn {
	if set := a.live.Load(); len(set.conns) > 0 {
		return set.conns[0]
	}
	return nil
}

// wait waits for the connection for requests and returns it. The error is ctx's or ErrClosed.
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

// publish lets sends go to c. If old is not nil, sends no longer go to old.
func (a *attachments) publish(c, old *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old != nil {
		a.remove(old)
		a.moveAway(old)
	}
	if c.place == placeOpen { // otherwise it has already closed
		set := a.live.Load()
		a.setLive(append(set.conns[:len(set.conns):len(set.conns)], c))
		close(a.changed)
		a.changed = make(chan struct{})
	}
	c.reported = true
	a.state = State{Attached: true, Session: c.session, Node: c.node, Addr: c.addr, Resumed: c.resumed, Nodes: a.live.Load().nodes}
	a.tellState()
}

// setLive lets sends go to conns only. The caller holds mu.
func (a *attachments) setLive(conns []*conn) {
	set := &liveSet{conns: conns, nodes: make([]discovery.Node, len(conns))}
	for i, c := range conns {
		set.nodes[i] = discovery.Node{ID: c.node, Addr: c.addr}
	}
	a.live.Store(set)
}

// remove takes c from the connections that sends go to. Without another connection, sends wait for
// one. The caller holds mu.
func (a *attachments) remove(c *conn) {
	if conns := a.live.Load().conns; slices.Contains(conns, c) {
		a.setLive(slices.DeleteFunc(slices.Clone(conns), func(o *conn) bool { return o == c }))
	}
}

// drop records that c is closed, and removes it.
func (a *attachments) drop(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	c.place.reach(placeClosed)
	a.remove(c)
}

// retire moves the session away from c. The session leaves c when all nodes know the new
// connection, and closes it when it is idle.
func (a *attachments) retire(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.remove(c)
	if c.reported {
		a.lost(c, errMoved)
	}
	a.moveAway(c)
}

// moveAway marks c as left behind, once. The caller holds mu.
func (a *attachments) moveAway(c *conn) {
	c.place.reach(placeRetired)
	c.reported = false
	if c.departure.move(a.s.now()) {
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

// forgotten is forget without the log, because nobody may log under a lock. It reports whether the
// session has lost an attachment that it wanted to keep.
func (a *attachments) forgotten(c *conn, cause error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.conns, c)
	a.remove(c)
	if !c.reported || !a.state.Attached {
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

// admit accepts a welcome: its session is from now on the current one, and c is one of its
// connections. It returns errStranger if c belongs to another session although the current one is
// still attached at other nodes. It returns errTwice if the session is already attached to this
// node; then the caller must only leave c. It returns ErrClosed if the session was closed
// meanwhile.
func (a *attachments) admit(c *conn, f *codec.Welcome) error {
	a.s.count.attaches.Add(1)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.s.closed() { // checked under the lock, so Close sees every connection that passes
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
		twice = twice || same && o.place == placeOpen && !o.renewing.Load() && c.node != "" && o.node == c.node && o.incarnation == c.incarnation
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
		// the keeper leaves a draining connection when this one is ready
		if o.session != c.session && !o.draining.Load() {
			a.remove(o)
			a.moveAway(o)
		}
	}
	return nil
}

// hasSettled reports whether the session has a connection that stays: it is open and its node does
// not drain. The caller holds mu.
func (a *attachments) hasSettled() bool {
	id := hex.EncodeToString(a.id)
	for c := range a.conns {
		if c.place == placeOpen && !c.draining.Load() && c.session == id {
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

// begin forgets the session if it is the one of c, whose node has said that it ended. The next
// attachment then starts a new session (S17).
func (a *attachments) begin(c *conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if hex.EncodeToString(a.id) == c.session {
		a.id, a.secret = nil, nil
	}
}

// mayReplace reports whether this session has closed all its connections to the node at addr. If
// so, the node need not wait until it notices that an old connection is dead: it may replace it at
// once. The caller holds mu.
func (a *attachments) mayReplace(addr string) bool {
	node := a.s.nodes.names[addr]
	for c := range a.conns {
		if c.place != placeClosed && (node == "" || c.node == node) {
			return false
		}
	}
	return true
}
