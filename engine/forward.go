package engine

import (
	"fmt"
	"slices"

	"distmsg/codec"
	"distmsg/engine/internal/token"
	"distmsg/routing"
)

// A forward is a message between nodes. It names the session and the epoch by which its node chose
// the route. If they match what the other node knows, that node delivers the message. It never
// forwards it again. If they do not match, the message comes back, and the first node retries it
// once if the registry knows another place (S14).

// forward sends a message whose receiver is not attached to this node. It uses the link of a known
// route. If there is no such route, it asks the registry and follows the answer.
func (s *sender) forward(m *codec.Send) verdict {
	l := s.conn.loop
	// If messages for the ID wait already, this one queues behind them (S20).
	if parked := l.park.lines[string(m.To)]; parked == nil {
		if v, known := s.forwardKnown(m); known {
			return v
		}
		if code, ok := l.park.recent(m.To); ok {
			return verdict{code: code}
		}
	}
	return s.park(m)
}

// forwardKnown uses the route cache. It returns known as false if the cache has no route to an open
// link.
func (s *sender) forwardKnown(m *codec.Send) (v verdict, known bool) {
	l := s.conn.loop
	route, h, ok := l.eng.cluster.way(m.To)
	if !ok {
		return verdict{}, false
	}
	f := &l.scratch.forward
	id := route.Session.ID()
	f.Deliver = codec.Deliver{To: m.To, From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Epoch: route.Epoch, Payload: m.Payload, Trace: m.Trace}
	f.Session = append(l.scratch.sessionID[:0], id[:]...)
	dest, v := l.destination(h, codec.DeliverSize(&f.Deliver)+forwardExtra, f.From)
	if v.code != codec.CodeOK {
		return v, true
	}
	dest.list = l.endings.linkList(h, route.Session.Short())
	if v := s.stamp(m, &f.Deliver, route.Session.Short(), dest.list); v.code != codec.CodeOK {
		return v, true
	}
	l.writeForward(dest, f)
	return verdict{}, true
}

// way returns a route to an ID and the link that it leads over, if there is one.
func (c *cluster) way(id []byte) (route routing.Route, link routing.Handle, ok bool) {
	route, ok = c.remote.Lookup(id)
	if !ok && c.follow(id) {
		route, ok = c.remote.Lookup(id)
	}
	if ok {
		link, ok = c.pick(route)
	}
	return route, link, ok
}

// pick chooses a link to a route's session. When a link has ended, its sessions are forgotten in
// several steps. Meanwhile pick avoids that link.
func (c *cluster) pick(route routing.Route) (link routing.Handle, ok bool) {
	link, ok = route.Session.Pick(route.Hash)
	if !ok || c.detaching.Load() == 0 {
		return link, ok
	}
	open := *c.open.Load()
	if slices.Contains(open, link) {
		return link, true
	}
	for _, other := range route.Session.Handles() {
		if slices.Contains(open, other) {
			return other, true
		}
	}
	return link, false
}

// follow makes a route for a binding that was made here and whose session has moved to another
// node. So the node need not ask the registry, which may be unreachable. If another session has
// bound the ID since, the message comes back.
func (c *cluster) follow(id []byte) bool {
	r, ok := c.eng.table.Lookup(id)
	if !ok {
		return false
	}
	s := c.remote.Session(r.Session.ID())
	if s == nil || len(s.Handles()) == 0 || c.remote.Len() >= c.eng.cfg.MaxRoutes {
		return false
	}
	_, status := c.remote.Bind(string(id), s, r.Epoch)
	return status == routing.Bound
}

// forwardExtra is how many bytes a forward adds to the fields of a deliver, with a token of full
// length.
const forwardExtra = codec.MaxToken + codec.SessionIDLen + 2

// writeForward appends a message to a link, or to the mail for the link's loop.
func (l *loop) writeForward(to destination, f *codec.Forward) {
	if len(f.Trace) > 0 {
		l.spans.note(f.Trace, true, 1)
	}
	unacked := unackedOf(f.Flags, 1)
	if c := to.conn; c != nil {
		c.receiver.countUnacked(unacked)
		c.out.holdsMessages(1, l.readAt)
		c.out.wrote(codec.AppendForward(c.out.buf(), codec.KindForward, f))
		return
	}
	ch := l.mail.chunkFor(to, unacked)
	ch.buf = codec.AppendForward(ch.buf, codec.KindForward, f)
	l.mail.gathered(to, ch)
}

