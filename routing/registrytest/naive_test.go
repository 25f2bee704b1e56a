package registrytest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"distmsg/routing"
)

// fault names one way in which a naive registry is bad.
type fault string

const (
	none                  fault = ""
	unbindsAnyone         fault = "unbinds without comparing"
	unbindsAnyEpoch       fault = "unbinds by session, whatever the epoch"
	replacesAnyone        fault = "replaces without comparing"
	comparesSessionOnly   fault = "compares the incumbent's session only"
	reassertAlwaysWins    fault = "lets any re-assert win"
	reassertTieWins       fault = "lets a re-assert win over its equal"
	reassertMints         fault = "mints an epoch for a re-assert"
	mintsFromClockOnly    fault = "mints what the clock says"
	forgetsEpochs         fault = "forgets the epochs of free IDs"
	believesAnyEpoch      fault = "believes any epoch"
	believesWhoeverComes  fault = "lets invented epochs displace others"
	believesClients       fault = "believes a client that an ID is its own"
	believesItsClock      fault = "refuses epochs that are ahead of its clock"
	hidesIncumbent        fault = "does not name the incumbent"
	attachesOlder         fault = "lets an older attach replace a newer"
	detachesNewer         fault = "lets an older detach remove a newer"
	mergesIncarnations    fault = "does not look at incarnations"
	endsAttached          fault = "ends what is attached"
	endsOverNewerAttach   fault = "ends over a newer attach"
	ignoresGone           fault = "counts dead nodes as alive"
	revivesByAttach       fault = "revives by attach"
	revivesByBind         fault = "revives by bind"
	sweepsByID            fault = "sweeps IDs that have moved on"
	bindsWithoutLock      fault = "looks first and binds later"
	answersWithoutContext fault = "answers without a context"
	hidesTheContext       fault = "does not say that the context has ended"
	answersAfterClose     fault = "answers after its end"
	mixesSessionsUp       fault = "answers about sessions in another order"
)

// naive is a registry as one would write it on a blackboard.
type naive struct {
	clock func() time.Time
	fault fault

	mu       sync.Mutex
	closed   bool
	bindings map[string]routing.Binding
	top      map[string]uint64 // the greatest epoch an ID ever had
	history  map[routing.SessionID][]string
	presence map[routing.SessionID][]routing.Presence
	dead     map[routing.SessionID]bool
	stored   chan struct{} // closed when the next bind is stored
}

func newNaive(clock func() time.Time, f fault) *naive {
	return &naive{
		clock:    clock,
		fault:    f,
		bindings: make(map[string]routing.Binding),
		top:      make(map[string]uint64),
		history:  make(map[routing.SessionID][]string),
		presence: make(map[routing.SessionID][]routing.Presence),
		dead:     make(map[routing.SessionID]bool),
		stored:   make(chan struct{}),
	}
}

func (n *naive) is(f fault) bool { return n.fault == f }

func (n *naive) available(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err != nil && n.is(hidesTheContext):
		return routing.ErrUnavailable
	case err != nil && !n.is(answersWithoutContext):
		return errors.Join(routing.ErrUnavailable, err)
	case n.closed && !n.is(answersAfterClose):
		return routing.ErrUnavailable
	}
	return nil
}

func (n *naive) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return nil, err
	}
	var results []routing.BindResult
	for _, op := range ops {
		result := n.bind(op)
		if n.is(hidesIncumbent) {
			result.Incumbent = routing.Binding{}
		}
		results = append(results, result)
	}
	return results, nil
}

func (n *naive) bind(op routing.BindOp) routing.BindResult {
	if n.dead[op.Session] && !n.is(revivesByBind) {
		return routing.BindResult{Status: routing.Dead}
	}
	held := n.bindings[op.ID]
	if n.is(bindsWithoutLock) {
		n.awaitAnother()
	}
	if op.Epoch != 0 && n.is(reassertMints) {
		op.Epoch, op.Expect = 0, held
	}
	now := uint64(min(n.clock().UnixMicro(), routing.MaxClock))
	free, own := held == routing.Binding{}, held.Session == op.Session
	result := routing.BindResult{Status: routing.Bound, Epoch: op.Epoch}
	if op.Epoch == 0 {
		if !free && !own && !n.expects(op, held) {
			return routing.BindResult{Status: routing.Taken, Incumbent: held}
		}
		result.Epoch = n.mint(op.ID, now)
	} else {
		most, ahead := uint64(routing.MaxAsserted), now+uint64(routing.MaxEpochAhead.Microseconds())
		if !free && !own && !n.is(believesWhoeverComes) || n.is(believesItsClock) {
			most = ahead
		}
		if op.Epoch > max(most, n.top[op.ID]) && !n.is(believesAnyEpoch) {
			return routing.BindResult{Status: routing.Invalid}
		}
		if !free && !own && op.Epoch > held.Epoch && !op.Known && !n.is(believesClients) {
			return routing.BindResult{Status: routing.Invalid}
		}
		wins := free || op.Epoch > held.Epoch || op.Epoch == held.Epoch && (own || n.is(reassertTieWins))
		if !wins && !n.is(reassertAlwaysWins) {
			return routing.BindResult{Status: routing.Superseded, Incumbent: held}
		}
	}
	if !own {
		result.Incumbent = held
	}
	n.bindings[op.ID] = routing.Binding{Session: op.Session, Epoch: result.Epoch}
	n.top[op.ID] = max(n.top[op.ID], result.Epoch)
	n.history[op.Session] = append(n.history[op.Session], op.ID)
	close(n.stored)
	n.stored = make(chan struct{})
	return result
}

