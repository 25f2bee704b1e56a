package engine

import (
	"sync/atomic"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
)

// Requests that are under way take memory, and they are all that lanes have to do. So each
// connection may have MaxRequests bytes of them, and a share of what all may have together,
// MaxNodeRequests (S32).

// requestPart is the part of what is free that one connection may have.
const requestPart = 8

// reasonNodeRequests is why a request ends overflow. See also directory.ReasonRequests.
const reasonNodeRequests = "too many requests are under way at the node, and this connection has its share of them (max-node-requests)"

// charge charges a request to its connection, until it is answered, and to the node, until it is
// done.
func (c *conn) chargeRequest(r *directory.Request) {
	c.asked += r.Size
	c.loop.eng.dir.Charge(r)
	if r.Kind == codec.KindUnbound {
		return // what a client has given back stays given back, whatever becomes of its connection
	}
	if c.ended == nil {
		c.ended = new(atomic.Bool)
	}
	r.Ended = c.ended
}

// overAsked says why there is no room for what was just charged to a connection; empty: there is.
func (c *conn) overAsked() string {
	e := c.loop.eng
	if c.asked > e.cfg.MaxRequests {
		return directory.ReasonRequests
	}
	if free := int64(e.cfg.MaxNodeRequests) - e.dir.Asked() + int64(c.asked); int64(c.asked) > free/requestPart {
		return reasonNodeRequests
	}
	return ""
}

// mayAsk reports whether there is room for a request that was charged. If there is none, it answers
// the request.
func (c *conn) mayAsk(r *directory.Request) bool {
	reason := c.overAsked()
	if reason == "" {
		return true
	}
	c.loop.eng.requestsRefused.Add(1)
	c.loop.eng.dir.Refuse(r, codec.CodeOverflow, reason)
	return false
}

// forgetRequests has the lanes leave out what a connection that has closed had asked for: nobody
// waits for it any more.
func (c *conn) forgetRequests() {
	if c.ended != nil {
		c.ended.Store(true)
	}
}
