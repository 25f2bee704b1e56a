package engine

import (
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// A session that returns a message disowns the binding that led to it, and the registry removes
// that binding (S11). Only a message that the session was given counts, so the node checks the
// token first. All that one frame returns is one request, in the line of its connection and charged
// to it. The node does not remove a binding a second time while the first removal is under way.

// disown notes that a session does not hold an ID, because it returned a message on the connection
// by. See releaseDisowned.
func (b *bouncing) disown(s *routing.Session, by routing.Handle, id []byte, epoch uint64) {
	l := b.loop
	op := routing.UnbindOp{ID: string(id), Session: s.ID(), Epoch: epoch}
	if !l.eng.dir.BeginRelease(op) {
		return
	}
	if r := b.disowned; r != nil && (r.Session != s || r.Conn != by) {
		b.releaseDisowned()
	}
	r := b.disowned
	if r == nil {
		r = l.eng.dir.NewRequest(s, by, 0, 0, 1)
		b.disowned = r
	}
	r.Add(op.ID, epoch)
}

// disownHere is disown for a message that this node has delivered by its own table. It removes only
// what still stands there.
func (b *bouncing) disownHere(session uint64, by routing.Handle, id []byte, epoch uint64) {
	if r, ok := b.loop.eng.table.Lookup(id); ok && r.Session.Short() == session && r.Epoch == epoch {
		b.disown(r.Session, by, id, epoch)
	}
}

// disown is for a message that came over a link, or without ack. This node need not know the ID:
// another node may know it, and have sent the message here.
func (rv *receiver) disown(id []byte, epoch uint64) {
	c := rv.conn
	e := c.loop.eng
	if r, ok := e.table.Lookup(id); ok && r.Session == c.session && r.Epoch == epoch || !ok && e.cluster != nil {
		c.loop.bounce.disown(c.session, c.handle(), id, epoch)
	}
}

// releaseDisowned asks the registry to remove what was disowned. It does nothing if the connection
// has asked for too much already. Then the next message that comes back triggers it again.
func (b *bouncing) releaseDisowned() {
	l := b.loop
	r := b.disowned
	if r == nil {
		return
	}
	b.disowned = nil
	l.eng.dir.Charge(r)
	c := l.conn(r.Conn)
	if c != nil && r.Conn.Loop == l.idx {
		c.asked += r.Size
		r.Charged = true
		if c.overAsked() != "" {
			l.eng.dir.Finish(r, 0)
			return
		}
	}
	l.eng.dir.Do(r, directory.Release)
}
