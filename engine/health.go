package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"distmsg/routing"
)

// health is what a node has noticed of the services it depends on.
type health struct {
	mu            sync.Mutex
	registryErr   error     // guarded by mu, as all below; nil: the latest probe went well, and no call has failed since
	registrySince time.Time // when the first of the failed calls ended
	failures      uint64    // calls that have failed
	finding       error     // what is wrong with a registry that takes calls
}

// watchedRegistry is the registry that the engine was given, with an eye on whether it takes calls.
// A call that fails says that it does not. That it does, only a probe says: a look-up that goes
// well is no proof that binds do, nor is one bind of the next.
type watchedRegistry struct {
	routing.Registry
	health *health
}

// note takes the result of a call, and hands its error on.
func (w *watchedRegistry) note(err error) error {
	if !errors.Is(err, routing.ErrUnavailable) {
		return err
	}
	h := w.health
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures++
	if h.registryErr == nil {
		h.registrySince = time.Now()
	}
	h.registryErr = err
	return err
}

// failures is how many calls have failed so far.
func (w *watchedRegistry) failures() uint64 {
	w.health.mu.Lock()
	defer w.health.mu.Unlock()
	return w.health.failures
}

// probe has the registry probed. A call that fails meanwhile counts.
func (w *watchedRegistry) probe(ctx context.Context) {
	h := w.health
	h.mu.Lock()
	failures := h.failures
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, registryTimeout)
	defer cancel()
	err := w.Registry.Probe(ctx)
	if errors.Is(err, routing.ErrUnavailable) {
		_ = w.note(err)
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.finding = err
	if h.failures == failures {
		h.registryErr = nil
	}
}

func (w *watchedRegistry) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	results, err := w.Registry.Bind(ctx, ops)
	return results, w.note(err)
}

func (w *watchedRegistry) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	results, err := w.Registry.Unbind(ctx, ops)
	return results, w.note(err)
}

func (w *watchedRegistry) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	results, err := w.Registry.Lookup(ctx, ids)
	return results, w.note(err)
}

func (w *watchedRegistry) Attach(ctx context.Context, session routing.SessionID, p routing.Presence) error {
	return w.note(w.Registry.Attach(ctx, session, p))
}

func (w *watchedRegistry) Detach(ctx context.Context, session routing.SessionID, p routing.Presence) (int, error) {
	left, err := w.Registry.Detach(ctx, session, p)
	return left, w.note(err)
}

func (w *watchedRegistry) Presence(ctx context.Context, session routing.SessionID) (routing.SessionPresence, error) {
	p, err := w.Registry.Presence(ctx, session)
	return p, w.note(err)
}

func (w *watchedRegistry) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	presences, err := w.Registry.Presences(ctx, all)
	return presences, w.note(err)
}

func (w *watchedRegistry) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	ended, err := w.Registry.EndSession(ctx, op)
	return ended, w.note(err)
}

// Health names what this node has to do without at the moment, a line each; empty: nothing. A node with
// troubles goes on serving: what it knows still works, and what it does not know ends with an outcome that says so.
func (e *Engine) Health() []string {
	var troubles []string
	e.health.mu.Lock()
	err, since, finding := e.health.registryErr, e.health.registrySince, e.health.finding
	e.health.mu.Unlock()
	switch {
	case err != nil:
		troubles = append(troubles, fmt.Sprintf("calls to the registry fail, for %v: %v", time.Since(since).Round(time.Second), err))
	case e.registry.Rebuilding():
		troubles = append(troubles, "the registry has lost data, or may have; it is being rebuilt")
	}
	if finding != nil {
		for line := range strings.Lines(finding.Error()) {
			troubles = append(troubles, "the registry has to be put right: "+strings.TrimSpace(line))
		}
	}
	if trouble := e.memoryTrouble(); trouble != "" {
		troubles = append(troubles, trouble)
	}
	if e.cluster != nil {
		troubles = append(troubles, e.cluster.peers.Members.Troubles()...)
	}
	return append(troubles, e.stalls()...)
}

// Gone reports whether a presence entry counts as absent because its node is dead: there is no link to it, and the
// membership does not list it, or lists a later incarnation, or none (S16). It fits the Gone field of routing/redis.Config. Any goroutine
// may call it; without a cluster, every node but this one is gone.
func (e *Engine) Gone(p routing.Presence) bool {
	if p.Node == e.cfg.NodeID {
		return p.Incarnation != e.incarnation.Load()
	}
	if e.cluster == nil {
		return true
	}
	return e.cluster.peers.Members.Gone(p.Node, p.Incarnation)
}
