package directory

import (
	"context"
	"iter"
	"time"

	"distmsg/routing"
)

// routeCheck compares the routes that a node remembers with the registry, some every second and all
// within a verify period: a binding may have ended at a node that could not notify this one. While
// the registry does not answer, the routes stay.
type routeCheck struct {
	dir  *Directory
	next func() (string, routing.Route, bool)
	stop func()
}

// keepRoutes checks routes, and forgets what overs need not remember any more, until ctx ends.
func (n *news) keepRoutes(ctx context.Context) {
	tick := time.NewTicker(VerifyEvery)
	defer tick.Stop()
	check := &routeCheck{dir: n.dir}
	check.begin()
	defer func() { check.stop() }()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			n.overs.expire(now)
			check.step(ctx)
		}
	}
}

func (r *routeCheck) begin() { r.next, r.stop = iter.Pull2(r.dir.remote.All()) }

// step checks the next routes.
func (r *routeCheck) step(ctx context.Context) {
	d := r.dir
	for n := int(int64(d.remote.Len())*int64(VerifyEvery)/int64(d.cfg.VerifyPeriod)) + 1; n > 0; n -= verifyBatch {
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
	ctx, cancel := context.WithTimeout(ctx, ResolveTimeout)
	defer cancel()
	found, err := r.dir.registry.Lookup(ctx, ids)
	if err != nil {
		return false
	}
	for i, f := range found {
		if route := routes[i]; !f.Unknown && f.Binding != (routing.Binding{Session: route.Session.ID(), Epoch: route.Epoch}) {
			r.dir.remote.Unbind(ids[i], route.Session, route.Epoch)
		}
	}
	return len(ids) == n
}
