package registrytest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"distmsg/routing"
)

func cases(histories int) []testCase {
	return []testCase{
		{"mint", checkMint},
		{"duplicate login", checkDuplicateLogin},
		{"re-assert", checkReassert},
		{"impossible epochs", checkImpossibleEpochs},
		{"word of a client", checkWordOfClient},
		{"wrong clock", checkWrongClock},
		{"epochs outlive bindings", checkEpochsOutliveBindings},
		{"unbind", checkUnbind},
		{"batches", checkBatches},
		{"odd IDs", checkOddIDs},
		{"presence", checkPresence},
		{"presence of many", checkPresences},
		{"end of session", checkEndSession},
		{"end against attach", checkEndAgainstAttach},
		{"dead sessions", checkDeadSessions},
		{"bindings of the dead", checkBindingsOfTheDead},
		{"race for a free ID", checkRaceForFreeID},
		{"race to replace", checkRaceToReplace},
		{"moves at once", func(s *suite) error { return checkMovesAtOnce(s, max(10, histories/10)) }},
		{"unavailable", checkUnavailable},
		{"histories", func(s *suite) error { return checkHistories(s, histories) }},
	}
}

// Epochs come from the clock and grow with each bind, also when the clock does not (S10).
func checkMint(s *suite) error {
	id, session := s.newID(), routing.NewSessionID()
	var last uint64
	for _, step := range []time.Duration{0, time.Second, 0, -time.Minute, time.Hour} {
		s.clock.Step(step)
		b, err := s.mustMint(id, session, routing.Binding{})
		if err != nil {
			return err
		}
		if b.Epoch < s.clock.epoch() || b.Epoch <= last || b.Epoch >= routing.MaxEpoch {
			return fmt.Errorf("epoch %d after %d with the clock at %d", b.Epoch, last, s.clock.epoch())
		}
		if err := s.wantHolder(id, b); err != nil {
			return err
		}
		last = b.Epoch
	}
	return nil
}

// An incumbent stays unless it is named exactly, and who replaces it hears of it (S13).
func checkDuplicateLogin(s *suite) error {
	id, a, b := s.newID(), routing.NewSessionID(), routing.NewSessionID()
	// expected somebody, met nobody
	first, err := s.mustMint(id, a, routing.Binding{Session: b, Epoch: 1})
	if err != nil {
		return err
	}
	second, err := s.mustMint(id, a, routing.Binding{})
	if err != nil {
		return err
	}
	taken := routing.BindResult{Status: routing.Taken, Incumbent: second}
	if err := all(
		func() error { return s.wantBind(routing.BindOp{ID: id, Session: b}, taken) },
		func() error { return s.wantBind(routing.BindOp{ID: id, Session: b, Expect: first}, taken) },
		func() error {
			wrong := routing.Binding{Session: b, Epoch: second.Epoch}
			return s.wantBind(routing.BindOp{ID: id, Session: b, Expect: wrong}, taken)
		},
		func() error { return s.wantHolder(id, second) },
	); err != nil {
		return err
	}
	got, err := s.bind(routing.BindOp{ID: id, Session: b, Expect: second})
	if err != nil {
		return err
	}
	if got.Status != routing.Bound || got.Incumbent != second || got.Epoch <= second.Epoch {
		return fmt.Errorf("replacing %v: %+v", second, got)
	}
	return s.wantHolder(id, routing.Binding{Session: b, Epoch: got.Epoch})
}

// A re-assert wins over nothing, over what is older, and over itself (S10).
func checkReassert(s *suite) error {
	id, a, b := s.newID(), routing.NewSessionID(), routing.NewSessionID()
	epoch := s.clock.epoch()
	op := func(session routing.SessionID, epoch uint64) routing.BindOp {
		return routing.BindOp{ID: id, Session: session, Epoch: epoch, Known: true}
	}
	bound := func(epoch uint64) routing.BindResult {
		return routing.BindResult{Status: routing.Bound, Epoch: epoch}
	}
	byA := routing.Binding{Session: a, Epoch: epoch}
	overA := routing.BindResult{Status: routing.Superseded, Incumbent: byA}
	byB := routing.Binding{Session: b, Epoch: epoch + 1}
	overB := routing.BindResult{Status: routing.Superseded, Incumbent: byB}
	return all(
		func() error { return s.wantBind(op(a, epoch-1), bound(epoch-1)) }, // nobody there
		func() error { return s.wantBind(op(a, epoch), bound(epoch)) },     // its own, older
		func() error { return s.wantBind(op(a, epoch), bound(epoch)) },     // its own, the same
		func() error { return s.wantBind(op(a, epoch-1), overA) },          // its own, newer
		func() error { return s.wantBind(op(b, epoch), overA) },            // the same of another
		// a newer one of another
		func() error { return s.wantBind(op(b, epoch-1), overA) },
		func() error {
			greedy := op(b, epoch) // Expect does not help a re-assert
			greedy.Expect = byA
			return s.wantBind(greedy, overA)
		},
		func() error { return s.wantHolder(id, byA) },
		func() error { // an older one of another
			won := bound(epoch + 1)
			won.Incumbent = byA
			return s.wantBind(op(b, epoch+1), won)
		},
		func() error { return s.wantBind(op(a, epoch), overB) },
		func() error { return s.wantHolder(id, byB) },
	)
}

