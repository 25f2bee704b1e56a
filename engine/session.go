package engine

import (
	"fmt"
	"net/netip"

	"distmsg/codec"
	"distmsg/engine/internal/limit"
	"distmsg/routing"
)

// handleHello checks what can be checked at once. The rest runs off the loop, because the hook that
// authenticates and the registry may block.
func (c *conn) handleHello(body []byte) {
	var f codec.Hello
	if err := codec.DecodeHello(body, &f); err != nil {
		c.decodeFault(err, codec.KindHello)
		return
	}
	if f.MinVersion > codec.Version || f.MaxVersion < codec.Version {
		c.close(codec.FaultBadVersion, fmt.Sprintf("this node speaks version %d, the client %d to %d",
			codec.Version, f.MinVersion, f.MaxVersion))
		return
	}
	e := c.loop.eng
	if e.drain.leaving() {
		c.close(codec.FaultGoingAway, "the node is draining or stopping")
		return
	}
	if p := c.inMemory(); p != nil {
		c.port.proved(c, 0)
		c.joinAs(&f, &join{loop: c.loop, handle: c.handle()}).enqueue(p.login)
		return
	}
	source := sourceOf(c.remote)
	if !c.port.hasRoom(source) {
		c.close(codec.FaultGoingAway, "the node has few places for connections left, and clients of this address hold more than those: try again later")
		return
	}
	if !e.joins.enter(source) {
		c.close(codec.FaultGoingAway, "too many clients are connecting: try again later")
		return
	}
	if !c.port.proved(c, e.terms.Load().addressConns) {
		e.joins.leave(source)
		e.accounts.Refused(limit.AddressConnections)
		c.close(codec.FaultGoingAway, limitText(limit.AddressConnections, connWait))
		return
	}
	j := c.joinAs(&f, &join{loop: c.loop, handle: c.handle(), placed: true, source: source})
	if e.cfg.Hooks.Authenticate == nil {
		j.enqueue(nil)
		return
	}
	l := Login{Credentials: append([]byte(nil), f.Credentials...), Remote: c.remote, TLS: c.security()}
	// Hooks may block for long, so not in a lane, where others would wait.
	e.background.Go(func() { j.authenticate(l) })
}

// joinAs joins the connection to a session as its hello asks, and fills j in.
func (c *conn) joinAs(f *codec.Hello, j *join) *join {
	c.state = stateJoining
	c.receiver.takesMany = f.Features&codec.FeatureMulticast != 0
	c.receiver.returnsBare = f.Features&codec.FeatureShortNotHere != 0
	c.live.promise(f.Heartbeat)
	j.secret = append([]byte(nil), f.Secret...)
	j.replace = f.Flags&codec.HelloReplace != 0
	copy(j.wanted[:], f.Session)
	return j
}

// join is a connection on its way into a session.
type join struct {
	loop    *loop
	handle  routing.Handle
	secret  []byte
	wanted  routing.SessionID // zero: a new one
	replace bool
	login   *login
	placed  bool // it has a place in Engine.joins, under source
	source  netip.Addr
}

// end frees the place.
func (j *join) end() {
	if j.placed {
		j.placed = false
		j.loop.eng.joins.leave(j.source)
	}
}

func (j *join) refuse(f codec.Fault, detail string) {
	j.end()
	j.loop.post(func() {
		if c := j.loop.conn(j.handle); c != nil {
			c.close(f, detail)
		}
	})
}

// enqueue asks the directory to open or resume the session.
func (j *join) enqueue(l *login) {
	var name string
	if j.login = l; l != nil {
		name = l.name
	}
	if l.expired() {
		j.loop.eng.clients.warn("refused a login that has expired", "identity", name)
		j.refuse(codec.FaultUnauthenticated, detailExpired)
		return
	}
	j.loop.eng.dir.Join(j, j.wanted, name, j.secret)
}

// Refuse closes the connection.
func (j *join) Refuse(f codec.Fault, detail string) { j.refuse(f, detail) }

// Open lets the connection into its session.
func (j *join) Open(s *routing.Session, resumed, foreign bool) {
	j.loop.post(func() { j.loop.open(j, s, resumed, foreign) })
}

// maxSessionConns bounds the connections of one session to this node. A client needs one, and a
// second one while it moves. Each new connection costs a check of all others.
const maxSessionConns = 64

