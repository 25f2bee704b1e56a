package client

import (
	"context"
	"sync"

	"distmsg/codec"
)

// holdings is the SDK's list of bindings, the source of truth for what this session holds (S10).
// Bind and Unbind of one ID are serialised by operations; everything else may come in between.
type holdings struct {
	mu   sync.RWMutex
	byID map[string]*binding
	// gen counts the sessions that began without bindings. An answer to an older one says nothing
	// about the present.
	gen   uint64
	loose bool // some bindings may be loose
}

// binding is one ID that is held, or about to be.
type binding struct {
	id string
	lane

	// Guarded by holdings.mu.
	handler Handler
	epoch   uint64     // of the binding held; 0 while the first bind is under way
	op      *operation // the Bind or Unbind under way
	asked   bool       // it is a Bind, and the node has not granted it yet
	kicked  uint64     // the greatest epoch of a kick that came during op
	loose   bool       // the node's session does not have it (yet); to be asserted
	doubted bool       // the node denied an assertion of it
	leaving bool       // an Unbind began: nothing is delivered any more
	gone    bool       // removed from holdings; messages that still wait go back as not_here
}

// operation is one Bind or Unbind; done is closed at its end.
type operation struct{ done chan struct{} }

// begin makes the caller the one operation on the IDs and returns their bindings, without
// duplicates. It waits for other operations on any of them. With create, missing bindings are made
// and given the handler; without, missing ones are left out.
func (h *holdings) begin(ctx context.Context, ids []string, create bool, handler Handler) (
	*operation, []*binding, error) {
	for {
		if err := over(ctx); err != nil {
			return nil, nil, err
		}
		busy, op, held := h.tryBegin(ids, create, handler)
		if busy == nil {
			return op, held, nil
		}
		select {
		case <-busy.done:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

func (h *holdings) tryBegin(ids []string, create bool, handler Handler) (busy, op *operation, held []*binding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if b := h.byID[id]; b != nil && b.op != nil {
			return b.op, nil, nil
		}
	}
	op = &operation{done: make(chan struct{})}
	held = make([]*binding, 0, len(ids))
	for _, id := range ids {
		b := h.byID[id]
		if b == nil && create {
			b = &binding{id: id}
			h.byID[id] = b
		}
		if b == nil || b.op == op {
			continue
		}
		b.op = op
		if create {
			if b.leaving { // an Unbind failed before: what is left of it must not count as held
				b.epoch, b.leaving = 0, false
			}
			b.handler, b.asked = handler, true
		} else {
			b.leaving = true
		}
		held = append(held, b)
	}
	return nil, op, held
}

// end closes an operation: bindings that never came to be are removed. It returns the kicks that
// came during the operation and hold against what was bound.
func (h *holdings) end(op *operation, held []*binding) (kicks []Kick) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, b := range held {
		b.op = nil
		switch {
		case b.gone:
		case b.epoch == 0:
			h.remove(b)
		case b.kicked > b.epoch:
			h.remove(b)
			if !b.leaving {
				kicks = append(kicks, Kick{ID: b.id, Epoch: b.kicked, Code: codec.CodeSuperseded})
			}
		}
		b.kicked, b.asked = 0, false
	}
	close(op.done)
	return kicks
}

// granted notes the epochs of a Bind under way as soon as the node has answered, in the session of
// gen: what the node sends next (a message, a kick, a request for all bindings) may be about them.
func (h *holdings) granted(op *operation, ids []idEpoch, results []codec.Result, gen uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, r := range results {
		if b := h.byID[ids[i].id]; r.Code == codec.CodeOK && b != nil && b.op == op {
			b.epoch, b.loose, b.asked = r.Epoch, gen != h.gen, false
			h.loose = h.loose || b.loose
		}
	}
}

// unbound removes b at the end of an Unbind.
func (h *holdings) unbound(b *binding) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(b)
}

// adopt takes over the epoch of a bind that was answered after its caller had given up, if the ID
// is held anyway; else it reports false, and the binding should be taken back.
func (h *holdings) adopt(id string, epoch uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.byID[id]
	if b == nil || b.leaving || b.epoch == 0 {
		return false
	}
	b.epoch = max(b.epoch, epoch)
	return true
}

