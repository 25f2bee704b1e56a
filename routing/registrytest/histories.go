package registrytest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"distmsg/routing"
)

// checkHistories lets an ID move between sessions again and again, each time by
// an application's bind, while messages about the earlier bindings arrive late, twice or
// in any order: unbinds, re-asserts, stale replacements, and kicks. The registry's
// clock jumps up to 10 s forth and back between any two operations. Every answer must
// be the one of a naive model, and in the end the ID is with whom it moved to last (S10
// to S13).
func checkHistories(s *suite, n int) error {
	w := &world{suite: s}
	for i := range w.players {
		node := routing.NewTable()
		w.players[i] = player{node: node, session: node.OpenSession(routing.NewSessionID(), "")}
	}
	for i := range n {
		h := &history{world: w, rng: rand.New(rand.NewPCG(1, uint64(i))), id: s.newID()}
		if err := h.play(); err != nil {
			return fmt.Errorf("history %d: %w\n%s", i, err, strings.Join(h.log, "\n"))
		}
	}
	return nil
}

// world is what the histories of one run share.
type world struct {
	*suite
	players [3]player
}

// player is a session and the table of the node it is on.
type player struct {
	node    *routing.Table
	session *routing.Session
}

// history is the life of one ID.
type history struct {
	*world
	rng *rand.Rand
	id  string
	log []string

	// The model.
	held routing.Binding
	top  uint64 // the greatest epoch the ID ever had

	past []routing.Binding // all bindings so far
	late []func() error    // messages on their way
}

func (h *history) play() error {
	var winner int
	for range 2 + h.rng.IntN(3) {
		h.sendOld()
		if err := h.deliver(h.rng.IntN(4)); err != nil {
			return err
		}
		winner = h.rng.IntN(len(h.players))
		if err := h.moveTo(winner); err != nil {
			return err
		}
	}
	// The last move stands: nobody else binds from here on.
	last := h.held
	if err := h.deliver(len(h.late)); err != nil {
		return err
	}
	h.logf("the end: %s", h.name(last))
	if h.held != last {
		return fmt.Errorf("the model lost %s to %s", h.name(last), h.name(h.held))
	}
	if err := h.wantHolder(h.id, last); err != nil {
		return err
	}
	return h.checkTables(winner, last)
}

// moveTo is an application's bind by a player, kick-old: it replaces whom it meets, and
// tries again if that changed meanwhile, as it may while late messages arrive.
func (h *history) moveTo(to int) error {
	op := routing.BindOp{ID: h.id, Session: h.players[to].session.ID()}
	for {
		result, err := h.do(op)
		if err != nil {
			return err
		}
		if result.Status == routing.Bound {
			h.sendNew(to, routing.Binding{Session: op.Session, Epoch: result.Epoch})
			return nil
		}
		op.Expect = result.Incumbent
		if err := h.deliver(h.rng.IntN(2)); err != nil {
			return err
		}
	}
}

// sendOld puts on their way unbinds, re-asserts and stale replacements of all bindings
// so far. The move that comes next overtakes some of them.
func (h *history) sendOld() {
	for _, old := range h.past {
		owner := h.playerOf(old)
		stale := routing.BindOp{ID: h.id, Session: old.Session, Expect: h.olderThan(old)}
		h.send(func() error { return h.leave(owner, old) })
		h.send(func() error { return h.reassert(owner, old) })
		h.send(func() error { return h.replaceStale(stale) })
	}
}

