package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/directory"
)

func (c *conn) handleBind(body []byte) {
	var f codec.Bind
	if err := codec.DecodeBind(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindBind)
		return
	}
	r := c.newRequest(codec.KindBound, f.Seq, &f.IDs)
	r.Policy = f.Policy
	c.quota.boundIDs(r)
	c.login.restrictBind(r)
	if c.loop.eng.drain.over(c.loop.now) {
		c.loop.eng.dir.Finish(r, codec.CodeDraining)
		return
	}
	c.handIn(r, directory.Bind)
}

func (c *conn) handleUnbind(body []byte) {
	var f codec.Unbind
	if err := codec.DecodeUnbind(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindUnbind)
		return
	}
	c.handIn(c.newRequest(codec.KindUnbound, f.Seq, &f.IDs), directory.Unbind)
}

func (c *conn) handleLookup(body []byte) {
	var f codec.Lookup
	if err := codec.DecodeLookup(body, c.loop.eng.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindLookup)
		return
	}
	n := f.IDs.Len()
	if r := c.newRequest(codec.KindFound, f.Seq, &f.IDs); c.mayLookup(r) && c.quota.mayLookup(r, n) {
		c.handIn(r, directory.Lookup)
	}
}

func (c *conn) newRequest(kind codec.Kind, seq uint64, ids *codec.IDList) *directory.Request {
	n := ids.Len()
	r := c.loop.eng.dir.NewRequest(c.session, c.handle(), kind, seq, n)
	for v, ok := ids.Next(); ok; v, ok = ids.Next() {
		r.Add(string(v.ID), v.Epoch)
	}
	c.chargeRequest(r)
	c.loop.pace.worked(n)
	return r
}

// handIn passes a request to the lanes, unless the connection has already asked for too much.
func (c *conn) handIn(r *directory.Request, v directory.Verb) {
	if c.mayAsk(r) {
		c.loop.eng.dir.Do(r, v)
	}
}

// answerRequest writes the results of a request to its connection. Any goroutine may call it.
func (l *loop) answerRequest(r *directory.Request) {
	l.post(func() {
		c := l.conn(r.Conn)
		if c == nil {
			return
		}
		c.asked -= r.Size
		if r.Kind == 0 {
			return // nobody waits for the answer
		}
		c.answerWatch(r)
		c.quota.answered(r)
		c.out.wroteControl(codec.AppendReasons(c.out.buf(), r.Kind, r.Seq, r.Results, r.Reasons()))
	})
}