// kick drops id if epoch supersedes the binding held, and reports whether it did. During an
// operation it is only noted.
func (h *holdings) kick(id []byte, epoch uint64) (Kick, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.byID[string(id)]
	if b == nil || epoch <= b.epoch {
		return Kick{}, false
	}
	if b.op != nil {
		b.kicked = max(b.kicked, epoch)
		return Kick{}, false
	}
	h.remove(b)
	return Kick{ID: b.id, Epoch: epoch, Code: codec.CodeSuperseded}, !b.leaving
}

// holder returns the binding for a message to id that a node sent under epoch, or nil if it is not
// held, or only under a smaller epoch than that, or than that of a kick. A bind that is not granted
// yet may bring that epoch.
func (h *holdings) holder(id []byte, epoch uint64) (*binding, Handler) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	b := h.byID[string(id)]
	if b == nil || b.leaving || max(epoch, b.kicked) > b.epoch && !b.asked {
		return nil, nil
	}
	return b, b.handler
}

func (h *holdings) isGone(b *binding) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return b.gone || b.leaving
}

// epoch returns the epoch under which id is held.
func (h *holdings) epoch(id string) (uint64, bool) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	b := h.byID[id]
	if b == nil || b.leaving || b.epoch == 0 {
		return 0, false
	}
	return b.epoch, true
}

// generation returns the number of the session's bindings at the nodes. If it is a new session,
// they have to be asserted again.
func (h *holdings) generation(isNew bool) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if isNew {
		h.gen++
		for _, b := range h.byID {
			b.loose = true
		}
		h.loose = len(h.byID) > 0
	}
	return h.gen
}

// looseOnes returns the IDs and epochs to be asserted. Those under a Bind are among them if they
// are held: the old binding has to stand until the new one does.
func (h *holdings) looseOnes() []idEpoch {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.loose {
		return nil
	}
	var ids []idEpoch
	for _, b := range h.byID {
		if b.loose && !b.leaving && b.epoch != 0 {
			ids = append(ids, idEpoch{b.id, b.epoch})
		}
	}
	h.loose = len(ids) > 0
	return ids
}

// all returns the IDs and epochs of everything that is held.
func (h *holdings) all() []idEpoch {
	h.mu.RLock()
	defer h.mu.RUnlock()
	ids := make([]idEpoch, 0, len(h.byID))
	for _, b := range h.byID {
		if !b.leaving && b.epoch != 0 {
			ids = append(ids, idEpoch{b.id, b.epoch})
		}
	}
	return ids
}

// asserted takes in the node's answer about a binding that was asserted. lost: the ID is, with the
// kick to report. stray: the node has it although it was given up meanwhile, and has to give it up
// too; that an Unbind came later says nothing if it went to another node.
func (h *holdings) asserted(v idEpoch, r codec.Result, gen uint64) (kick Kick, lost, stray bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.byID[v.id]
	if gen != h.gen {
		return kick, false, false // a later session decides
	}
	if b == nil || b.epoch != v.epoch || b.leaving { // a later Bind, Unbind or kick decided
		return kick, false, r.Code == codec.CodeOK
	}
	switch {
	case r.Code == codec.CodeOK:
		b.loose, b.doubted = false, false
	case r.Code.SafeToRetry() || r.Code.Delivered() == codec.DeliveredUnknown:
		b.loose, h.loose = true, true // to be tried again
	case r.Code == codec.CodeDenied && !b.doubted:
		// The session may just have ended, which is no reason to give up what it holds: once more.
		b.loose, b.doubted, h.loose = true, true, true
	case b.op != nil:
		b.kicked = max(b.kicked, r.Epoch)
	default:
		h.remove(b)
		return Kick{ID: b.id, Epoch: r.Epoch, Code: r.Code}, true, false
	}
	return kick, false, false
}

func (h *holdings) len() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return len(h.byID)
}

// remove needs h.mu.
func (h *holdings) remove(b *binding) {
	if !b.gone {
		b.gone = true
		delete(h.byID, b.id)
	}
}
