package engine

import (
	"context"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// The steps of a dry run on one node. They look up, resolve and forward with the functions that
// messages use.

// sender checks what admit checks of a message's sender. It returns false if the message would end.
func (t *tracing) sender() bool {
	e, began := t.eng, time.Now()
	if e.drain.over(e.clock().Milliseconds()) {
		t.end(codec.CodeDraining, stepSender, began, "the node drains, and takes no messages any more")
		return false
	}
	if t.from == "" {
		t.hop(stepSender, began, "no sender is named; the message begins here")
		return true
	}
	route, ok := e.table.Lookup([]byte(t.from))
	switch {
	case !ok:
		t.hop(stepSender, began, "this node does not know the sender's ID: it would ask the registry whether the sender may use it")
	case len(route.Session.Handles()) == 0:
		t.hop(stepSender, began, "the sender's session %v has no connection to this node at the moment", route.Session.ID())
	default:
		t.hop(stepSender, began, "the sender is attached here: session %v, epoch %d", route.Session.ID(), route.Epoch)
	}
	return true
}

// traceTries is how often a dry run asks the registry, as often as a message is parked.
const traceTries = parkTries

// lookup finds the receiver as route does, and goes on there. A message that comes back is sent
// once more.
func (t *tracing) lookup() {
	returned := false
	for tries := 0; ; {
		if t.deliver() {
			return
		}
		if t.eng.cluster == nil {
			t.endUnknown()
			return
		}
		began := time.Now()
		if route, link, ok := t.eng.cluster.way([]byte(t.to)); ok {
			t.hop(stepLookup, began, "the route cache knows session %v, epoch %d, at node %q", route.Session.ID(), route.Epoch, t.nodeOf(link))
			if t.forward(route, link) {
				return
			}
			if returned {
				t.end(codec.CodeUnreachable, stepReceiver, time.Now(), "the message has come back twice")
				return
			}
			returned = true
			continue
		}
		if tries++; tries > traceTries {
			t.end(codec.CodeUnreachable, stepLookup, began, "the routes that the registry names are gone at once")
			return
		}
		t.hop(stepLookup, began, "the node does not know the ID, and asks the registry")
		if !t.ask() {
			return
		}
	}
}

// deliver goes on with a receiver that is attached here. It returns false if there is none.
func (t *tracing) deliver() bool {
	began := time.Now()
	route, ok := t.eng.table.Lookup([]byte(t.to))
	if !ok {
		return false
	}
	h, ok := route.Session.Pick(route.Hash)
	if !ok {
		return false
	}
	t.hop(stepLookup, began, "the ID is bound here: session %v, epoch %d, event loop %d", route.Session.ID(), route.Epoch, h.Loop)
	t.connection(h)
	return true
}

// endUnknown ends a message on a node without a cluster that cannot deliver it.
func (t *tracing) endUnknown() {
	if _, bound := t.eng.table.Lookup([]byte(t.to)); bound {
		t.end(codec.CodeUnreachable, stepLookup, time.Now(), "the session that holds the ID has no connection at the moment")
		return
	}
	t.end(codec.CodeNoRoute, stepLookup, time.Now(), "nobody holds the ID")
}

// ask asks the registry as a message does that waits for it. It returns false if a message would
// end.
func (t *tracing) ask() bool {
	began := time.Now()
	found, err := directory.NewInquiry(t.eng.dir).Find(t.ctx, t.to)
	switch {
	case err != nil:
		t.end(codec.CodeRegistryUnavailable, stepRegistry, began, "no answer")
		return false
	case found.Code == codec.CodeOK:
		t.hop(stepRegistry, began, "the registry names a session that can be reached")
		return true
	}
	text := map[codec.Code]string{
		codec.CodeNoRoute:             "nobody holds the ID",
		codec.CodeUnreachable:         "the session that holds the ID is attached nowhere that this node can reach",
		codec.CodeRegistryUnavailable: "the registry cannot be asked",
	}[found.Code]
	t.end(found.Code, stepRegistry, began, "%s", text)
	return false
}

// forward goes on over a link. It returns false if the message comes back. Then it has forgotten
// what led there, as takeBack does.
func (t *tracing) forward(route routing.Route, link routing.Handle) bool {
	id, node, began := route.Session.ID(), t.nodeOf(link), time.Now()
	at := t.hop(stepLink, began, "the message goes over the link to node %q", node)
	if node == "" {
		at.Decision, at.Code = "the link has just closed", codec.CodeUnreachable.String()
		return true
	}
	ctx, cancel := t.part()
	defer cancel()
	args := arriveArgs{From: t.from, To: t.to, Session: id.String(), Epoch: route.Epoch}
	all, err := askAll[TraceHop](ctx, t.eng, askArrive, args, node)
	took := time.Since(began)
	if err != nil || len(all.Missing) > 0 || len(all.Answers) == 0 {
		why := "no answer"
		if len(all.Missing) > 0 {
			why = all.Missing[0].Why
		}
		at.Decision += ": " + why
		at.Code, at.TookSeconds = codec.CodeTimeout.String(), took.Seconds()
		return true
	}
	there := spanOf(all.Answers)
	at.TookSeconds = max(0, took-there).Seconds() // both ways
	t.adopt(all.Answers, began.Sub(t.began)+max(0, took-there)/2)
	back := all.Answers[len(all.Answers)-1].Returned
	if back == "" {
		return true
	}
	kind := codec.KindNotAttached
	if back == codec.KindNotMine.String() {
		kind = codec.KindNotMine
	}
	t.onLoop(link.Loop, func(l *loop) {
		if c := l.links.conn(link); c != nil {
			c.link.forgetWay(kind, &codec.Forward{Deliver: codec.Deliver{To: []byte(t.to), Epoch: route.Epoch}, Session: id[:]})
		}
	})
	return false
}

// part returns a context for what has to be answered before this dry run is.
func (t *tracing) part() (context.Context, context.CancelFunc) {
	deadline, ok := t.ctx.Deadline()
	if !ok {
		return context.WithCancel(t.ctx)
	}
	return context.WithTimeout(t.ctx, time.Until(deadline)*4/5)
}

func (t *tracing) nodeOf(link routing.Handle) string {
	if nodes := t.eng.cluster.nodesOf([]routing.Handle{link}); len(nodes) > 0 {
		return nodes[0]
	}
	return ""
}

// connection checks the queue of the receiver's connection as a writer does, and pings the client.
func (t *tracing) connection(h routing.Handle) {
	began := time.Now()
	pong := make(chan time.Duration, 1)
	var v verdict
	var queued, room int
	var silent int64
	var nonce uint64
	var probed bool
	if !t.onLoop(h.Loop, func(l *loop) {
		d := codec.Deliver{To: []byte(t.to), From: []byte(t.from)}
		var to destination
		if to, v = l.destination(h, codec.DeliverSize(&d)+codec.MaxToken, d.From); v.code != codec.CodeOK {
			return
		}
		queued, room, silent = to.conn.out.queued(), to.conn.out.room(), to.conn.live.silentFor()
		nonce, probed = l.probing.begin(to.conn, pong)
	}) {
		t.end(codec.CodeTimeout, stepQueue, began, "the event loop of the connection does not run")
		return
	}
	if v.code != codec.CodeOK {
		t.end(v.code, stepQueue, began, "the node does not take the message: %s", cause(v))
		return
	}
	t.hop(stepQueue, began, "%d of %d bytes are queued, and the client last sent something %d ms ago", queued, room, silent)
	began = time.Now()
	if !probed {
		t.end(codec.CodeAcked, stepConnection, began, "too many traces wait for pongs, so the client was not asked")
		return
	}
	ctx, cancel := t.part()
	defer cancel()
	select {
	case took := <-pong:
		t.end(codec.CodeAcked, stepConnection, began, "the client's connection answers in %v", took.Round(10*time.Microsecond))
	case <-ctx.Done():
		t.end(codec.CodeTimeout, stepConnection, began, "the client's connection does not answer")
	}
	t.eng.loops[h.Loop].post(func() { t.eng.loops[h.Loop].probing.end(nonce) })
}

// cause says why a verdict is what it is.
func cause(v verdict) string {
	if len(v.reason) > 0 {
		return string(v.reason)
	}
	return v.code.String()
}