// No client can use up the epochs. What it invents is refused, or leaves enough to mint; and nobody
// else's ID suffers.
func checkImpossibleEpochs(s *suite) error {
	id, session := s.newID(), routing.NewSessionID()
	for _, epoch := range []uint64{routing.MaxAsserted + 1, routing.MaxEpoch - 1, routing.MaxEpoch, routing.MaxEpoch + 1, 1<<64 - 1} {
		op := routing.BindOp{ID: id, Session: session, Epoch: epoch}
		if err := s.wantBind(op, routing.BindResult{Status: routing.Invalid}); err != nil {
			return err
		}
	}
	if err := checkInventedEpoch(s); err != nil {
		return err
	}
	greatest := routing.BindOp{ID: id, Session: session, Epoch: routing.MaxAsserted}
	if err := s.wantBind(greatest, routing.BindResult{Status: routing.Bound, Epoch: routing.MaxAsserted}); err != nil {
		return err
	}
	b, err := s.mustMint(id, session, routing.Binding{})
	if err == nil && (b.Epoch <= routing.MaxAsserted || b.Epoch >= routing.MaxEpoch) {
		err = fmt.Errorf("minted %d after %d", b.Epoch, uint64(routing.MaxAsserted))
	}
	for range 500 { // some of them stand with the first, wherever that is
		if err != nil {
			return err
		}
		b, err = s.mustMint(s.newID(), session, routing.Binding{})
		if err == nil && b.Epoch > routing.MaxAsserted {
			err = fmt.Errorf("minted %d for an ID about which nobody has lied", b.Epoch)
		}
	}
	return err
}

// What a client invents makes nobody else lose an ID. If it was no invention, it wins when the
// clock is right.
func checkInventedEpoch(s *suite) error {
	id, holder, other := s.newID(), routing.NewSessionID(), routing.NewSessionID()
	held, err := s.mustMint(id, holder, routing.Binding{})
	if err != nil {
		return err
	}
	op := routing.BindOp{ID: id, Session: other, Epoch: s.clock.epoch() + uint64(2*routing.MaxEpochAhead.Microseconds()), Known: true}
	return all(
		func() error { return s.wantBind(op, routing.BindResult{Status: routing.Invalid}) },
		func() error { return s.wantHolder(id, held) },
		func() error {
			s.clock.Step(2 * routing.MaxEpochAhead)
			defer s.clock.Step(-2 * routing.MaxEpochAhead)
			return s.wantBind(op, routing.BindResult{Status: routing.Bound, Epoch: op.Epoch, Incumbent: held})
		},
	)
}