// handleForward delivers a message from another node, or sends it back.
func (k *link) handleForward(body []byte) error {
	c := k.conn
	l := c.loop
	f := &l.scratch.forward
	if err := codec.DecodeForward(body, codec.KindForward, f); err != nil {
		return err
	}
	if err := checkForwardToken(f); err != nil {
		return err
	}
	s, h, back := l.links.receiver(f.To, routing.SessionID(f.Session), f.Epoch)
	if s == nil {
		c.out.wroteControl(codec.AppendForward(c.out.buf(), back, f))
		return nil
	}
	if f.Flags&codec.FlagAck == 0 {
		l.stats.received++
	}
	d := &l.scratch.deliver
	*d = f.Deliver
	d.Flags &= knownFlags
	d.Token = l.eng.tokens.AppendLink(l.scratch.token[:0], f.Token, k.handle, s.Short())
	dest, v := l.destination(h, codec.DeliverSize(d), d.From)
	if v.code == codec.CodeOK {
		v = l.eng.hooks.mayDeliver(s, d)
	}
	if v.code != codec.CodeOK {
		l.links.refuse(d, v)
		return nil
	}
	l.write(dest, d)
	return nil
}

// receiver finds the session and connection for a forward (S14). If it returns a nil session, the
// forward goes back as a frame of kind back.
func (ls *loopLinks) receiver(to []byte, id routing.SessionID, epoch uint64) (s *routing.Session, h routing.Handle, back codec.Kind) {
	l := ls.loop
	route, ok := l.eng.table.Lookup(to)
	s = route.Session
	if !ok || s.ID() != id {
		if ok && route.Epoch >= epoch || l.eng.dir.Over(to, epoch) {
			return nil, h, codec.KindNotMine
		}
		if ok {
			l.eng.dir.HeardOfBinding(to, routing.Binding{Session: id, Epoch: epoch})
		}
		// The session may hold an ID that this node has not heard of, or of which it has older
		// news.
		s = l.eng.table.Session(id)
	} else if route.Epoch > epoch {
		return nil, h, codec.KindNotMine
	}
	if s != nil {
		if h, ok = s.Pick(route.Hash); ok {
			return s, h, 0
		}
	}
	return nil, h, codec.KindNotAttached
}

// checkForwardToken refuses tokens that no node makes. The token that this node derives must fit
// into a deliver, and its length says what kind of token it is.
func checkForwardToken(f *codec.Forward) error {
	n := len(f.Token)
	if ack := f.Flags&codec.FlagAck != 0; ack == (n == token.AckLen) && (n == 0 || n == token.AckLen || n == token.ReportLen) {
		return nil
	}
	return &codec.Error{Fault: codec.FaultBadValue, Kind: codec.KindForward, Field: "token", Offset: 2,
		Detail: fmt.Sprintf("%d bytes, with flags %#x", n, f.Flags)}
}

// refuse notifies the node that sent a message that this node did not write it to its receiver, and
// why.
func (ls *loopLinks) refuse(d *codec.Deliver, v verdict) {
	l := ls.loop
	l.eng.hooks.undelivered(d, v.code)
	// A message without ack ends here. A message with ack ends at the node where it began.
	if d.Flags&codec.FlagAck == 0 {
		l.stats.outcomes[v.code]++
	}
	origin, h, ok := token.Link(d.Token)
	if !ok {
		return
	}
	ls.send(h, codec.AppendRefuse(l.scratch.control[:0], origin, v.code, v.reason))
}

// handleGone ends the sends that wait for a connection that the other node has lost (S5).
func (k *link) handleGone(body []byte) error {
	c := k.conn
	b, err := codec.DecodeGone(body)
	if err != nil {
		return err
	}
	n := note{kind: noteLinkGone, handle: c.handle(), session: routing.SessionID(b).Short()}
	for i := range c.loop.mail.boxes {
		c.loop.mail.notify(uint16(i), n)
	}
	return nil
}

// handleExpel handles an expel: a bind at the other node has displaced a session (S13).
func (k *link) handleExpel(body []byte) error {
	b, id, epoch, err := codec.DecodeExpel(body, codec.KindExpel)
	if err != nil {
		return err
	}
	k.cluster.eng.dir.HeardExpel(routing.SessionID(b), id, epoch)
	return nil
}

// handleReleased handles a release: a session has given a binding back at the other node.
func (k *link) handleReleased(body []byte) error {
	b, id, epoch, err := codec.DecodeExpel(body, codec.KindReleased)
	if err == nil {
		k.cluster.eng.dir.HeardReleased(routing.SessionID(b), id, epoch)
	}
	return err
}
