package redis

import (
	"context"

	"distmsg/routing"
)

// Claims implements [routing.Registry]. Only the registry that sweeps calls f, with what its walk
// finds, and it calls f on the goroutine that sweeps. Claims returns when ctx ends.
func (r *Registry) Claims(ctx context.Context, f func([]routing.Claim)) {
	r.claims.Store(&f)
	<-ctx.Done()
	r.claims.Store(nil)
}

// claim reports what the walk has found: where the sessions are that it has met for the first time,
// and which sessions hold the bindings. It reports detached sessions in every walk, because they
// end soon.
func (s *sweep) claim(met []routing.SessionID, bindings []swap) {
	f := s.registry.claims.Load()
	if f == nil {
		return
	}
	var all []routing.Claim
	for _, session := range met {
		if w := s.known[session]; w.state == unattached || w.state == attached && s.verifying {
			all = append(all, routing.Claim{Session: session, At: w.at})
		}
	}
	if s.verifying {
		held := make(map[routing.SessionID]int) // indices in all
		for _, b := range bindings {
			session := b.binding.Session
			w := s.known[session]
			if w.state != attached {
				continue
			}
			i, known := held[session]
			if !known {
				i = len(all)
				held[session] = i
				all = append(all, routing.Claim{Session: session, At: w.at})
			}
			all[i].Bound = append(all[i].Bound, routing.BoundID{ID: b.id, Epoch: b.binding.Epoch})
		}
	}
	if len(all) > 0 {
		(*f)(all)
	}
}
