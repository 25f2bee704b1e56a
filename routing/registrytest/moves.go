package registrytest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"distmsg/routing"
)

// checkMovesAtOnce is what the histories cannot show, for there one call follows another: n times
// an ID moves from A to B while the late calls of A are under way, too, each in its own goroutine.
// In which order they come, no seed repeats; in each of them B keeps the ID from its bind on (S10
// to S13). In every other move the session of A ends as well, and what it held is removed later
// (S17). In half of them B re-asserts while A's calls go on; in the others it does not, for that
// would put right what those have broken.
func checkMovesAtOnce(s *suite, n int) error {
	b := routing.NewSessionID()
	held := make(map[string]routing.Binding, n)
	var markers []string
	for i := range n {
		m := move{suite: s, id: s.newID(), marker: s.newID(), a: routing.NewSessionID(), b: b}
		if err := m.prepare(); err != nil {
			return err
		}
		if err := m.play(i%2 == 1, i%4 >= 2); err != nil {
			return fmt.Errorf("move %d: %w", i, err)
		}
		held[m.id] = m.won
		if i%2 == 1 {
			markers = append(markers, m.marker)
		}
	}
	for _, id := range markers {
		if err := s.becomesFree(id); err != nil {
			return fmt.Errorf("its session has ended: %w", err)
		}
	}
	for id, won := range held {
		if err := errors.Join(s.wantHolder(id, won), s.wantUnbind(id, won, true)); err != nil {
			return fmt.Errorf("in the end: %w", err)
		}
	}
	return nil
}

// move is one ID on its way from A to B.
type move struct {
	*suite
	id, marker string // A holds both; when the marker has gone with A, the ID would have, too
	a, b       routing.SessionID

	older, old, mark routing.Binding // of A: of the ID, twice, and of the marker
	won              routing.Binding // of B
}

func (m *move) prepare() (err error) {
	for _, mint := range []struct {
		id string
		to *routing.Binding
	}{{m.id, &m.older}, {m.id, &m.old}, {m.marker, &m.mark}} {
		if *mint.to, err = m.mustMint(mint.id, m.a, routing.Binding{}); err != nil {
			return err
		}
	}
	return nil
}

// play lets everything happen at once, and then what is late once more.
func (m *move) play(ends, reasserts bool) error {
	late := []func() error{
		func() error { return m.unbindOld(m.older) },
		func() error { return m.unbindOld(m.old) },
		func() error { return m.reassert(m.older) },
		func() error { return m.reassert(m.old) },
		m.replaceStale,
	}
	if ends {
		late = append(late, m.endA)
	}
	for i, call := range late {
		// some while B's bind is tried again
		late[i] = func() error { return errors.Join(call(), call()) }
	}
	calls := append(late, func() error { return m.bindAndKeep(reasserts) })
	rand.Shuffle(len(calls), func(i, j int) { calls[i], calls[j] = calls[j], calls[i] })
	if err := m.atOnce(calls); err != nil {
		return err
	}
	return all(
		func() error { return m.wantUnbind(m.id, m.older, false) },
		func() error { return m.wantUnbind(m.id, m.old, false) },
		func() error { return m.reassert(m.old) },
		m.replaceStale,
		m.reassertWon,
		func() error { return m.wantHolder(m.id, m.won) },
	)
}

// atOnce makes all calls at once; the clock jumps before each.
func (m *move) atOnce(calls []func() error) error {
	errs := make([]error, len(calls))
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i, call := range calls {
		wg.Go(func() {
			<-start
			m.clock.Step(time.Duration(rand.Int64N(int64(2*maxSkew))) - maxSkew)
			errs[i] = call()
		})
	}
	close(start)
	wg.Wait()
	return errors.Join(errs...)
}

// bindAndKeep is B's bind, and what shows that B keeps what it got.
func (m *move) bindAndKeep(reasserts bool) error {
	op := routing.BindOp{ID: m.id, Session: m.b}
	for m.won == (routing.Binding{}) {
		result, err := m.bind(op)
		if err != nil {
			return err
		}
		switch result.Status {
		case routing.Bound:
			m.won = routing.Binding{Session: m.b, Epoch: result.Epoch}
		case routing.Taken:
			op.Expect = result.Incumbent
		default:
			return fmt.Errorf("bind by B: %+v", result)
		}
	}
	if m.won.Epoch <= m.old.Epoch || m.won.Epoch >= routing.MaxEpoch {
		return fmt.Errorf("epoch %d after %d", m.won.Epoch, m.old.Epoch)
	}
	for range 3 {
		err := m.wantHolder(m.id, m.won)
		if err == nil && reasserts {
			err = m.reassertWon()
		}
		if err != nil {
			return fmt.Errorf("the ID was lost by B, which had bound it: %w", err)
		}
	}
	return nil
}

func (m *move) reassertWon() error {
	again := routing.BindOp{ID: m.id, Session: m.b, Epoch: m.won.Epoch}
	return m.wantBind(again, routing.BindResult{Status: routing.Bound, Epoch: m.won.Epoch})
}

func (m *move) unbindOld(b routing.Binding) error {
	return discard(m.unbind(routing.UnbindOp{ID: m.id, Session: b.Session, Epoch: b.Epoch}))
}

// reassert by A is late or not, so that there are many right answers. Only an epoch of its own is
// none.
func (m *move) reassert(b routing.Binding) error {
	result, err := m.bind(routing.BindOp{ID: m.id, Session: b.Session, Epoch: b.Epoch})
	switch result.Status {
	case routing.Bound:
		return expect(result.Epoch, b.Epoch, err, "epoch of the re-assert of %v", b)
	case routing.Superseded:
		if err == nil && result.Incumbent.Epoch < b.Epoch {
			err = fmt.Errorf("re-assert of %v: superseded by %v", b, result.Incumbent)
		}
	case routing.Dead, routing.Invalid:
	default:
		err = errors.Join(err, fmt.Errorf("re-assert of %v: %+v", b, result))
	}
	return err
}

// replaceStale is somebody else's bind that expects what A held first. It has no effect but
// where the ID is free for a moment, before B comes.
func (m *move) replaceStale() error {
	return discard(m.bind(routing.BindOp{ID: m.id, Session: routing.NewSessionID(), Expect: m.older}))
}

func (m *move) endA() error {
	bound := []routing.BoundID{{ID: m.id, Epoch: m.old.Epoch}, {ID: m.marker, Epoch: m.mark.Epoch}}
	return m.wantEnd(routing.EndOp{Session: m.a, Bound: bound}, true)
}

// discard is for answers of which many are right.
func discard[R any](_ R, err error) error { return err }
