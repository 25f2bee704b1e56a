package directory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"distmsg/routing"
)

// monitoredRegistry is the engine's registry together with what is known of its health. A failed
// call shows that the registry does not take calls. Only a probe shows that it does: a lookup that
// succeeds is no proof that binds do, nor is one bind proof of the next.
type monitoredRegistry struct {
	routing.Registry
	calls callTimes

	mu sync.Mutex
	// guarded by mu, as all below; nil: no call has failed since the latest probe went well
	failed   error
	since    time.Time // when the first of the failed calls ended
	failures uint64    // calls that have failed
	finding  error     // what is wrong with a registry that takes calls
}

// identity returns the identity of the registry's data. It is zero if the registry cannot tell.
func (w *monitoredRegistry) identity() routing.Identity {
	if r, ok := w.Registry.(routing.Identified); ok {
		return r.Identity()
	}
	return routing.Identity{}
}

// Identity returns the identity of the registry's data. It is zero if the registry cannot tell. It
// makes no call.
func (d *Directory) Identity() routing.Identity { return d.registry.identity() }

// note notes the result of a call that began then, and returns its error.
func (w *monitoredRegistry) note(op operation, began time.Time, err error) error {
	w.calls.add(op, began, err)
	if !errors.Is(err, routing.ErrUnavailable) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failures++
	if w.failed == nil {
		w.since = time.Now()
	}
	w.failed = err
	return err
}

// failureCount returns how many calls have failed so far.
func (w *monitoredRegistry) failureCount() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures
}

// probe probes the registry. A call that fails meanwhile counts.
func (w *monitoredRegistry) probe(ctx context.Context) {
	w.mu.Lock()
	failures := w.failures
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, RegistryTimeout)
	defer cancel()
	began := time.Now()
	err := w.note(callProbe, began, w.Registry.Probe(ctx))
	if errors.Is(err, routing.ErrUnavailable) {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.finding = err
	if w.failures == failures {
		w.failed = nil
	}
}

func (w *monitoredRegistry) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	began := time.Now()
	results, err := w.Registry.Bind(ctx, ops)
	return results, w.note(callBind, began, err)
}

func (w *monitoredRegistry) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	began := time.Now()
	results, err := w.Registry.Unbind(ctx, ops)
	return results, w.note(callUnbind, began, err)
}

func (w *monitoredRegistry) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	began := time.Now()
	results, err := w.Registry.Lookup(ctx, ids)
	return results, w.note(callLookup, began, err)
}

func (w *monitoredRegistry) Attach(ctx context.Context, session routing.SessionID, p routing.Presence) error {
	began := time.Now()
	return w.note(callAttach, began, w.Registry.Attach(ctx, session, p))
}

func (w *monitoredRegistry) Detach(ctx context.Context, session routing.SessionID, p routing.Presence) (int, error) {
	began := time.Now()
	left, err := w.Registry.Detach(ctx, session, p)
	return left, w.note(callDetach, began, err)
}

func (w *monitoredRegistry) Presence(ctx context.Context, session routing.SessionID) (routing.SessionPresence, error) {
	began := time.Now()
	p, err := w.Registry.Presence(ctx, session)
	return p, w.note(callPresence, began, err)
}

func (w *monitoredRegistry) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	began := time.Now()
	presences, err := w.Registry.Presences(ctx, all)
	return presences, w.note(callPresence, began, err)
}

func (w *monitoredRegistry) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	began := time.Now()
	ended, err := w.Registry.EndSession(ctx, op)
	return ended, w.note(callEndSession, began, err)
}

// Troubles returns what is wrong with the registry, one line for each problem.
func (d *Directory) Troubles() (lines []string) {
	w := d.registry
	w.mu.Lock()
	err, since, finding := w.failed, w.since, w.finding
	w.mu.Unlock()
	switch {
	case err != nil:
		lines = append(lines, fmt.Sprintf("calls to the registry have failed for %v: %v", time.Since(since).Round(time.Second), err))
	case w.Rebuilding():
		lines = append(lines, "the registry has lost data, or may have; the nodes are rebuilding it")
	}
	if finding != nil {
		for line := range strings.Lines(finding.Error()) {
			lines = append(lines, "the registry must be fixed: "+strings.TrimSpace(line))
		}
	}
	return lines
}