// A client may invent any epoch, also one that lies between that of a holder and the latest that
// the registry has minted. Its word takes no ID from another session. If nobody holds the ID, it
// does.
func checkWordOfClient(s *suite) error {
	holder, other := routing.NewSessionID(), routing.NewSessionID()
	var id string
	var held routing.Binding
	// The cases before this one have left epochs of years ahead with some IDs, and with those that
	// stand there. The holder of this case has one of now.
	for tries := 0; held.Epoch == 0 || held.Epoch > s.clock.epoch()+uint64(time.Minute.Microseconds()); tries++ {
		if tries == 1000 {
			return fmt.Errorf("no ID of %d gets an epoch of now, but %d", tries, held.Epoch)
		}
		var err error
		id = s.newID()
		if held, err = s.mustMint(id, holder, routing.Binding{}); err != nil {
			return err
		}
	}
	latest := held.Epoch
	s.clock.Step(time.Second)
	for range 500 { // some of them stand with the first, wherever that is
		b, err := s.mustMint(s.newID(), other, routing.Binding{})
		if err != nil {
			return err
		}
		// The store may know later epochs than the clock's, from the cases before this one.
		latest = max(latest, b.Epoch)
	}
	ahead := s.clock.epoch() + uint64((23 * time.Hour).Microseconds())
	for _, epoch := range []uint64{held.Epoch + 1, latest, latest + 1, ahead} {
		op := routing.BindOp{ID: id, Session: other, Epoch: epoch, Expect: held}
		if err := s.wantBind(op, routing.BindResult{Status: routing.Invalid}); err != nil {
			return err
		}
	}
	free := routing.BindOp{ID: id, Session: other, Epoch: ahead}
	return all(
		func() error { return s.wantHolder(id, held) },
		func() error { return s.wantUnbind(id, held, true) },
		func() error { return s.wantBind(free, routing.BindResult{Status: routing.Bound, Epoch: ahead}) },
	)
}

// The registry's clock may be wrong by years, now or when an epoch was minted, and the data may be
// lost. Whoever held an ID takes it back all the same.
func checkWrongClock(s *suite) error {
	const year = 365 * 24 * time.Hour
	now, session := s.clock.epoch(), routing.NewSessionID()
	for _, wrong := range []time.Duration{-50 * year, -48 * time.Hour, 48 * time.Hour, 100 * year, 200 * year} {
		id, other := s.newID(), s.newID() // nothing is known of either
		s.clock.Step(wrong)
		err := s.wantBind(routing.BindOp{ID: id, Session: session, Epoch: now}, routing.BindResult{Status: routing.Bound, Epoch: now})
		if err != nil {
			return fmt.Errorf("with a clock that is wrong by %v: %w", wrong, err)
		}
		b, err := s.mustMint(id, session, routing.Binding{})
		s.clock.Step(-wrong)
		if err != nil {
			return fmt.Errorf("with a clock that is wrong by %v: %w", wrong, err)
		}
		op := routing.BindOp{ID: other, Session: session, Epoch: b.Epoch}
		if err := s.wantBind(op, routing.BindResult{Status: routing.Bound, Epoch: b.Epoch}); err != nil {
			return fmt.Errorf("minted while the clock was wrong by %v: %w", wrong, err)
		}
	}
	return nil
}

// An epoch is above all that the ID ever had, so that a late re-assert does not win over a later
// bind, whether or not the ID was free between and the clock stepped back (S12).
func checkEpochsOutliveBindings(s *suite) error {
	a, b := routing.NewSessionID(), routing.NewSessionID()
	for _, reasserted := range []bool{false, true} {
		id := s.newID()
		s.clock.Step(10 * time.Second)
		old := routing.Binding{Session: a, Epoch: s.clock.epoch()}
		if reasserted {
			op := routing.BindOp{ID: id, Session: a, Epoch: old.Epoch}
			if err := s.wantBind(op, routing.BindResult{Status: routing.Bound, Epoch: old.Epoch}); err != nil {
				return err
			}
		} else {
			var err error
			if old, err = s.mustMint(id, a, routing.Binding{}); err != nil {
				return err
			}
		}
		if err := s.wantUnbind(id, old, true); err != nil {
			return err
		}
		s.clock.Step(-10 * time.Second)
		now, err := s.mustMint(id, b, routing.Binding{})
		if err != nil {
			return err
		}
		late := routing.BindOp{ID: id, Session: a, Epoch: old.Epoch}
		if err := s.wantBind(late, routing.BindResult{Status: routing.Superseded, Incumbent: now}); err != nil {
			return err
		}
	}
	return nil
}

// Exactly the binding that is named goes, once (S11).
func checkUnbind(s *suite) error {
	id, a, b := s.newID(), routing.NewSessionID(), routing.NewSessionID()
	old, err := s.mustMint(id, a, routing.Binding{})
	if err != nil {
		return err
	}
	held, err := s.mustMint(id, a, routing.Binding{})
	if err != nil {
		return err
	}
	return all(
		func() error { return s.wantUnbind(s.newID(), held, false) },
		func() error { return s.wantUnbind(id, old, false) },
		func() error { return s.wantUnbind(id, routing.Binding{Session: b, Epoch: held.Epoch}, false) },
		func() error { return s.wantUnbind(id, routing.Binding{Session: a, Epoch: held.Epoch + 1}, false) },
		func() error { return s.wantHolder(id, held) },
		func() error { return s.wantUnbind(id, held, true) },
		func() error { return s.wantHolder(id, routing.Binding{}) },
		func() error { return s.wantUnbind(id, held, false) },
	)
}

