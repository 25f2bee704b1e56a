package engine

import (
	"sync/atomic"

	"distmsg/codec"
)

// Requests that are under way take memory, and they are all that lanes have to do. So each connection
// may have MaxRequests bytes of them, and a share of what all may have together, MaxNodeRequests (S32).

// requestPart is the part of what is free that one connection may have.
const requestPart = 8

// Why a request, or an ID of one, ends overflow.
const (
	reasonRequests     = "too many requests of this connection are under way (max-requests)"
	reasonNodeRequests = "too many requests are under way at the node, and this connection has its share of them (max-node-requests)"
	reasonSwaps        = "the ID changes hands faster than it can be bound"
)

// charge charges a request to its connection, until it is answered, and to the node, until it is done.
func (c *conn) chargeRequest(r *request) {
	c.asked += r.size
	c.loop.eng.asked.Add(int64(r.size))
	if r.kind == codec.KindUnbound {
		return // what a client has given back stays given back, whatever becomes of its connection
	}
	if c.ended == nil {
		c.ended = new(atomic.Bool)
	}
	r.ended = c.ended
}

// overAsked says why there is no room for what was just charged to a connection; empty: there is.
func (c *conn) overAsked() string {
	e := c.loop.eng
	if c.asked > e.cfg.MaxRequests {
		return reasonRequests
	}
	if free := int64(e.cfg.MaxNodeRequests) - e.asked.Load() + int64(c.asked); int64(c.asked) > free/requestPart {
		return reasonNodeRequests
	}
	return ""
}

// mayAsk reports whether there is room for a request that was charged. If there is none, it answers
// the request.
func (c *conn) mayAsk(r *request) bool {
	reason := c.overAsked()
	if reason == "" {
		return true
	}
	c.loop.eng.requestsRefused.Add(1)
	for i := range r.items {
		r.refused.add(i, reason)
	}
	r.answerAll(codec.CodeOverflow)
	return false
}

// forgetRequests has the lanes leave out what a connection that has closed had asked for: nobody waits
// for it any more.
func (c *conn) forgetRequests() {
	if c.ended != nil {
		c.ended.Store(true)
	}
}
