package redis

import (
	"context"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

// Attach implements [routing.Registry].
func (r *Registry) Attach(ctx context.Context, session routing.SessionID, p routing.Presence) error {
	attach := newCall(attachScript, r.keys.session(session), presenceField(p), presenceValue(p))
	if err := r.do(ctx, attach); err != nil {
		return err
	}
	if alive, err := attach.Bool(); err != nil {
		return r.unavailable(err)
	} else if !alive {
		return routing.ErrSessionDead
	}
	return nil
}

// Detach implements [routing.Registry].
func (r *Registry) Detach(ctx context.Context, session routing.SessionID, p routing.Presence) (left int, err error) {
	detach := newCall(detachScript, r.keys.session(session), presenceField(p), presenceValue(p))
	if err := r.do(ctx, detach); err != nil {
		return 0, err
	}
	left, err = detach.Int()
	return left, r.unavailable(err)
}

// Presence implements [routing.Registry].
func (r *Registry) Presence(ctx context.Context, session routing.SessionID) (routing.SessionPresence, error) {
	hash := goredis.NewMapStringStringCmd(ctx, "hgetall", r.keys.session(session))
	marker := r.readMarker(ctx, sessionGroup(session))
	if err := r.do(ctx, hash, marker); err != nil {
		return routing.SessionPresence{}, err
	}
	presence := r.readPresence(session, hash, marker)
	if presence.Unknown {
		return routing.SessionPresence{}, r.unavailable(errRebuilding)
	}
	return presence, nil
}

// Presences implements [routing.Registry], in one round trip to each master.
func (r *Registry) Presences(ctx context.Context, sessions []routing.SessionID) ([]routing.SessionPresence, error) {
	if len(sessions) == 0 {
		return nil, r.mayBegin(ctx)
	}
	commands := make([]goredis.Cmder, 0, len(sessions)+groups)
	for _, session := range sessions {
		commands = append(commands, goredis.NewMapStringStringCmd(ctx, "hgetall", r.keys.session(session)))
	}
	markers := make(map[int]*goredis.StringCmd)
	for _, session := range sessions {
		if g := sessionGroup(session); markers[g] == nil {
			markers[g] = r.readMarker(ctx, g)
			commands = append(commands, markers[g])
		}
	}
	err := r.do(ctx, commands...)
	if err != nil && firstError(commands) == nil { // nothing was asked
		return nil, err
	}
	results := make([]routing.SessionPresence, len(sessions))
	answered := false
	for i, session := range sessions {
		hash, marker := commands[i].(*goredis.MapStringStringCmd), markers[sessionGroup(session)]
		if firstError([]goredis.Cmder{hash, marker}) != nil {
			results[i].Unknown = true
			continue
		}
		results[i], answered = r.readPresence(session, hash, marker), true
	}
	if !answered {
		return nil, err
	}
	return results, nil
}

// readPresence reads the replies about one session. What is not there may have been lost, if the
// marker says so.
func (r *Registry) readPresence(session routing.SessionID, hash *goredis.MapStringStringCmd, marker *goredis.StringCmd) routing.SessionPresence {
	presence := decodePresence(hash.Val())
	if !presence.Dead && len(presence.Nodes) == 0 && !r.certain(sessionGroup(session), marker) {
		presence.Unknown = true
	}
	return presence
}

// EndSession implements [routing.Registry]. The bindings named go in the background, the rest with the sweep.
func (r *Registry) EndSession(ctx context.Context, op routing.EndOp) (ended bool, err error) {
	if !op.Force && r.Rebuilding() { // it may be attached, and its presence lost
		return false, r.unavailable(errRebuilding)
	}
	force := 0
	if op.Force {
		force = 1
	}
	args := []any{force, r.config.DeadFor.Milliseconds()}
	for _, p := range op.Gone {
		args = append(args, presenceField(p), presenceValue(p))
	}
	end := newCall(endScript, r.keys.session(op.Session), args...)
	if err := r.do(ctx, end); err != nil {
		return false, err
	}
	if ended, err = end.Bool(); err != nil || !ended {
		return false, r.unavailable(err)
	}
	r.sweep.removeSoon(op.Session, op.Bound)
	return true, nil
}