// Batches are answered in the order asked, each ID by itself, one ID twice in order.
func checkBatches(s *suite) error {
	const n = 1000
	a, b := routing.NewSessionID(), routing.NewSessionID()
	ids := make([]string, n)
	binds := make([]routing.BindOp, 0, n+1)
	for i := range ids {
		ids[i] = s.newID()
		binds = append(binds, routing.BindOp{ID: ids[i], Session: a})
	}
	binds = append(binds, routing.BindOp{ID: ids[0], Session: b})
	bound, err := s.Bind(s.ctx, binds)
	if err != nil {
		return err
	}
	if len(bound) != n+1 || bound[n].Status != routing.Taken || bound[n].Incumbent.Epoch != bound[0].Epoch {
		return fmt.Errorf("%d results; first %+v, then for the same ID %+v", len(bound), bound[0], bound[n])
	}

	slices.Reverse(ids) // another order than they were bound in
	unbinds := make([]routing.UnbindOp, n)
	for i, id := range ids {
		unbinds[i] = routing.UnbindOp{ID: id, Session: a, Epoch: bound[n-1-i].Epoch}
	}
	unbinds[7].Epoch++
	held, err := s.Lookup(s.ctx, ids)
	if err != nil {
		return err
	}
	removed, err := s.Unbind(s.ctx, unbinds)
	if err != nil {
		return err
	}
	if len(held) != n || len(removed) != n {
		return fmt.Errorf("of %d IDs: %d looked up, %d unbound", n, len(held), len(removed))
	}
	for i := range ids {
		if want := (routing.Binding{Session: a, Epoch: bound[n-1-i].Epoch}); held[i].Binding != want {
			return fmt.Errorf("lookup %d: %+v, want %v", i, held[i], want)
		}
		if removed[i].Removed != (i != 7) {
			return fmt.Errorf("unbind %d: %+v", i, removed[i])
		}
	}
	return checkEmptyBatches(s)
}

func checkEmptyBatches(s *suite) error {
	bound, err1 := s.Bind(s.ctx, nil)
	removed, err2 := s.Unbind(s.ctx, nil)
	held, err3 := s.Lookup(s.ctx, nil)
	if n := len(bound) + len(removed) + len(held); n != 0 {
		return fmt.Errorf("empty batches: %d results", n)
	}
	return errors.Join(err1, err2, err3)
}

// An ID is a string of bytes: each is another one, and all come back.
func checkOddIDs(s *suite) error {
	tail := s.newID()
	var ids []string
	for _, head := range []string{"", "\x00", "\x00\x00", "\xff\xfe", "a b", "a\r\nb", "é", "{tag}", "%s", "A", "a"} {
		ids = append(ids, head+tail)
	}
	for _, length := range []int{64, 65, 254, 255} {
		ids = append(ids, tail+strings.Repeat("x", length-len(tail)))
	}
	session := routing.NewSessionID()
	held := make(map[string]routing.Binding)
	for _, id := range ids {
		var err error
		if held[id], err = s.mustMint(id, session, routing.Binding{}); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := errors.Join(s.wantHolder(id, held[id]), s.wantUnbind(id, held[id], true)); err != nil {
			return err
		}
	}
	return nil
}

// Of many who bind a free ID at once, one gets it, and all hear the same name (S13).
func checkRaceForFreeID(s *suite) error {
	for range 20 {
		id := s.newID()
		results, err := s.race(8, func(int) routing.BindOp {
			return routing.BindOp{ID: id, Session: routing.NewSessionID()}
		})
		if err != nil {
			return err
		}
		winner, err := onlyWinner(results)
		if err != nil {
			return err
		}
		if err := s.wantHolder(id, winner); err != nil {
			return err
		}
	}
	return nil
}

// Of many who replace the same incumbent at once, one does, round after round (S13).
func checkRaceToReplace(s *suite) error {
	id := s.newID()
	holder, err := s.mustMint(id, routing.NewSessionID(), routing.Binding{})
	if err != nil {
		return err
	}
	for range 20 {
		results, err := s.race(8, func(int) routing.BindOp {
			return routing.BindOp{ID: id, Session: routing.NewSessionID(), Expect: holder}
		})
		if err != nil {
			return err
		}
		winner, err := onlyWinner(results)
		if err != nil {
			return err
		}
		if winner.Epoch <= holder.Epoch {
			return fmt.Errorf("%v replaced %v", winner, holder)
		}
		holder = winner
	}
	return s.wantHolder(id, holder)
}

