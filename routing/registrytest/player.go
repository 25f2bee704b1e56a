package registrytest

import "distmsg/routing"

// player is one session of the histories, on a node of its own.
type player struct {
	node     int // index in world.nodes
	table    *routing.Table
	session  *routing.Session
	presence routing.Presence
	dead     bool

	held holding // of the ID that is played about
}

func (p *player) id() routing.SessionID { return p.session.ID() }

// known returns the epoch under which the node has the ID for this session, 0 if not.
func (p *player) known(id string) uint64 {
	if route, ok := p.table.Lookup([]byte(id)); ok && route.Session == p.session {
		return route.Epoch
	}
	return 0
}

// kick is what a node and a session do with a KICK: nothing, unless its epoch is greater than
// theirs (S13).
func (p *player) kick(id string, epoch uint64) {
	if have := p.known(id); have < epoch {
		p.table.Unbind(id, p.session, have)
	}
	p.held.kick(epoch)
}

// holding is what a session's own list says of an ID.
type holding struct {
	epoch   uint64 // 0: not held
	binding bool   // a bind is under way, and with which epoch it will be held is not known
	kicked  uint64 // the greatest epoch of the kicks that came meanwhile
}

func (h *holding) begin() { h.binding = true }

// finish ends a bind; with epoch 0 it was refused, and what was held before stands.
func (h *holding) finish(epoch uint64) {
	h.epoch = max(h.epoch, epoch)
	kicked := h.kicked
	h.binding, h.kicked = false, 0
	h.kick(kicked)
}

func (h *holding) kick(epoch uint64) {
	switch {
	case h.binding:
		h.kicked = max(h.kicked, epoch)
	case epoch > h.epoch:
		h.epoch = 0
	}
}
