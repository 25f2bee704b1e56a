package engine

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// holders asks the registry who holds the IDs that sessions send from, for the loops: one question
// at a time, with all IDs that have gathered meanwhile. It does not share the resolver's questions:
// the resolver finds out how messages to an ID end, and "its session cannot be reached" does not
// say who holds the ID.
//
// A question that fails is no answer to those who have asked since it was put: they have one of their
// own, in the order in which they came.
//
// Each question has a number. A loop notes the number of the latest question when a send arrives.
// An answer to a question with a greater number is no older than the send.
type holders struct {
	eng   *Engine
	wake  chan struct{} // of capacity 1
	round atomic.Uint64 // the number of the last question that was asked

	mu    sync.Mutex
	loops map[string][]uint16 // guarded by mu; the loops that wait for a question, by ID
	order []string            // guarded by mu; the IDs, as they came
}

// holder is the registry's word on who holds an ID.
type holder struct {
	id      string
	session routing.SessionID // zero: nobody
	epoch   uint64
	known   bool   // false: the registry did not say
	round   uint64 // of the question
}

func newHolders(e *Engine) *holders {
	return &holders{eng: e, wake: make(chan struct{}, 1), loops: make(map[string][]uint16)}
}

// ask promises that the loop will hear who holds id, from a question that has not been asked yet
// (see loop.senderKnown). Any goroutine may call it.
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

func (h *holders) unknown(ids []string) []holder {
	words := make([]holder, len(ids))
	for i, id := range ids {
		words[i] = holder{id: id, round: h.round.Load()}
	}
	return words
}

// find asks the registry. If it does not answer, no word is known.
func (h *holders) find(ctx context.Context, ids []string) []holder {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	words := h.unknown(ids)
	found, err := h.eng.registry.Lookup(ctx, ids)
	if err != nil {
		return words
	}
	for i, f := range found {
		if f.Unknown {
			continue
		}
		words[i].session, words[i].epoch, words[i].known = f.Binding.Session, f.Binding.Epoch, true
		if s := h.eng.table.Session(f.Binding.Session); s != nil && len(s.Handles()) > 0 {
			h.eng.learn(s, ids[i], f.Binding.Epoch) // so that it need not be asked for again
		}
	}
	return words
}

// answer tells every loop that asked.
func (h *holders) answer(words []holder, loops [][]uint16) {
	byLoop := make([][]holder, len(h.eng.loops))
	for i, w := range words {
		for _, loop := range loops[i] {
			if mine := byLoop[loop]; len(mine) == 0 || mine[len(mine)-1].id != w.id {
				byLoop[loop] = append(mine, w)
			}
		}
	}
	for i, mine := range byLoop {
		if l := h.eng.loops[i]; len(mine) > 0 {
			l.post(func() {
				for _, w := range mine {
					l.senderKnown(w)
				}
			})
		}
	}
}
