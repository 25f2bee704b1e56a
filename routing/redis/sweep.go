package redis

import (
	"context"
	"crypto/rand"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

const (
	sweepBuckets  = 64   // looked at in one step
	sweepBatch    = 1000 // bindings removed in one round trip
	sweepPause    = 10 * time.Millisecond
	sweepQueue    = 1024 // ended sessions that wait for the removal of their bindings; more are left to the walk
	minSweepLease = time.Second
)

// sweep is the removal of what dead sessions hold. All but the queue belongs to its goroutine.
type sweep struct {
	queue chan []swap   // bindings of ended sessions
	step  time.Duration // between two steps of the walk
	name  string        // of this sweeper

	next       int // bucket that the walk looks at next; the long ones come after the others
	known      map[routing.SessionID]whereabouts
	unattached map[routing.SessionID]time.Time // since when
	verified   time.Time                       // when the latest walk began that showed all bindings; zero: they are to be shown soon
	verifying  bool                            // this walk does
	loss       time.Time                       // the latest loss that this walk knows of, see lastLoss
	condemned  []condemned                     // what the walk has found and not removed yet, in the order found
}

// condemned is bindings of dead sessions. They are not removed at once: Bind may be about to put back what they have replaced.
type condemned struct {
	swaps []swap
	found time.Time
}

// whereabouts are what the walk knows of a session. They last for one walk.
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

func newSweep(c Config) *sweep {
	steps := (2*c.Buckets + sweepBuckets - 1) / sweepBuckets
	return &sweep{
		queue:      make(chan []swap, sweepQueue),
		step:       max(time.Millisecond, c.SweepInterval/time.Duration(steps)),
		name:       rand.Text(),
		known:      make(map[routing.SessionID]whereabouts),
		unattached: make(map[routing.SessionID]time.Time),
	}
}

// removeSoon hands over the bindings of a session that has ended.
func (s *sweep) removeSoon(session routing.SessionID, bound []routing.BoundID) {
	if len(bound) == 0 {
		return
	}
	swaps := make([]swap, len(bound))
	for i, b := range bound {
		swaps[i] = swap{id: b.ID, binding: routing.Binding{Session: session, Epoch: b.Epoch}}
	}
	select {
	case s.queue <- swaps:
	default: // the walk will find them
	}
}

func (r *Registry) runSweep(ctx context.Context) {
	tick := time.NewTicker(r.sweep.step)
	defer tick.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case swaps := <-r.sweep.queue:
			err = r.remove(ctx, swaps)
		case <-tick.C:
			err = r.walk(ctx)
		}
		if err != nil && ctx.Err() == nil { // the walk comes again
			r.config.Logger.Debug("cannot sweep", "error", err)
		}
	}
}

// remove takes bindings out of the registry, a batch at a time.
func (r *Registry) remove(ctx context.Context, swaps []swap) error {
	for len(swaps) > 0 {
		n := min(len(swaps), sweepBatch)
		if _, err := r.swap(ctx, swaps[:n]); err != nil {
			return err
		}
		if swaps = swaps[n:]; len(swaps) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(sweepPause):
		}
	}
	return nil
}

// walk looks at the next few buckets, if it is this registry that sweeps.
func (r *Registry) walk(ctx context.Context) error {
	s := r.sweep
	if r.Rebuilding() { // a session may be attached, and its presence lost
		s.beginAnew()
		return nil
	}
	sweeper, err := r.lease(ctx)
	if err != nil {
		return err
	}
	if !sweeper { // what this one has seen is of some time ago when its turn comes
		s.beginAnew()
		return nil
	}
	if loss := r.losses.lastLoss(); loss != s.loss { // a short window may have closed between two steps
		s.beginAnew()
		s.loss = loss
	}
	if s.next == 0 {
		s.beginWalk(r.config, r.claims.Load() != nil)
	}
	bindings, err := r.readBuckets(ctx, s.next, min(s.next+sweepBuckets, 2*r.config.Buckets))
	if err != nil {
		return err
	}
	met, err := r.judge(ctx, bindings)
	if err != nil {
		return err
	}
	r.claim(met, bindings)
	var found []swap
	for _, b := range bindings {
		if s.known[b.binding.Session].state == dead {
			found = append(found, b)
		}
	}
	if len(found) > 0 {
		s.condemned = append(s.condemned, condemned{swaps: found, found: time.Now()})
	}
	for len(s.condemned) > 0 && time.Since(s.condemned[0].found) > 2*r.config.Timeout { // of the bind, and of putting back
		if err := r.remove(ctx, s.condemned[0].swaps); err != nil {
			return err
		}
		s.condemned = s.condemned[1:]
	}
	if s.next += sweepBuckets; s.next >= 2*r.config.Buckets {
		r.endWalk()
	}
	return nil
}