// sendNew puts on their way the kicks that a new binding causes, and its re-asserts.
func (h *history) sendNew(to int, b routing.Binding) {
	h.send(func() error { return h.reassert(to, b) })
	for from := range h.players {
		if from != to {
			h.send(func() error { h.kick(from, b.Epoch); return nil })
		}
	}
	h.past = append(h.past, b)
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
func (h *history) reassert(by int, b routing.Binding) error {
	result, err := h.do(routing.BindOp{ID: h.id, Session: b.Session, Epoch: b.Epoch})
	if err == nil && result.Status == routing.Superseded {
		h.kick(by, result.Incumbent.Epoch)
	}
	return err
}

// leave is a late unbind, or the clean-up after a session's not-here.
func (h *history) leave(by int, b routing.Binding) error {
	h.tick()
	h.logf("unbind %s", h.name(b))
	want := h.held == b
	if err := h.wantUnbind(h.id, b, want); err != nil {
		return err
	}
	if want {
		h.held = routing.Binding{}
	}
	p := h.players[by]
	p.node.Unbind(h.id, p.session, b.Epoch)
	return nil
}

// kick is what a node does with a KICK: nothing, unless its epoch is the greater one.
func (h *history) kick(at int, epoch uint64) {
	h.logf("kick player %d by epoch %d", at, epoch)
	p := h.players[at]
	if route, ok := p.node.Lookup([]byte(h.id)); ok && epoch > route.Epoch {
		p.node.Unbind(h.id, p.session, route.Epoch)
	}
}

// replaceStale is a compare-and-swap that comes too late. It is lost on the way where it
// would be a bind like any other, for then the ID would rightly move.
func (h *history) replaceStale(op routing.BindOp) error {
	if h.held == (routing.Binding{}) || h.held.Session == op.Session || h.held == op.Expect {
		return nil
	}
	_, err := h.do(op)
	return err
}

// do binds, checks the answer against the model, and puts it into the node's table.
func (h *history) do(op routing.BindOp) (routing.BindResult, error) {
	h.tick()
	got, err := h.bind(op)
	h.logf("bind %s expecting %s: %s, incumbent %s",
		h.name(routing.Binding{Session: op.Session, Epoch: op.Epoch}), h.name(op.Expect), got.Status, h.name(got.Incumbent))
	if err != nil {
		return got, err
	}
	want := h.model(op, got.Epoch)
	if got != want {
		return got, fmt.Errorf("got %+v, want %+v", got, want)
	}
	if got.Status != routing.Bound {
		return got, nil
	}
	if op.Epoch == 0 && (got.Epoch <= h.top || got.Epoch < h.clock.epoch() || got.Epoch >= routing.MaxEpoch) {
		return got, fmt.Errorf("minted %d after %d with the clock at %d", got.Epoch, h.top, h.clock.epoch())
	}
	h.held = routing.Binding{Session: op.Session, Epoch: got.Epoch}
	h.top = max(h.top, got.Epoch)
	p := h.players[h.playerOf(h.held)]
	_, status := p.node.Bind(h.id, p.session, got.Epoch)
	if status != routing.Bound && op.Epoch == 0 { // an old re-assert may meet a newer bind of its own
		return got, fmt.Errorf("the node's table says %s", status)
	}
	return got, nil
}

// model is rules S10 and S13 in plain words. A mint's epoch it takes from the answer.
func (h *history) model(op routing.BindOp, minted uint64) routing.BindResult {
	free, own := h.held == routing.Binding{}, h.held.Session == op.Session
	switch {
	case op.Epoch == 0 && !free && !own && h.held != op.Expect:
		return routing.BindResult{Status: routing.Taken, Incumbent: h.held}
	case op.Epoch != 0 && !free && (op.Epoch < h.held.Epoch || op.Epoch == h.held.Epoch && !own):
		return routing.BindResult{Status: routing.Superseded, Incumbent: h.held}
	}
	result := routing.BindResult{Status: routing.Bound, Epoch: op.Epoch}
	if op.Epoch == 0 {
		result.Epoch = minted
	}
	if !own {
		result.Incumbent = h.held
	}
	return result
}

// checkTables wants the ID in the winner's table, and nowhere else once the other
// nodes have verified theirs against the registry (S15).
func (h *history) checkTables(winner int, last routing.Binding) error {
	for i, p := range h.players {
		h.kickUnlessHolder(i, last)
		route, ok := p.node.Lookup([]byte(h.id))
		if ok != (i == winner) || ok && route.Epoch != last.Epoch {
			return fmt.Errorf("table of player %d: %v, epoch %d; the ID is with %s", i, ok, route.Epoch, h.name(last))
		}
		p.node.Unbind(h.id, p.session, last.Epoch) // the next history starts with empty tables
	}
	return nil
}

func (h *history) kickUnlessHolder(i int, last routing.Binding) {
	if h.players[i].session.ID() != last.Session {
		h.kick(i, last.Epoch)
	}
}

// tick lets time pass and the clock jump, as when another master takes over.
func (h *history) tick() {
	h.clock.Step(time.Duration(h.rng.Int64N(int64(20*time.Second))) - 10*time.Second)
}

func (h *history) playerOf(b routing.Binding) int {
	for i, p := range h.players {
		if p.session.ID() == b.Session {
			return i
		}
	}
	panic("no such player")
}

// olderThan returns a binding before b, or nobody.
func (h *history) olderThan(b routing.Binding) routing.Binding {
	var older routing.Binding
	for _, p := range h.past {
		if p.Epoch < b.Epoch {
			older = p
		}
	}
	return older
}

// name says who a binding is, for the log of a history that failed.
func (h *history) name(b routing.Binding) string {
	if b == (routing.Binding{}) {
		return "nobody"
	}
	return fmt.Sprintf("player %d, epoch %d", h.playerOf(b), b.Epoch)
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}
