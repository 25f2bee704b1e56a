package engine

import (
	"sync/atomic"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
)

// Requests under way take memory, and they are all the work of the lanes. So each connection may
// have MaxRequests bytes of them, and a share of MaxNodeRequests, which all connections may have
// together (S32).

// requestPart is the part of the free bytes that one connection may have.
const requestPart = 8

// reasonNodeRequests is the reason for which a request ends with overflow. See also
// directory.ReasonRequests.
const reasonNodeRequests = "the node has too many open requests, and this connection has its share of them (max-node-requests)"

// chargeRequest charges a request to its connection until it is answered, and to the node until it
// is done.
func (c *conn) chargeRequest(r *directory.Request) {
	c.asked += r.Size
	c.loop.eng.dir.Charge(r)
	if r.Kind == codec.KindUnbound {
		return // what a client has unbound stays unbound, even if its connection closes
	}
	if c.ended == nil {
		c.ended = new(atomic.Bool)
	}
	r.Ended = c.ended
}

// overAsked returns why there is no room for what was just charged to a connection, or "" if there
// is room.
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

// forgetRequests makes the lanes skip what a closed connection had asked for, because nobody waits
// for it any more.
func (c *conn) forgetRequests() {
	if c.ended != nil {
		c.ended.Store(true)
	}
}
