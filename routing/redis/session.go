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
	presence := decodePresence(hash.Val())
	if !presence.Dead && len(presence.Nodes) == 0 && !r.certain(sessionGroup(session), marker) {
		return presence, r.unavailable(errRebuilding)
	}
	return presence, nil
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
