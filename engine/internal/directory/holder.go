package directory

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// holders asks the registry for the loops who holds the IDs that sessions send from. It asks one
// question at a time, with all IDs that have gathered meanwhile. It does not share the resolver's
// questions: the resolver finds out how messages to an ID end, and "its session cannot be reached"
// does not say who holds the ID.
//
// If a question fails, loops that asked while it was under way do not hear of that. The next
// question is for them, in the order in which they came.
//
// Each question has a number. A loop notes the number of the latest question when a send arrives.
// An answer to a question with a greater number is no older than the send.
type holders struct {
	dir   *Directory
	wake  chan struct{} // of capacity 1
	round atomic.Uint64 // the number of the last question that was asked

	mu    sync.Mutex
	loops map[string][]uint16 // guarded by mu; the loops that wait for a question, by ID
	order []string            // guarded by mu; the IDs, as they came
}

// Holder is what the registry said of who holds an ID.
type Holder struct {
	ID      string
	Session routing.SessionID // zero: nobody
	Epoch   uint64
	Known   bool   // false: the registry did not say
	Round   uint64 // of the question, see HolderRound
}

func newHolders(d *Directory) *holders {
	return &holders{dir: d, wake: make(chan struct{}, 1), loops: make(map[string][]uint16)}
}

// AskHolder makes sure that the loop hears who holds an ID, by Loops.SendersKnown, from a question
// that has not been asked yet. There must be other nodes.
func (d *Directory) AskHolder(loop uint16, id string) { d.holders.ask(loop, id) }

// HolderRound returns the number of the latest question for holders. An answer with a greater
// number is no older than this call.
func (d *Directory) HolderRound() uint64 { return d.holders.round.Load() }

func (h *holders) ask(loop uint16, id string) {
	h.mu.Lock()
	if h.loops[id] == nil {
		h.order = append(h.order, id)
	}
	h.loops[id] = append(h.loops[id], loop)
	h.mu.Unlock()
	wake.Nudge(h.wake)
}

func (h *holders) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		}
		for ids, loops := h.take(resolveBatch); len(ids) > 0; ids, loops = h.take(resolveBatch) {
			h.answer(h.find(ctx, ids), loops)
		}
	}
}

// take returns the IDs of the next question, and for each the loops that wait.
func (h *holders) take(most int) (ids []string, loops [][]uint16) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.round.Add(1)
	n := min(len(h.order), most)
	ids, h.order = slices.Clone(h.order[:n]), h.order[n:]
	if len(h.order) == 0 {
		h.order = nil
	}
	for _, id := range ids {
		loops = append(loops, h.loops[id])
		delete(h.loops, id)
	}
	return ids, loops
}

func (h *holders) unknown(ids []string) []Holder {
	words := make([]Holder, len(ids))
	for i, id := range ids {
		words[i] = Holder{ID: id, Round: h.round.Load()}
	}
	return words
}

// find asks the registry. If the registry does not answer, Known is false for all IDs.
func (h *holders) find(ctx context.Context, ids []string) []Holder {
	ctx, cancel := context.WithTimeout(ctx, ResolveTimeout)
	defer cancel()
	words := h.unknown(ids)
	found, err := h.dir.registry.Lookup(ctx, ids)
	if err != nil {
		return words
	}
	for i, f := range found {
		if f.Unknown {
			continue
		}
		words[i].Session, words[i].Epoch, words[i].Known = f.Binding.Session, f.Binding.Epoch, true
		if s := h.dir.table.Session(f.Binding.Session); s != nil && len(s.Handles()) > 0 {
			h.dir.news.learn(s, ids[i], f.Binding.Epoch) // so that it need not be asked for again
		}
	}
	return words
}

// answer notifies every loop that asked.
func (h *holders) answer(words []Holder, loops [][]uint16) {
	byLoop := make([][]Holder, h.dir.cfg.Loops)
	for i, w := range words {
		for _, loop := range loops[i] {
			if mine := byLoop[loop]; len(mine) == 0 || mine[len(mine)-1].ID != w.ID {
				byLoop[loop] = append(mine, w)
			}
		}
	}
	for loop, mine := range byLoop {
		if len(mine) > 0 {
			h.dir.loops.SendersKnown(loop, mine)
		}
	}
}