type raced struct {
	op     routing.BindOp
	result routing.BindResult
}

// race does n binds at once.
func (s *suite) race(n int, op func(i int) routing.BindOp) ([]raced, error) {
	runs, errs := make([]raced, n), make([]error, n)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		runs[i].op = op(i)
		wg.Go(func() {
			<-start
			runs[i].result, errs[i] = s.bind(runs[i].op)
		})
	}
	close(start)
	wg.Wait()
	return runs, errors.Join(errs...)
}

func onlyWinner(runs []raced) (routing.Binding, error) {
	var winner routing.Binding
	for _, r := range runs {
		if r.result.Status != routing.Bound {
			continue
		}
		if winner != (routing.Binding{}) {
			return winner, fmt.Errorf("two winners: %+v", runs)
		}
		winner = routing.Binding{Session: r.op.Session, Epoch: r.result.Epoch}
	}
	for _, r := range runs {
		if r.result.Status != routing.Bound && r.result != (routing.BindResult{Status: routing.Taken, Incumbent: winner}) {
			return winner, fmt.Errorf("won by %v, but a loser heard %+v", winner, r.result)
		}
	}
	return winner, nil
}

// A registry that cannot be asked says so by ErrUnavailable, from every method.
func checkUnavailable(s *suite) error {
	if err := s.Probe(s.ctx); errors.Is(err, routing.ErrUnavailable) {
		return fmt.Errorf("probe of a registry that is well: %w", err)
	}
	if err := checkEndedContext(s); err != nil {
		return err
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		return err
	}
	if err := wantUnavailable(s.ctx, s.Registry); err != nil {
		return fmt.Errorf("closed: %w", err)
	}
	return nil
}

// checkEndedContext: with a context that has ended before the call, a registry does nothing and
// names the context's error.
func checkEndedContext(s *suite) error {
	canceled, cancel := context.WithCancel(s.ctx)
	cancel()
	late, cancelLate := context.WithDeadline(s.ctx, time.Now().Add(-time.Second))
	defer cancelLate()
	holder, id := routing.NewSessionID(), s.newID()
	held, err := s.mustMint(id, holder, routing.Binding{})
	if err != nil {
		return err
	}
	for _, ended := range []context.Context{canceled, late} {
		s.Claims(ended, func([]routing.Claim) {}) // returns
		if err := wantUnavailable(ended, s.Registry); err != nil {
			return fmt.Errorf("context ended: %w", err)
		}
		_, bind := s.Bind(ended, []routing.BindOp{{ID: id, Session: routing.NewSessionID()}})
		_, unbind := s.Unbind(ended, []routing.UnbindOp{{ID: id, Session: holder, Epoch: held.Epoch}})
		if !errors.Is(bind, ended.Err()) || !errors.Is(unbind, ended.Err()) {
			return fmt.Errorf("bind: %v, unbind: %v, want %w", bind, unbind, ended.Err())
		}
	}
	return s.wantHolder(id, held)
}

func wantUnavailable(ctx context.Context, r routing.Registry) error {
	session := routing.NewSessionID()
	p := routing.Presence{Node: "n1", Incarnation: 1, Serial: 1}
	_, bind := r.Bind(ctx, []routing.BindOp{{ID: "x", Session: session}})
	_, unbind := r.Unbind(ctx, []routing.UnbindOp{{ID: "x", Session: session, Epoch: 1}})
	_, lookup := r.Lookup(ctx, []string{"x"})
	attach := r.Attach(ctx, session, p)
	_, detach := r.Detach(ctx, session, p)
	_, presence := r.Presence(ctx, session)
	_, presences := r.Presences(ctx, []routing.SessionID{session})
	_, end := r.EndSession(ctx, routing.EndOp{Session: session})
	probe := r.Probe(ctx)
	for i, err := range []error{bind, unbind, lookup, attach, detach, presence, presences, end, probe} {
		if !errors.Is(err, routing.ErrUnavailable) {
			return fmt.Errorf("method %d of the interface: %v, want ErrUnavailable", i+1, err)
		}
	}
	return nil
}