// awaitAnother gives the lock away until another bind has been stored, so that what was seen before
// is out of date. If none comes for a moment there is no race to lose.
func (n *naive) awaitAnother() {
	const moment = 10 * time.Millisecond
	stored := n.stored
	n.mu.Unlock()
	defer n.mu.Lock()
	select {
	case <-stored:
	case <-time.After(moment):
	}
}

func (n *naive) expects(op routing.BindOp, held routing.Binding) bool {
	return op.Expect == held || n.is(replacesAnyone) || n.is(comparesSessionOnly) && op.Expect.Session == held.Session
}

func (n *naive) mint(id string, now uint64) uint64 {
	if n.is(mintsFromClockOnly) {
		return now
	}
	return max(now, n.top[id]+1)
}

func (n *naive) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return nil, err
	}
	var results []routing.UnbindResult
	for _, op := range ops {
		held := n.bindings[op.ID]
		found := held.Session == op.Session && (held.Epoch == op.Epoch || n.is(unbindsAnyEpoch)) || n.is(unbindsAnyone)
		if found {
			n.free(op.ID)
		}
		results = append(results, routing.UnbindResult{Removed: found})
	}
	return results, nil
}

func (n *naive) free(id string) {
	delete(n.bindings, id)
	if n.is(forgetsEpochs) {
		delete(n.top, id)
	}
}

func (n *naive) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return nil, err
	}
	var results []routing.LookupResult
	for _, id := range ids {
		results = append(results, routing.LookupResult{Binding: n.bindings[id]})
	}
	return results, nil
}

func (n *naive) sameNode(p, q routing.Presence) bool {
	return p.Node == q.Node && (p.Incarnation == q.Incarnation || n.is(mergesIncarnations))
}

func (n *naive) Attach(ctx context.Context, session routing.SessionID, p routing.Presence) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return err
	}
	if n.dead[session] && !n.is(revivesByAttach) {
		return routing.ErrSessionDead
	}
	for i, q := range n.presence[session] {
		if n.sameNode(p, q) {
			if p.Serial > q.Serial || n.is(attachesOlder) {
				n.presence[session][i] = p
			}
			return nil
		}
	}
	n.presence[session] = append(n.presence[session], p)
	return nil
}

func (n *naive) Detach(ctx context.Context, session routing.SessionID, p routing.Presence) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return 0, err
	}
	n.presence[session] = slices.DeleteFunc(n.presence[session], func(q routing.Presence) bool {
		return n.sameNode(p, q) && (q.Serial <= p.Serial || n.is(detachesNewer))
	})
	return len(n.presence[session]), nil
}

func (n *naive) Presence(ctx context.Context, session routing.SessionID) (routing.SessionPresence, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return routing.SessionPresence{}, err
	}
	return routing.SessionPresence{Dead: n.dead[session], Nodes: slices.Clone(n.presence[session])}, nil
}

func (n *naive) Presences(ctx context.Context, sessions []routing.SessionID) ([]routing.SessionPresence, error) {
	results := make([]routing.SessionPresence, len(sessions))
	for i, session := range sessions {
		at := i
		if n.is(mixesSessionsUp) {
			at = len(sessions) - 1 - i
		}
		var err error
		if results[at], err = n.Presence(ctx, session); err != nil {
			return nil, err
		}
	}
	return results, ctx.Err()
}

func (n *naive) EndSession(ctx context.Context, op routing.EndOp) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.available(ctx); err != nil {
		return false, err
	}
	attached := slices.ContainsFunc(n.presence[op.Session], func(q routing.Presence) bool {
		return n.is(ignoresGone) || !slices.ContainsFunc(op.Gone, func(p routing.Presence) bool {
			return n.sameNode(p, q) && (q.Serial <= p.Serial || n.is(endsOverNewerAttach))
		})
	})
	if attached && !op.Force && !n.is(endsAttached) {
		return false, nil
	}
	n.dead[op.Session] = true
	delete(n.presence, op.Session)
	for _, id := range n.history[op.Session] {
		if n.bindings[id].Session == op.Session || n.is(sweepsByID) {
			n.free(id)
		}
	}
	return true, nil
}

func (n *naive) Lost() <-chan struct{} { return nil }
func (n *naive) Rebuilding() bool      { return false }

func (n *naive) Claims(ctx context.Context, _ func([]routing.Claim)) { <-ctx.Done() }

func (n *naive) Probe(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.available(ctx)
}

func (n *naive) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	return nil
}

var _ routing.Registry = (*naive)(nil)
