package registrytest

import (
	"fmt"

	"distmsg/routing"
)

// This file is the messages of a history that arrive late, and the model that the
// registry's answers are compared with.

// sendOld puts on their way unbinds, re-asserts and stale replacements of all bindings
// so far, and what nodes hear when they verify theirs. Some of it arrives, and the move
// that comes next overtakes the rest.
func (h *history) sendOld() error {
	for _, old := range h.past {
		stale := routing.BindOp{ID: h.id, Session: old.Session, Expect: h.past[h.rng.IntN(len(h.past))]}
		h.send(func() error { return h.unbindOld(old) })
		h.send(func() error { return h.reassert(old) })
		h.send(func() error { return h.replaceStale(stale) })
	}
	h.send(h.verify)
	return h.deliver(h.rng.IntN(4))
}

// sendNew puts on their way the kicks that a new binding causes, and its re-asserts.
func (h *history) sendNew(by *player, b routing.Binding) {
	h.send(func() error { return h.reassert(b) })
	for _, p := range h.players {
		if p != by {
			h.sendKick(p, b.Epoch)
		}
	}
	h.past = append(h.past, b)
}

func (h *history) sendKick(to *player, epoch uint64) {
	h.send(func() error {
		h.logf("kick of %s by epoch %d", h.name(routing.Binding{Session: to.id()}), epoch)
		to.kick(h.id, epoch)
		h.played.Kicks++
		return nil
	})
}

// send puts a message on its way: never, once or twice.
func (h *history) send(message func() error) {
	for range h.rng.IntN(3) {
		h.late = append(h.late, message)
	}
}

// deliver lets n of the messages arrive, whichever.
func (h *history) deliver(n int) error {
	for range min(n, len(h.late)) {
		i, last := h.rng.IntN(len(h.late)), len(h.late)-1
		message := h.late[i]
		h.late[i] = h.late[last]
		h.late = h.late[:last]
		if err := message(); err != nil {
			return err
		}
	}
	return nil
}

// reassert is what a reconnecting session does with a binding of its list.
func (h *history) reassert(b routing.Binding) error {
	h.played.Reasserts++
	result, err := h.do(routing.BindOp{ID: h.id, Session: b.Session, Epoch: b.Epoch})
	if err == nil && result.Status == routing.Superseded {
		h.playerOf(b).kick(h.id, result.Incumbent.Epoch)
	}
	return err
}

// unbindOld is a late unbind, or the clean-up after a session's not-here.
func (h *history) unbindOld(b routing.Binding) error {
	h.played.Unbinds++
	p := h.playerOf(b)
	h.tick(p)
	removed, err := h.unbind(routing.UnbindOp{ID: h.id, Session: b.Session, Epoch: b.Epoch})
	h.logf("unbind of %s: %v", h.name(b), removed)
	if err != nil {
		return err
	}
	if !h.agrees(func(held routing.Binding) bool { return removed == (held == b) }) {
		return fmt.Errorf("removed %s: %v, but it was with %s", h.name(b), removed, h.name(h.held))
	}
	if removed {
		h.held = routing.Binding{}
	}
	p.table.Unbind(h.id, p.session, b.Epoch)
	return nil
}

// replaceStale is a compare-and-swap that comes too late. It is lost on the way where it
// would be a bind like any other, for then the ID would rightly move.
func (h *history) replaceStale(op routing.BindOp) error {
	free := h.held == routing.Binding{} || h.playerOf(h.held).dead
	if free || h.held.Session == op.Session || h.held == op.Expect {
		return nil
	}
	h.played.Replacements++
	_, err := h.do(op)
	return err
}

// verify asks who holds the ID. The answers reach the nodes late (S15).
func (h *history) verify() error {
	if err := h.lookUp(); err != nil {
		return err
	}
	for _, p := range h.players {
		if h.held.Session != p.id() {
			h.sendKick(p, h.held.Epoch)
		}
	}
	return nil
}

func (h *history) lookUp() error {
	got, err := h.lookup(h.id)
	if err == nil && !h.agrees(func(held routing.Binding) bool { return got == held }) {
		err = fmt.Errorf("looked up %s, but it is with %s", h.name(got), h.name(h.held))
	}
	return err
}

// do binds, checks the answer against the model, and puts it into the node's table.
func (h *history) do(op routing.BindOp) (routing.BindResult, error) {
	p := h.playerOf(routing.Binding{Session: op.Session})
	h.tick(p)
	got, err := h.bind(op)
	h.logf("bind of %s expecting %s: %s, epoch %d, incumbent %s",
		h.name(routing.Binding{Session: op.Session, Epoch: op.Epoch}), h.name(op.Expect), got.Status, got.Epoch, h.name(got.Incumbent))
	if err != nil {
		return got, err
	}
	if !h.agrees(func(held routing.Binding) bool { return got == answer(op, p.dead, held, got.Epoch) }) {
		return got, fmt.Errorf("got %+v, want %+v", got, answer(op, p.dead, h.held, got.Epoch))
	}
	if got.Status != routing.Bound {
		return got, nil
	}
	if op.Epoch == 0 && (got.Epoch <= h.top || got.Epoch < h.clock.epoch() || got.Epoch >= routing.MaxEpoch) {
		return got, fmt.Errorf("minted %d after %d with the clock at %d", got.Epoch, h.top, h.clock.epoch())
	}
	h.held = routing.Binding{Session: op.Session, Epoch: got.Epoch}
	h.top = max(h.top, got.Epoch)
	_, status := p.table.Bind(h.id, p.session, got.Epoch)
	// an old re-assert may meet a newer bind of its own
	if status != routing.Bound && op.Epoch == 0 {
		return got, fmt.Errorf("the node's table says %s", status)
	}
	return got, nil
}

// answer returns what a registry must answer (S10, S13, S17). The registry chooses the epoch of a
// mint, so that is minted.
func answer(op routing.BindOp, dead bool, held routing.Binding, minted uint64) routing.BindResult {
	free, own := held == routing.Binding{}, held.Session == op.Session
	switch {
	case dead:
		return routing.BindResult{Status: routing.Dead}
	case op.Epoch == 0 && !free && !own && held != op.Expect:
		return routing.BindResult{Status: routing.Taken, Incumbent: held}
	case op.Epoch != 0 && !free && (op.Epoch < held.Epoch || op.Epoch == held.Epoch && !own):
		return routing.BindResult{Status: routing.Superseded, Incumbent: held}
	case op.Epoch != 0 && !free && !own && !op.Known:
		return routing.BindResult{Status: routing.Invalid}
	}
	result := routing.BindResult{Status: routing.Bound, Epoch: op.Epoch}
	if op.Epoch == 0 {
		result.Epoch = minted
	}
	if !own {
		result.Incumbent = held
	}
	return result
}

// agrees asks whether the registry's answer fits the model. What a dead session holds may go at
// any time, and the answer may be how the model hears of it.
func (h *history) agrees(fits func(held routing.Binding) bool) bool {
	if fits(h.held) {
		return true
	}
	if h.held == (routing.Binding{}) || !h.playerOf(h.held).dead || !fits(routing.Binding{}) {
		return false
	}
	h.held = routing.Binding{}
	return true
}
