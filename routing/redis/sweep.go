package redis

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

const (
	sweepBuckets = 64      // the walk reads so many in one step
	sweepShare   = 4       // a step may take a quarter of the time between two steps
	sweepJudged  = 1000    // the number of sessions in one round trip
	sweepKnown   = 1 << 16 // the number of sessions whose whereabouts the walk remembers
	// sweepRetry is the longest pause after a failure.
	sweepRetry    = 5 * time.Second
	minSweepLease = time.Second
)

// sweep removes the bindings of dead sessions. Its goroutine owns all fields except removals.
type sweep struct {
	registry *Registry
	removals removals      // bindings of ended sessions
	step     time.Duration // between two steps of the walk
	name     string        // of this sweeper

	scanner    scanner // the position of the walk
	known      map[routing.SessionID]whereabouts
	unattached map[routing.SessionID]time.Time // since when
	// when the latest walk began that reported all bindings; zero: the next walk must report them
	verified  time.Time
	verifying bool // this walk reports all bindings
	// the latest loss that this walk knows, see lastLoss
	loss      time.Time
	condemned condemned
	unjudged  int     // how often in a row the found sessions could not be judged
	retry     backoff // of the walk
}

// whereabouts is what the walk knows about a session. It is valid for one walk.
type whereabouts struct {
	state state
	at    []routing.Presence // if it is attached
}

type state int

const (
	attached state = iota + 1
	unattached
	dead
)

func newSweep(r *Registry) *sweep {
	c := r.config
	steps := (2*c.Buckets + sweepBuckets - 1) / sweepBuckets
	return &sweep{
		registry: r,
		removals: removals{wake: make(chan struct{}, 1)},
		step:     max(time.Millisecond, c.SweepInterval/time.Duration(steps)),
		name:     rand.Text(),
		// a random start, so that sweepers that take turns cover all buckets
		scanner:    newScanner(c.Buckets, mathrand.IntN(2*c.Buckets)),
		known:      make(map[routing.SessionID]whereabouts),
		unattached: make(map[routing.SessionID]time.Time),
	}
}

// backoff makes the pauses after failures longer, and short again after a success.
type backoff struct {
	pause time.Duration
	until time.Time
}

// note records the result of a try. It returns the pause until the next.
func (b *backoff) note(err error, least time.Duration) time.Duration {
	if err == nil {
		*b = backoff{}
		return least
	}
	b.pause = min(max(2*b.pause, least), sweepRetry)
	b.until = time.Now().Add(b.pause)
	return b.pause
}

func (s *sweep) run(ctx context.Context) {
	tick := time.NewTicker(s.step)
	defer tick.Stop()
	var removing backoff
	next := make(<-chan time.Time) // the next batch can be removed
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case <-s.removals.wake:
			next = time.After(removing.pause)
		case <-next:
			var more bool
			more, err = s.removeSome(ctx)
			if pause := removing.note(err, removePause); more {
				next = time.After(pause)
			}
		case <-tick.C:
			if time.Now().Before(s.retry.until) {
				continue
			}
			err = s.walk(ctx)
			s.retry.note(err, s.step)
		}
		if err != nil && ctx.Err() == nil {
			s.registry.config.Logger.Debug("the sweep failed; it will be retried", "error", err)
		}
	}
}

// walk reads the next few buckets, if this registry is the one that sweeps.
func (s *sweep) walk(ctx context.Context) error {
	if s.registry.Rebuilding() { // a session may be attached, and its presence lost
		s.beginAnew()
		return nil
	}
	sweeper, err := s.lease(ctx)
	if err != nil {
		return err
	}
	if !sweeper { // what it has seen will be out of date when its turn comes
		s.beginAnew()
		return nil
	}
	// a short rebuild window may have opened and closed between two steps
	if loss := s.registry.losses.lastLoss(); loss != s.loss {
		s.beginAnew()
		s.loss = loss
	}
	deadline := time.Now().Add(s.step / sweepShare)
	if err := s.removeCondemned(ctx, deadline); err != nil {
		return err
	}
	for goal := s.scanner.at.done + sweepBuckets; !s.condemned.full(); {
		if s.scanner.at == (spot{}) {
			s.beginWalk(s.registry.config, s.registry.claims.Load() != nil)
		}
		if err := s.advance(ctx); err != nil {
			return err
		}
		if s.scanner.over() {
			s.endWalk()
			return nil
		}
		if s.scanner.at.done >= goal || !time.Now().Before(deadline) {
			return nil
		}
	}
	return nil
}

// advance reads what comes next, shows it, and condemns what dead sessions hold.
func (s *sweep) advance(ctx context.Context) error {
	before := s.scanner.at
	found, err := s.scan(ctx)
	if err != nil {
		return err
	}
	placed, misplaced := s.inPlace(found)
	met, err := s.judge(ctx, placed)
	if err != nil {
		// after more tries, leave this place to the next walk
		if s.unjudged++; s.unjudged < scanTries {
			s.scanner.at = before
		}
		return err
	}
	s.unjudged = 0
	s.claim(met, placed)
	s.condemned.add(append(misplaced, s.dead(placed)...))
	return nil
}

