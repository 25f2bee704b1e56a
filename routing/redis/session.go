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
	v, _ := r.losses.snapshot()
	hash := goredis.NewMapStringStringCmd(ctx, "hgetall", r.keys.session(session))
	marker := r.readMarker(ctx, sessionGroup(session))
	if err := r.do(ctx, hash, marker); err != nil {
		return routing.SessionPresence{}, err
	}
	presence := r.readPresence(v, session, hash, marker)
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
	v, _ := r.losses.snapshot()
	if err := r.doSome(ctx, len(sessions), commands...); err != nil {
		return nil, err
	}
	results := make([]routing.SessionPresence, len(sessions))
	for i, session := range sessions {
		if hash := commands[i].(*goredis.MapStringStringCmd); succeeded(hash) {
			results[i] = r.readPresence(v, session, hash, markers[sessionGroup(session)])
		} else {
			results[i].Unknown = true
		}
	}
	return results, nil
}

// readPresence reads the replies about one session. A missing entry may have been lost, if the
// marker says so.
func (r *Registry) readPresence(v *view, session routing.SessionID, hash *goredis.MapStringStringCmd, marker *goredis.StringCmd) routing.SessionPresence {
	presence := decodePresence(hash.Val())
	if !presence.Dead && len(presence.Nodes) == 0 && !r.certain(v, sessionGroup(session), marker) {
		presence.Unknown = true
	}
	return presence
}

// endedKept is how many ended sessions of a group Redis remembers: of all groups, 128,000. It is
// less than the 512 fields up to which a hash is compact.
const endedKept = 500

// EndSession implements [routing.Registry]. The named bindings are removed in the background, and
// the sweep removes the rest.
func (r *Registry) EndSession(ctx context.Context, op routing.EndOp) (ended bool, err error) {
	end, err := r.newEnd(op)
	if err != nil {
		return false, err
	}
	if err := r.do(ctx, end); err != nil {
		return false, err
	}
	if ended, err = r.ended(end); ended {
		r.sweep.removals.add(op.Session, op.Bound)
	}
	return ended, err
}

// newEnd returns a call of end.lua.
func (r *Registry) newEnd(op routing.EndOp) (*call, error) {
	if !op.Force && r.Rebuilding() { // the session may be attached although its presence is lost
		return nil, r.unavailable(errRebuilding)
	}
	force := 0
	if op.Force {
		force = 1
	}
	v, _ := r.losses.snapshot()
	group := sessionGroup(op.Session)
	args := []any{force, r.config.DeadFor.Milliseconds(), endedKept, op.Session[:], v.markers[group]}
	for _, p := range op.Gone {
		args = append(args, presenceField(p), presenceValue(p))
	}
	keys := []string{r.keys.session(op.Session), r.keys.marker(group), r.keys.ended(group)}
	return newCallWithKeys(endScript, keys, args...), nil
}

// ended reads the reply of end.lua.
func (r *Registry) ended(end *call) (bool, error) {
	reply, err := end.Int()
	if err == nil && reply < 0 {
		r.losses.suspect()
		err = errRebuilding
	}
	return err == nil && reply == 1, r.unavailable(err)
}