// beginAnew forgets what the walk knows of sessions. The next one shows all bindings.
func (s *sweep) beginAnew() {
	clear(s.unattached)
	clear(s.known)
	s.next, s.verified = 0, time.Time{}
}

// beginWalk decides whether this walk shows all bindings, given whether there is somebody to show
// them to. With the next one they might come too late.
func (s *sweep) beginWalk(c Config, audience bool) {
	s.verifying = audience && time.Since(s.verified) >= c.VerifyPeriod-c.SweepInterval
	if s.verifying {
		s.verified = time.Now()
	}
}

func (r *Registry) endWalk() {
	s := r.sweep
	s.next = 0
	clear(s.known)
	// Who was not met for long holds nothing any more.
	forget := 2 * (2*r.config.ResumeWindow + r.config.SweepInterval)
	for session, since := range s.unattached {
		if time.Since(since) > forget {
			delete(s.unattached, session)
		}
	}
}

// lease reports whether this registry sweeps: one of all nodes does, for as long as it goes on.
func (r *Registry) lease(ctx context.Context) (bool, error) {
	ttl := max(minSweepLease, 4*r.sweep.step)
	lease := newCall(leaseScript, r.keys.sweeper(), r.sweep.name, ttl.Milliseconds())
	if err := r.do(ctx, lease); err != nil {
		return false, err
	}
	return lease.Bool()
}

func (r *Registry) readBuckets(ctx context.Context, from, to int) ([]swap, error) {
	var commands []goredis.Cmder
	for n := from; n < to; n++ {
		b := bucket{number: n % r.config.Buckets, long: n >= r.config.Buckets}
		commands = append(commands, goredis.NewMapStringStringCmd(ctx, "hgetall", r.keys.bucket(b)))
	}
	if err := r.do(ctx, commands...); err != nil {
		return nil, err
	}
	var found []swap
	for _, c := range commands {
		for id, value := range c.(*goredis.MapStringStringCmd).Val() {
			if binding, ok := decodeBinding(value); ok { // the field "" is none
				found = append(found, swap{id: id, binding: binding})
			}
		}
	}
	return found, nil
}

// judge finds out about the sessions that this walk has not met yet, which it returns, and ends
// those that have been unattached for too long.
func (r *Registry) judge(ctx context.Context, bindings []swap) (met []routing.SessionID, err error) {
	s := r.sweep
	asked := make(map[routing.SessionID]*goredis.MapStringStringCmd)
	var commands []goredis.Cmder
	for _, b := range bindings {
		session := b.binding.Session
		if s.known[session].state == 0 && asked[session] == nil {
			asked[session] = goredis.NewMapStringStringCmd(ctx, "hgetall", r.keys.session(session))
			commands = append(commands, asked[session])
		}
	}
	if len(commands) == 0 {
		return nil, nil
	}
	if err := r.do(ctx, commands...); err != nil {
		return nil, err
	}
	for session, hash := range asked {
		p := decodePresence(hash.Val())
		state, err := r.judgeSession(ctx, session, p)
		if err != nil {
			return nil, err
		}
		w := whereabouts{state: state}
		if state == attached {
			w.at = p.Nodes
		}
		s.known[session] = w
		met = append(met, session)
	}
	return met, nil
}

func (r *Registry) judgeSession(ctx context.Context, session routing.SessionID, p routing.SessionPresence) (state, error) {
	s := r.sweep
	for _, node := range p.Nodes {
		if !r.config.Gone(node) {
			delete(s.unattached, session)
			return attached, nil
		}
	}
	if !p.Dead {
		since, seen := s.unattached[session]
		if !seen {
			since = time.Now()
			s.unattached[session] = since
		}
		if time.Since(since) < 2*r.config.ResumeWindow {
			return unattached, nil
		}
		// A compare-and-swap: an attach that came in the meantime wins.
		ended, err := r.EndSession(ctx, routing.EndOp{Session: session, Gone: p.Nodes})
		if err != nil || !ended {
			return unattached, err
		}
		r.config.Logger.Info("ended a session that was attached nowhere", "session", session, "nodes gone", len(p.Nodes))
	}
	delete(s.unattached, session)
	return dead, nil
}
