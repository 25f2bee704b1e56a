package engine

import (
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// A session that gives a message back disowns the binding that led to it, and the registry removes
// that (S11). Only a message that the session was given counts, so the token comes first. All that
// one frame gives back is one request, in the line of its connection, and charged to it. A binding
// that is being removed already is not removed once more.

// disown notes that a session does not hold an ID, by a message that it has given back on the
// connection by. See releaseDisowned.
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

// disownHere is disown for a message that this node has delivered over its own table: only what
// still stands there goes.
func (b *bouncing) disownHere(session uint64, by routing.Handle, id []byte, epoch uint64) {
	if r, ok := b.loop.eng.table.Lookup(id); ok && r.Session.Short() == session && r.Epoch == epoch {
		b.disown(r.Session, by, id, epoch)
	}
}

// disown is for a message that has come over a link, or without ack. This node need not know the
// ID: another one may, and have sent the message here.
func (rv *receiver) disown(id []byte, epoch uint64) {
	c := rv.conn
	e := c.loop.eng
	if r, ok := e.table.Lookup(id); ok && r.Session == c.session && r.Epoch == epoch || !ok && e.cluster != nil {
		c.loop.bounce.disown(c.session, c.handle(), id, epoch)
	}
}

// releaseDisowned has the registry remove what was disowned, if its connection has not asked for
// too much already. If it has, the next message that comes back says it again.
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