// open makes the connection part of its session. From here on messages reach it.
func (l *loop) open(j *join, s *routing.Session, resumed, foreign bool) {
	e := l.eng
	j.end()
	c := l.conn(j.handle)
	if c != nil && e.drain.leaving() { // else it would never hear of it
		c.close(codec.FaultGoingAway, "the node is draining or stopping")
		c = nil
	}
	if c != nil && !l.expiries.begin(c, j.login) {
		c.close(codec.FaultGoingAway, detailRevoked)
		c = nil
	}
	if c == nil { // it went away meanwhile; the session must not stay without a connection for ever
		e.dir.ExpireLater(s, 0)
		return
	}
	others := s.Handles()
	if len(others) >= maxSessionConns && !j.replace {
		c.close(codec.FaultGoingAway, fmt.Sprintf("the session has %d connections to this node: close some, or replace them", len(others)))
		return
	}
	leaving := min(len(others), 1) // a client that moves has one connection more for a moment
	if j.replace {
		leaving = len(others)
	}
	if refusal := c.quota.open(j.login, s, resumed, leaving); refusal != "" {
		c.close(codec.FaultGoingAway, refusal)
		e.unjoined(s, resumed)
		return
	}
	serial, ok := e.table.Attach(s, c.handle())
	if !ok { // it ended between the lane and here: let the client begin anew
		c.close(codec.FaultSessionEnded, "the session has just ended")
		return
	}
	c.state, c.opened = stateOpen, l.now
	c.live.lastHeard = l.beats.awake // from here on it keeps what it has promised
	c.session, c.short, c.incarnation = s, s.Short(), l.fenced
	c.list = l.settle.acks.NewList()
	c.sender.granted = uint64(e.cfg.Credit)
	if j.replace {
		hall{e}.Close(others, codec.FaultReplaced, "the session has a newer connection")
	} else {
		hall{e}.eachConn(others, func(c *conn) { c.live.doubt() })
	}
	e.dir.Attached(s, routing.Presence{Node: e.cfg.NodeID, Incarnation: c.incarnation, Serial: serial}, foreign)
	id := s.ID()
	// those that come up later ask: see introduce
	l.links.sendAll(codec.AppendPresence(nil, codec.KindAttached, id[:], serial))
	e.dir.ForgetRoutes(id)
	var flags uint8
	if resumed {
		flags = codec.WelcomeResumed
	}
	c.out.wroteControl(codec.AppendWelcome(c.out.buf(), &codec.Welcome{
		Version: codec.Version, Features: c.features(), Node: e.cfg.NodeID, Incarnation: e.incarnation.Load(),
		Session: id[:], Secret: e.dir.ResumeSecret(id, s.Identity()), Flags: flags,
		Limits: c.quota.announced(c.live.limits()), Members: e.membersFor(c),
	}))
	if resumed {
		c.repeatKicks()
		c.login.restrict(c)
	}
}

// unjoined ends a session that no connection has joined. If others may have it, it waits for them.
func (e *Engine) unjoined(s *routing.Session, resumed bool) {
	if resumed {
		e.dir.ExpireLater(s, 0)
	} else {
		e.dir.EndSession(s)
	}
}

// features returns what this node grants of what the client asked for.
func (c *conn) features() (f uint64) {
	if c.receiver.takesMany {
		f |= codec.FeatureMulticast
	}
	if c.receiver.returnsBare {
		f |= codec.FeatureShortNotHere
	}
	return f
}

// handleLeave takes a connection out of its session while the connection stays open. The client can
// still answer what was delivered to it, and the node delivers no more to it.
func (c *conn) handleLeave(body []byte) {
	if err := codec.DecodeLeave(body); err != nil {
		c.decodeFault(err, codec.KindLeave)
		return
	}
	if c.standing == hasLeft { // or each would cost a goroutine and a round over all loops
		return
	}
	c.standing = hasLeft
	c.stepAside()
	c.loop.eng.detach(c)
	e, l, h := c.loop.eng, c.loop, c.handle()
	e.background.Go(func() {
		// Another loop may have picked this connection a moment ago. In the first round it ends the
		// iteration in which it did, in the second it has handed over its mail, and in the third
		// this loop opens that.
		for range 3 {
			if _, ok := ask(e.serving, e, func(*loop) struct{} { return struct{}{} }); !ok {
				return
			}
		}
		l.post(func() {
			if c := l.conn(h); c != nil {
				c.out.wroteControl(codec.AppendLeft(c.out.buf()))
			}
		})
	})
}

// detach takes a connection out of its session. If it was the last one, the session stays for the
// resume window.
func (e *Engine) detach(c *conn) {
	s := c.session
	left, serial, found := e.table.Detach(s, c.handle())
	id := s.ID()
	if s.Ended() { // from here, as its attach was, so that the other nodes hear of that first
		c.loop.links.sendAll(codec.AppendPresence(nil, codec.KindDetached, id[:], serial))
		return
	}
	if !found && c.standing != steppedBack || left > 0 {
		return
	}
	c.loop.links.sendAll(codec.AppendPresence(nil, codec.KindDetached, id[:], serial))
	e.dir.Left(s, routing.Presence{Node: e.cfg.NodeID, Incarnation: c.incarnation, Serial: serial})
	e.dir.ExpireLater(s, serial)
}

// handleBye ends the session, because the client has nothing left to send or receive.
func (c *conn) handleBye(body []byte) {
	if err := codec.DecodeBye(body); err != nil {
		c.decodeFault(err, codec.KindBye)
		return
	}
	s := c.session
	c.end()
	c.loop.eng.dir.EndSession(s)
}

// repeatKicks notifies a connection of a resumed session which IDs the session may have lost
// meanwhile.
func (c *conn) repeatKicks() {
	lost, all := c.loop.eng.dir.LostIDs(c.session.ID())
	for id, epoch := range lost {
		c.out.wroteControl(codec.AppendKick(c.out.buf(), id, epoch))
	}
	if !all {
		c.out.wroteControl(codec.AppendReassert(c.out.buf(), 0))
	}
}
