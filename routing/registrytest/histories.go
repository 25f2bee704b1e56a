package registrytest

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"distmsg/routing"
)

// seed is what the random histories are made from. The one that failed is repeated by the command
// that its error names.
var seed = flag.Uint64("histories.seed", 1, "seed of the random histories of registrytest")

// checkHistories lets an ID move between sessions again and again, each time by
// an application's bind, while messages about the earlier bindings arrive late, twice or
// in any order: unbinds, re-asserts, stale replacements, and kicks. Each player's clock is
// up to 10 s off. Some sessions end on the way, and what the dead have sent arrives, too.
//
// Every answer must be the one of a naive model. In the end the ID is with whom it moved
// to last, under the epoch that its bind returned, unless that session has ended: then it
// is not (S10 to S13, S17).
func checkHistories(s *suite, n int) error {
	w := &world{suite: s}
	for i := range w.players {
		w.nodes[i] = routing.NewTable()
		if err := w.enter(i); err != nil {
			return err
		}
	}
	for i := range n {
		h := newHistory(w, *seed, uint64(i))
		if err := h.play(); err != nil {
			return fmt.Errorf("history %d of -histories.seed=%d: %w\n%s", i, *seed, err, strings.Join(h.log, "\n"))
		}
	}
	// What the dead held goes later than they, if it was not taken over.
	for _, id := range w.orphans {
		if err := s.becomesFree(id); err != nil {
			return fmt.Errorf("its session has ended: %w", err)
		}
	}
	s.logf("%d histories: %+v", n, w.played)
	return w.played.enough(n)
}

// tally counts what arrived in the histories of one run.
type tally struct {
	Moves, Unbinds, Reasserts, Replacements, Kicks, Ends int // all but moves and ends come late
}

// enough wants each history to have had its share, on average, so that a run that proves nothing
// does not pass.
func (t tally) enough(histories int) error {
	if min(t.Moves, t.Unbinds, t.Reasserts, t.Kicks) < histories || t.Replacements == 0 || t.Ends == 0 {
		return fmt.Errorf("%d histories had only %+v", histories, t)
	}
	return nil
}

// world is what the histories of one run share.
type world struct {
	*suite
	nodes   [3]*routing.Table
	players [3]*player // one on each node
	serial  uint64     // of the latest attach
	orphans []string   // IDs whose session has ended
	played  tally
}

// enter attaches a new session to a node.
func (w *world) enter(node int) error {
	w.serial++
	table := w.nodes[node]
	p := &player{
		node:     node,
		table:    table,
		session:  table.OpenSession(routing.NewSessionID(), ""),
		presence: routing.Presence{Node: fmt.Sprintf("n%d", node), Incarnation: 1, Serial: w.serial},
	}
	w.players[node] = p
	return w.Attach(w.ctx, p.id(), p.presence)
}

// history is the life of one ID.
type history struct {
	*world
	rng *rand.Rand
	id  string
	log []string

	// Only the clock of the registry mints, and no node has one that counts for epochs. Here it
	// goes by whoever asks, so that any two operations may be as far apart as two clocks.
	skews [3]time.Duration
	skew  time.Duration // what the clock is off by now

	// The model.
	held routing.Binding
	top  uint64 // the greatest epoch the ID ever had

	cast []*player         // all who ever played, the dead as well
	past []routing.Binding // all bindings so far
	late []func() error    // messages on their way
}

func newHistory(w *world, seed, number uint64) *history {
	h := &history{world: w, rng: rand.New(rand.NewPCG(seed, number)), id: w.newID()}
	// So far that some epochs come from the clock, and others from what is stored.
	h.clock.Step(2 * maxSkew)
	for i, p := range w.players {
		h.skews[i] = h.randomSkew()
		p.held = holding{}
		h.cast = append(h.cast, p)
	}
	return h
}

func (h *history) play() error {
	for range 1 + h.rng.IntN(3) {
		if err := h.sendOld(); err != nil {
			return err
		}
		if err := h.act(); err != nil {
			return err
		}
	}
	if err := h.sendOld(); err != nil {
		return err
	}
	winner := h.anyone()
	last, _, err := h.login(winner, kickOld)
	if err != nil {
		return err
	}
	if err := h.aftermath(winner); err != nil {
		return err
	}
	h.logf("the end: %s", h.name(h.held))
	if err := h.checkWinner(winner, last); err != nil {
		return err
	}
	return h.leave()
}

// act is one of the things that happen before the last move.
func (h *history) act() error {
	switch h.rng.IntN(6) {
	case 0:
		return h.end(h.anyone())
	case 1, 2:
		_, _, err := h.login(h.anyone(), rejectNew)
		return err
	default:
		_, _, err := h.login(h.anyone(), kickOld)
		return err
	}
}

