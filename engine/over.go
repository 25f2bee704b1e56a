package engine

import (
	"context"
	"iter"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// A binding that has ended lives on in the routes that other nodes remember. So the node that has
// ended it, by an unbind or a kick, remembers that too, and sends back what still comes for it
// (S30). The session checks what it gets as well: that is the second line.

// superseded notes that a session has lost an ID, which has been bound under epoch: what was bound
// before is over. Call it in the ID's lane.
func (e *Engine) superseded(session routing.SessionID, id string, epoch uint64) {
	if epoch > 0 {
		e.bindingOver(session, id, epoch-1)
	}
}

// bindingOver notes that the bindings of an ID up to epoch are over, on account of the session that
// held it. Call it in the ID's lane.
func (e *Engine) bindingOver(session routing.SessionID, id string, epoch uint64) {
	if e.cluster == nil {
		return // nobody else remembers routes, and here the table says it all
	}
	e.cluster.overs.add(session, id, epoch, time.Now())
	if r, ok := e.cluster.remote.Lookup([]byte(id)); ok && r.Epoch <= epoch {
		e.cluster.remote.Unbind(id, r.Session, r.Epoch)
	}
}

// released notes that a session has given bindings back, and notifies the other nodes. Those where
// the session is or was attached may have the bindings in their tables, and any may remember
// routes. Call it in the lane of the IDs.
func (e *Engine) released(s *routing.Session, all []routing.UnbindOp) {
	if e.cluster == nil || len(all) == 0 {
		return
	}
	id := s.ID()
	var frames []byte
	for _, op := range all {
		e.bindingOver(id, op.ID, op.Epoch)
		frames = codec.AppendExpel(frames, codec.KindReleased, id[:], op.ID, op.Epoch)
	}
	e.tellLinks(frames)
}

// handleReleased takes away a binding that its session has given back at another node.
func (k *link) handleReleased(body []byte) error {
	b, id, epoch, err := codec.DecodeExpel(body, codec.KindReleased)
	if err != nil {
		return err
	}
	e, session, name := k.conn.loop.eng, routing.SessionID(b), string(id)
	e.lanes.quick(e.lanes.of(id), func() {
		if s := e.table.Session(session); s != nil {
			e.table.Unbind(name, s, epoch)
		}
		e.bindingOver(session, name, epoch)
		e.watcher.heard(name, false, epoch)
	})
	return nil
}

// routeCheck compares the routes that a node remembers with the registry, some every second and all
// within a verify period: a binding may have ended at a node that could not notify this one. While
// the registry does not answer, the routes stay.
type routeCheck struct {
	eng  *Engine
	next func() (string, routing.Route, bool)
	stop func()
}

// keepRoutes checks routes, and forgets what overs need not remember any more, until ctx ends.
func (c *cluster) keepRoutes(ctx context.Context) {
	tick := time.NewTicker(verifyEvery)
	defer tick.Stop()
	check := &routeCheck{eng: c.eng}
	check.begin()
	defer func() { check.stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			c.overs.expire(now)
			check.step(ctx)
		}
	}
}

func (r *routeCheck) begin() { r.next, r.stop = iter.Pull2(r.eng.cluster.remote.All()) }

// step checks the next routes.
func (r *routeCheck) step(ctx context.Context) {
	e := r.eng
	for n := int(int64(e.cluster.remote.Len())*int64(verifyEvery)/int64(e.cfg.VerifyPeriod)) + 1; n > 0; n -= verifyBatch {
		if !r.check(ctx, min(n, verifyBatch)) {
			return
		}
	}
}

// check checks up to n routes. It returns false if that was the last one, or the registry did not
// answer.
func (r *routeCheck) check(ctx context.Context, n int) bool {
	var ids []string
	var routes []routing.Route
	for len(ids) < n {
		id, route, ok := r.next()
		if !ok {
			r.stop()
			r.begin()
			break
		}
		ids, routes = append(ids, id), append(routes, route)
	}
	if len(ids) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found, err := r.eng.registry.Lookup(ctx, ids)
	if err != nil {
		return false
	}
	for i, f := range found {
		if route := routes[i]; !f.Unknown && f.Binding != (routing.Binding{Session: route.Session.ID(), Epoch: route.Epoch}) {
			r.eng.cluster.remote.Unbind(ids[i], route.Session, route.Epoch)
		}
	}
	return len(ids) == n
}
