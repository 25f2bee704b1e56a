package registrytest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"distmsg/routing"
)

// An older serial neither replaces nor removes a newer one, and incarnations do not touch each
// other (S16).
func checkPresence(s *suite) error {
	session := routing.NewSessionID()
	entry := func(node string, incarnation, serial uint64) routing.Presence {
		return routing.Presence{Node: node, Incarnation: incarnation, Serial: serial}
	}
	attach := func(p routing.Presence) func() error {
		return func() error { return s.Attach(s.ctx, session, p) }
	}
	detach := func(p routing.Presence, left int) func() error {
		return func() error { return s.wantDetach(session, p, left) }
	}
	there := func(want ...routing.Presence) func() error {
		return func() error { return s.wantPresence(session, want...) }
	}
	return all(
		there(),
		detach(entry("n1", 7, 1), 0),
		attach(entry("n1", 7, 5)), there(entry("n1", 7, 5)),
		attach(entry("n1", 7, 4)), there(entry("n1", 7, 5)),
		attach(entry("n1", 7, 6)), there(entry("n1", 7, 6)),
		attach(entry("n2", 7, 1)), there(entry("n1", 7, 6), entry("n2", 7, 1)),
		attach(entry("n1", 3, 1)), there(entry("n1", 7, 6), entry("n2", 7, 1), entry("n1", 3, 1)),
		detach(entry("n1", 7, 5), 3), // older
		detach(entry("n1", 9, 9), 3), // another incarnation
		detach(entry("n3", 7, 9), 3), // another node
		there(entry("n1", 7, 6), entry("n2", 7, 1), entry("n1", 3, 1)),
		detach(entry("n1", 7, 6), 2), there(entry("n2", 7, 1), entry("n1", 3, 1)),
		detach(entry("n1", 3, 2), 1), // a later attach than the one it knows
		detach(entry("n2", 7, 1), 0), there(),
		attach(entry("n1", 7, 7)), there(entry("n1", 7, 7)),
	)
}

// wantPresence compares as sets, and wants the session alive.
func (s *suite) wantPresence(session routing.SessionID, want ...routing.Presence) error {
	got, err := s.Presence(s.ctx, session)
	if err != nil {
		return err
	}
	if !attachedAt(got, want...) {
		return fmt.Errorf("presence: %+v, want alive at %+v", got, want)
	}
	return nil
}

// attachedAt compares as sets, and wants the session alive.
func attachedAt(got routing.SessionPresence, want ...routing.Presence) bool {
	same := len(got.Nodes) == len(want)
	for _, p := range want {
		same = same && slices.Contains(got.Nodes, p)
	}
	return same && !got.Dead && !got.Unknown
}

// Many sessions in one question: each is answered in its place, and none for another one.
func checkPresences(s *suite) error {
	const n = 300
	sessions, dead := make([]routing.SessionID, n), func(i int) bool { return i%3 == 0 }
	at := func(i int) routing.Presence {
		return routing.Presence{Node: fmt.Sprint("n", i%5), Incarnation: 7, Serial: uint64(i + 1)}
	}
	for i := range sessions {
		sessions[i] = routing.NewSessionID()
		switch {
		case dead(i):
			if err := s.wantEnd(routing.EndOp{Session: sessions[i], Force: true}, true); err != nil {
				return err
			}
		case i%3 == 1:
			if err := s.Attach(s.ctx, sessions[i], at(i)); err != nil {
				return err
			}
		}
	}
	sessions = append(sessions, sessions[1], sessions[0]) // twice in one question
	got, err := s.Presences(s.ctx, sessions)
	if err != nil || len(got) != len(sessions) {
		return fmt.Errorf("presences of %d sessions: %d, %w", len(sessions), len(got), err)
	}
	for k, p := range got {
		i := k
		if k >= n {
			i = n + 1 - k
		}
		var ok bool
		switch i % 3 {
		case 0:
			ok = p.Dead && !p.Unknown
		case 1:
			ok = attachedAt(p, at(i))
		default: // not known, and so attached nowhere
			ok = attachedAt(p)
		}
		if !ok {
			return fmt.Errorf("presence %d of %d: %+v", k, len(got), p)
		}
	}
	none, err := s.Presences(s.ctx, nil)
	if err != nil || len(none) != 0 {
		return fmt.Errorf("presences of no session: %v, %w", none, err)
	}
	return nil
}

