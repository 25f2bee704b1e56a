package client

import (
	"context"
	"sync"

	"distmsg/codec"
)

// holdings is the SDK's list of bindings. It decides what this session holds (S10). Operations
// serialise the Bind and Unbind calls of one ID. Anything else may happen between and during them.
type holdings struct {
	mu   sync.RWMutex
	byID map[string]*binding
	// gen counts the sessions that began without bindings at the nodes. An answer from an older
	// session says nothing about the current one.
	gen   uint64
	loose bool // some bindings may be loose
}

// binding is one ID that the session holds or is about to hold.
type binding struct {
	id string
	lane

	// Guarded by holdings.mu.
	handler Handler
	epoch   uint64     // of the binding; 0 while the first bind is in progress
	op      *operation // the Bind or Unbind in progress
	asked   bool       // op is a Bind that the node has not granted yet
	kicked  uint64     // the greatest epoch of a kick that came during op
	loose   bool       // the session at the node does not have it (yet), so it must be asserted
	doubted bool       // the node has denied one assertion of it
	leaving bool       // an Unbind has begun: no more messages are delivered
	gone    bool       // removed from holdings; waiting messages go back as not_here
}

// operation is one Bind or Unbind. done is closed when it ends.
type operation struct{ done chan struct{} }

// begin starts an operation on the IDs and returns their bindings, without duplicates. First it
// waits for other operations on any of them. With create, it makes missing bindings and gives all
// of them the handler. Without create, it leaves missing ones out.
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
			if b.leaving { // an Unbind failed before: its binding must not count as held
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

// end ends an operation and removes the bindings that the node has not granted. It returns the
// kicks that came during the operation and are newer than what was bound.
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

// granted records the epochs of a Bind in progress as soon as the node has answered, in the session
// of gen. The next frame from the node (a message, a kick, a request for all bindings) may already
// depend on them.
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

// adopt handles a bind that the node granted after the caller had given up. If the session holds
// the ID anyway, adopt records the epoch. Otherwise it returns false, and the caller should unbind
// the ID.
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

// kick removes the binding of id if epoch supersedes it, and reports whether the session has lost
// the ID by that. During an operation, it only records the epoch.
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

// holder returns the binding for a message to id that a node sent under epoch. It returns nil if
// the session does not hold id, or holds it under a smaller epoch than that of the message or of a
// kick. The epoch does not count during a bind that is not granted yet, because that bind may bring
// it.
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

// generation returns the generation of the bindings at the nodes. In a new session, all bindings
// must be asserted again.
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

// looseOnes returns the IDs and epochs that must be asserted. These include held IDs with a Bind in
// progress, because the old binding must last until the new one exists.
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

// all returns the IDs and epochs of all bindings that the session holds.
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

// asserted handles the node's answer to the assertion of a binding. It returns lost, with the kick
// to report, if the session has lost the ID. It returns stray if the node has the binding although
// the session has given it up meanwhile. Then the caller must unbind it, even after a later Unbind,
// which may have gone to another node.
func (h *holdings) asserted(v idEpoch, r codec.Result, gen uint64) (kick Kick, lost, stray bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.byID[v.id]
	if gen != h.gen {
		return kick, false, false // a later session decides
	}
	if b == nil || b.epoch != v.epoch || b.leaving { // a later Bind, Unbind or kick has decided
		return kick, false, r.Code == codec.CodeOK
	}
	switch {
	case r.Code == codec.CodeOK:
		b.loose, b.doubted = false, false
	case r.Code.SafeToRetry() || r.Code.Delivered() == codec.DeliveredUnknown:
		b.loose, h.loose = true, true // try again
	case r.Code == codec.CodeDenied && !b.doubted:
		// The session may just have ended at the node. That is no reason to give up the ID, so try
		// once more.
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

// remove removes b. The caller holds h.mu.
func (h *holdings) remove(b *binding) {
	if !b.gone {
		b.gone = true
		delete(h.byID, b.id)
	}
}