// aftermath lets all that is still on its way arrive. Others try to log in meanwhile without
// replacing anybody, and dead ones whatever it takes. In some histories the winner's session ends.
func (h *history) aftermath(winner *player) error {
	doomed := h.rng.IntN(4) == 0
	for len(h.late) > 0 || doomed && !winner.dead {
		if err := h.deliver(1 + h.rng.IntN(3)); err != nil {
			return err
		}
		var err error
		switch p := h.anyone(); h.rng.IntN(5) {
		case 0:
			if p != winner {
				_, _, err = h.login(p, rejectNew)
			}
		case 1:
			err = h.loginOfDead()
		case 2:
			if doomed && !winner.dead {
				err = h.end(winner)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// policy says what a login does about an incumbent (S13).
type policy bool

const (
	kickOld   policy = true
	rejectNew policy = false
)

// login is an application's bind, done as a node does it: it replaces whom it meets, or with
// rejectNew only who is dead, and tries again if that changed meanwhile, as it may while late
// messages arrive. False: it was refused.
func (h *history) login(p *player, policy policy) (routing.Binding, bool, error) {
	op := routing.BindOp{ID: h.id, Session: p.id()}
	p.held.begin()
	for {
		result, err := h.do(op)
		if err != nil {
			return routing.Binding{}, false, err
		}
		if result.Status == routing.Bound {
			b := routing.Binding{Session: op.Session, Epoch: result.Epoch}
			h.played.Moves++
			h.sendNew(p, b)
			// The answer to the session is on its way, too, and kicks may overtake it.
			err := h.deliver(h.rng.IntN(3))
			p.held.finish(b.Epoch)
			return b, true, err
		}
		if policy == rejectNew {
			if lives, err := h.lives(result.Incumbent); lives || err != nil {
				p.held.finish(0)
				return routing.Binding{}, false, err
			}
		}
		op.Expect = result.Incumbent
		if err := h.deliver(h.rng.IntN(2)); err != nil {
			return routing.Binding{}, false, err
		}
	}
}

// lives is how a node finds out whether an incumbent still counts.
func (h *history) lives(incumbent routing.Binding) (bool, error) {
	got, err := h.Presence(h.ctx, incumbent.Session)
	lives := !got.Dead && len(got.Nodes) > 0
	if want := !h.playerOf(incumbent).dead; err == nil && lives != want {
		err = fmt.Errorf("presence of the holder of %s: %+v, want it alive: %v", h.name(incumbent), got, want)
	}
	return lives, err
}

// end lets a player's session end, by a goodbye or because its node is dead, and a new one take its
// place.
func (h *history) end(p *player) error {
	h.logf("end of %s", h.name(routing.Binding{Session: p.id()}))
	bound, _ := p.table.ForceEndSession(p.session)
	op := routing.EndOp{Session: p.id(), Bound: bound, Force: true}
	if h.rng.IntN(2) == 0 {
		if err := h.wantEnd(routing.EndOp{Session: p.id(), Bound: bound}, false); err != nil {
			return err // it is attached
		}
		op.Force, op.Gone = false, []routing.Presence{p.presence}
	}
	if err := h.wantEnd(op, true); err != nil {
		return err
	}
	h.played.Ends++
	p.dead = true
	p.held = holding{}
	err := h.enter(p.node)
	h.cast = append(h.cast, h.players[p.node])
	return err
}

// loginOfDead is a bind of a session that ended while its node did not know. It is refused, even
// where it names the incumbent, which stays.
func (h *history) loginOfDead() error {
	p := h.cast[h.rng.IntN(len(h.cast))]
	if !p.dead {
		return nil
	}
	_, err := h.do(routing.BindOp{ID: h.id, Session: p.id(), Expect: h.held})
	return err
}

// checkWinner wants the ID with the last move, however late what came after it was, and nowhere
// else once the other nodes have verified their bindings (S15). A winner that has ended keeps
// nothing.
func (h *history) checkWinner(winner *player, last routing.Binding) error {
	if err := h.lookUp(); err != nil {
		return err
	}
	if winner.dead {
		if h.held.Session == winner.id() {
			h.orphans = append(h.orphans, h.id)
		}
		return nil
	}
	if h.held != last {
		return fmt.Errorf("the model lost %s to %s", h.name(last), h.name(h.held))
	}
	for _, p := range h.cast {
		if p != winner {
			p.kick(h.id, last.Epoch)
		}
		var want uint64
		if p == winner {
			want = last.Epoch
		}
		if got := p.known(h.id); got != want || p.held.epoch != want {
			return fmt.Errorf("epochs of %s: %d in its node's table, %d in its own list, want %d",
				h.name(routing.Binding{Session: p.id()}), got, p.held.epoch, want)
		}
	}
	return nil
}

// leave clears the table: the sessions and nodes play the next history, too.
func (h *history) leave() error {
	for _, p := range h.cast {
		p.table.Unbind(h.id, p.session, p.known(h.id))
	}
	if h.held == (routing.Binding{}) || h.playerOf(h.held).dead {
		return nil
	}
	return h.wantUnbind(h.id, h.held, true)
}

// maxSkew is how far a clock may be off.
const maxSkew = 10 * time.Second

func (h *history) randomSkew() time.Duration {
	return time.Duration(h.rng.Int64N(int64(2*maxSkew))) - maxSkew
}

// tick sets the clock to that of a player, which sometimes jumps.
func (h *history) tick(p *player) {
	if h.rng.IntN(8) == 0 {
		h.skews[p.node] = h.randomSkew()
	}
	h.clock.Step(h.skews[p.node] - h.skew)
	h.skew = h.skews[p.node]
}

// anyone returns a player that is alive.
func (h *history) anyone() *player { return h.players[h.rng.IntN(len(h.players))] }

func (h *history) playerOf(b routing.Binding) *player {
	for _, p := range h.cast {
		if p.id() == b.Session {
			return p
		}
	}
	panic("no such player")
}

// name says who a binding is, for the log of a history that failed.
func (h *history) name(b routing.Binding) string {
	if b == (routing.Binding{}) {
		return "nobody"
	}
	for i, p := range h.cast {
		if p.id() == b.Session {
			return fmt.Sprintf("session %d of node %d, epoch %d", i, p.node, b.Epoch)
		}
	}
	return fmt.Sprintf("a stranger, %v", b)
}

func (h *history) logf(format string, args ...any) {
	h.log = append(h.log, fmt.Sprintf(format, args...))
}