// A session ends when it is attached nowhere, when only at dead nodes, or by force (S17).
func checkEndSession(s *suite) error {
	here := routing.Presence{Node: "n1", Incarnation: 1, Serial: 1}
	there := routing.Presence{Node: "n2", Incarnation: 1, Serial: 1}
	both := []routing.Presence{here, there}
	for _, c := range []struct {
		name     string
		attached []routing.Presence
		gone     []routing.Presence
		force    bool
		want     bool
	}{
		{name: "unknown", want: true},
		{name: "attached", attached: both, want: false},
		{name: "one node dead", attached: both, gone: []routing.Presence{here}, want: false},
		{name: "all nodes dead", attached: both, gone: both, want: true},
		{name: "by force", attached: both, force: true, want: true},
	} {
		session := routing.NewSessionID()
		for _, p := range c.attached {
			if err := s.Attach(s.ctx, session, p); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		op := routing.EndOp{Session: session, Gone: c.gone, Force: c.force}
		if err := s.wantEnd(op, c.want); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		got, err := s.Presence(s.ctx, session)
		if err != nil {
			return err
		}
		if got.Dead != c.want || !c.want && len(got.Nodes) != len(c.attached) || c.want && len(got.Nodes) != 0 {
			return fmt.Errorf("%s: after the end: %+v", c.name, got)
		}
	}
	return nil
}

// An attach that came in the meantime wins (S17).
func checkEndAgainstAttach(s *suite) error {
	session := routing.NewSessionID()
	seen := routing.Presence{Node: "n1", Incarnation: 1, Serial: 1}
	again := routing.Presence{Node: "n1", Incarnation: 1, Serial: 2}
	elsewhere := routing.Presence{Node: "n2", Incarnation: 1, Serial: 1}
	reborn := routing.Presence{Node: "n1", Incarnation: 2, Serial: 1}
	end := func(want bool, gone ...routing.Presence) func() error {
		return func() error { return s.wantEnd(routing.EndOp{Session: session, Gone: gone}, want) }
	}
	attach := func(p routing.Presence) func() error {
		return func() error { return s.Attach(s.ctx, session, p) }
	}
	detach := func(p routing.Presence, left int) func() error {
		return func() error { return s.wantDetach(session, p, left) }
	}
	return all(
		attach(seen), detach(seen, 0), attach(elsewhere), end(false), detach(elsewhere, 0),
		attach(again), end(false, seen), detach(again, 0),
		attach(reborn), end(false, seen, again), detach(reborn, 0),
		end(true),
	)
}

// The dead stay dead (S17).
func checkDeadSessions(s *suite) error {
	id, session := s.newID(), routing.NewSessionID()
	here := routing.Presence{Node: "n1", Incarnation: 1, Serial: 1}
	held, err := s.mustMint(id, session, routing.Binding{})
	if err != nil {
		return err
	}
	dead := routing.BindResult{Status: routing.Dead}
	return all(
		func() error { return s.wantEnd(routing.EndOp{Session: session}, true) },
		func() error { return s.wantEnd(routing.EndOp{Session: session}, true) },
		func() error {
			if err := s.Attach(s.ctx, session, here); !errors.Is(err, routing.ErrSessionDead) {
				return fmt.Errorf("attach: %v, want ErrSessionDead", err)
			}
			return nil
		},
		func() error { return s.wantDetach(session, here, 0) },
		func() error { return s.wantBind(routing.BindOp{ID: s.newID(), Session: session}, dead) },
		func() error {
			late := routing.BindOp{ID: id, Session: session, Epoch: held.Epoch}
			return s.wantBind(late, dead)
		},
	)
}

// The IDs of a dead session become free, sooner or later, and until then they can be taken over by
// naming it (S17). An ID that another session has taken stays with that one.
func checkBindingsOfTheDead(s *suite) error {
	free, taken, moved := s.newID(), s.newID(), s.newID()
	a, b := routing.NewSessionID(), routing.NewSessionID()
	var held []routing.Binding
	for _, id := range []string{free, taken, moved} {
		b, err := s.mustMint(id, a, routing.Binding{})
		if err != nil {
			return err
		}
		held = append(held, b)
	}
	movedTo, err := s.mustMint(moved, b, held[2])
	if err != nil {
		return err
	}
	if err := s.wantEnd(routing.EndOp{Session: a}, true); err != nil {
		return err
	}
	takenBy, err := s.mustMint(taken, b, held[1])
	if err != nil {
		return err
	}
	return all(
		func() error { return s.becomesFree(free) },
		func() error { return s.wantHolder(taken, takenBy) },
		func() error { return s.wantHolder(moved, movedTo) },
	)
}

// becomesFree waits for a sweep, if the registry has one.
func (s *suite) becomesFree(id string) error {
	const patience = 30 * time.Second
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; <-tick.C {
		err := s.wantHolder(id, routing.Binding{})
		if err == nil || time.Since(began) > patience {
			return err
		}
	}
}