// beginAnew forgets what the walk knows about sessions and what it has condemned. The next walk
// reports all bindings.
func (s *sweep) beginAnew() {
	clear(s.unattached)
	clear(s.known)
	s.condemned = condemned{}
	s.scanner.at, s.verified = spot{}, time.Time{}
}

// beginWalk decides whether this walk reports all bindings, given whether there is a receiver. If
// the next walk did it instead, the report might come too late.
func (s *sweep) beginWalk(c Config, audience bool) {
	s.verifying = audience && time.Since(s.verified) >= c.VerifyPeriod-c.SweepInterval
	if s.verifying {
		s.verified = time.Now()
	}
}

func (s *sweep) endWalk() {
	s.scanner.restart()
	clear(s.known)
	// A session that was not met for a long time holds nothing any more.
	forget := 2 * (2*s.registry.config.ResumeWindow + s.registry.config.SweepInterval)
	for session, since := range s.unattached {
		if time.Since(since) > forget {
			delete(s.unattached, session)
		}
	}
}

// lease reports whether this registry sweeps. One of all nodes does, as long as it renews its
// lease.
func (s *sweep) lease(ctx context.Context) (bool, error) {
	ttl := max(minSweepLease, 4*s.step)
	lease := newCall(leaseScript, s.registry.keys.sweeper(), s.name, ttl.Milliseconds())
	if err := s.registry.do(ctx, lease); err != nil {
		return false, err
	}
	return lease.Bool()
}

// judge looks up the sessions that this walk has not met yet and returns them. It ends those that
// have been detached for too long.
func (s *sweep) judge(ctx context.Context, bindings []swap) (met []routing.SessionID, err error) {
	if len(s.known) > sweepKnown {
		clear(s.known)
	}
	var sessions []routing.SessionID
	for _, b := range bindings {
		session := b.binding.Session
		if _, known := s.known[session]; !known {
			s.known[session] = whereabouts{}
			sessions = append(sessions, session)
		}
	}
	for some := range slices.Chunk(sessions, sweepJudged) {
		judged, err := s.judgeSome(ctx, some)
		if err != nil {
			for _, session := range sessions {
				delete(s.known, session)
			}
			return nil, err
		}
		met = append(met, judged...)
	}
	return met, nil
}

// judgeSome judges sessions in one round trip, or in two if some of them must end. It returns the
// sessions about which Redis has answered.
func (s *sweep) judgeSome(ctx context.Context, sessions []routing.SessionID) (judged []routing.SessionID, err error) {
	hashes := make([]goredis.Cmder, len(sessions))
	for i, session := range sessions {
		hashes[i] = goredis.NewMapStringStringCmd(ctx, "hgetall", s.registry.keys.session(session))
	}
	if err := s.registry.inBackground(ctx, len(hashes), hashes...); unasked(err, hashes) {
		return nil, err
	}
	var over []routing.EndOp
	for i, session := range sessions {
		if !succeeded(hashes[i]) {
			delete(s.known, session)
			continue
		}
		p := decodePresence(hashes[i].(*goredis.MapStringStringCmd).Val())
		w, end := s.judgeSession(session, p)
		if end {
			over = append(over, routing.EndOp{Session: session, Gone: p.Nodes})
		}
		s.known[session] = w
		judged = append(judged, session)
	}
	return judged, s.endSessions(ctx, over)
}

// judgeSession returns where a session is, and whether it has been detached for so long that it
// must end.
func (s *sweep) judgeSession(session routing.SessionID, p routing.SessionPresence) (w whereabouts, end bool) {
	alive := slices.ContainsFunc(p.Nodes, func(node routing.Presence) bool { return !s.registry.config.Gone(node) })
	if p.Dead || alive {
		delete(s.unattached, session)
	}
	switch {
	case alive:
		return whereabouts{state: attached, at: p.Nodes}, false
	case p.Dead:
		return whereabouts{state: dead}, false
	}
	since, seen := s.unattached[session]
	if !seen {
		since = time.Now()
		s.unattached[session] = since
	}
	return whereabouts{state: unattached}, time.Since(since) >= 2*s.registry.config.ResumeWindow
}

// endSessions ends detached sessions. It is a compare-and-swap: an attach in the meantime wins.
func (s *sweep) endSessions(ctx context.Context, ops []routing.EndOp) error {
	if len(ops) == 0 {
		return nil
	}
	calls := make([]goredis.Cmder, len(ops))
	for i, op := range ops {
		end, err := s.registry.newEnd(op)
		if err != nil {
			return err
		}
		calls[i] = end
	}
	if err := s.registry.inBackground(ctx, len(calls), calls...); unasked(err, calls) {
		return err
	}
	for i, op := range ops {
		if ended, err := s.registry.ended(calls[i].(*call)); err != nil || !ended {
			continue // it stays in unattached
		}
		delete(s.unattached, op.Session)
		s.known[op.Session] = whereabouts{state: dead}
		s.registry.config.Logger.Info("ended a session that was attached nowhere", "session", op.Session, "nodes gone", len(op.Gone))
	}
	return nil
}
