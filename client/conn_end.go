package client

import "distmsg/codec"

// close begins the end of the connection. It may be called from any goroutine, more than once; the
// first cause counts.
func (c *conn) close(cause error) {
	c.mu.Lock()
	if !c.shut {
		c.shut, c.cause = true, cause
		c.wake.Signal()
	}
	c.mu.Unlock()
	c.s.drop(c)
	c.nc.Close()
}

// leave takes a connection that the session has moved away from out of the session, and closes it when the node
// delivers nothing any more and all that is open on it has ended.
func (c *conn) leave(now int64) {
	moved := c.moved.Load()
	if moved == 0 || now-moved < linger {
		return
	}
	if !c.leaving {
		c.leaving = true
		c.append(codec.AppendLeave)
		return
	}
	if (c.left.Load() || now-moved > leaveTimeout) && c.shutIdle(errMoved) {
		c.close(errMoved)
	}
}

// shutIdle lets nothing be appended any more if nothing is open: no send, no request, no answer, no frame to be written. Looking and
// shutting are one step, or a sender that has chosen this connection long ago could append in between.
func (c *conn) shutIdle(cause error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut || c.calls.len() > 0 || len(c.requests) > 0 || len(c.out) > 0 || c.writing || c.owed.Load() > 0 {
		return false
	}
	c.shut, c.cause = true, cause
	c.wake.Signal()
	return true
}

// bye ends the session at the node, which then closes the connection. Nothing is sent after it.
func (c *conn) bye() {
	c.append(func(b []byte) []byte {
		c.ended = true
		return codec.AppendBye(b)
	})
}

// finish ends what is left when neither reader nor writer runs any more: unreachable if no byte of
// it was handed to the kernel, else lost (S1).
func (c *conn) finish() {
	c.mu.Lock()
	unsent := [2][]byte{c.unsent, c.out}
	c.unsent, c.out = nil, nil
	cause := c.cause
	c.mu.Unlock()

	c.credit.close(errConnClosed)
	for _, frames := range unsent {
		for len(frames) > 0 {
			body, n, _ := codec.Split(frames, len(frames))
			c.endUnsent(body, cause)
			frames = frames[n:]
		}
	}
	c.mu.Lock()
	lost := c.calls.overdue(1<<62, nil)
	requests := c.requests
	c.requests = nil
	c.mu.Unlock()
	for _, seq := range lost {
		c.end(seq, Reply{}, &Error{Code: codec.CodeLost, Reason: "the connection to the node died", cause: cause})
	}
	for _, r := range requests {
		r.answer <- answer{code: codec.CodeLost}
	}
	if c.ended && cause != ErrClosed { // it is Close that has ended it
		cause = nil
	}
	c.s.forget(c, cause)
	close(c.dead)
}

// endUnsent ends what waits for the answer to a frame that was never written.
func (c *conn) endUnsent(body []byte, cause error) {
	kind, _ := codec.PeekKind(body)
	switch kind {
	case codec.KindSend:
		var f codec.Send
		_ = codec.DecodeSend(body, &f) // our own frame
		c.endUnsentSends(f.Seq, 1, cause)
	case codec.KindMulticast:
		var f codec.Multicast
		_ = codec.DecodeMulticast(body, len(body), &f)
		c.endUnsentSends(f.Seq, f.To.Len(), cause)
	case codec.KindBind, codec.KindUnbind, codec.KindLookup:
		c.endRequest(requestSeq(kind, body), answer{code: unwritten(kind)})
	}
}

// endUnsentSends ends n sends or posts, numbered from seq.
func (c *conn) endUnsentSends(seq uint64, n int, cause error) {
	err := &Error{Code: codec.CodeUnreachable, Reason: "not written before the connection died", cause: cause}
	var failed []failure
	for ; n > 0; n-- {
		if id, ok := postID(seq); ok {
			failed = append(failed, failure{id, err})
		} else {
			c.end(seq, Reply{}, err)
		}
		seq++
	}
	c.s.postsFailed(failed)
}

// wholeFrames returns the offset of the first frame in b that begins at or after n.
func wholeFrames(b []byte, n int) int {
	off := 0
	for off < n {
		_, size, _ := codec.Split(b[off:], len(b))
		off += size
	}
	return off
}
