package engine

import (
	"distmsg/internal/callback"
)

// What an in-process session calls of the application's. No lock is held during a call, and none
// runs on a loop.

// maxStuck is how many callbacks of SendAsync may be stuck before the others have to wait for them.
const maxStuck = 256

func (s *InProcess) newCallbacks() {
	g := callback.NewGroup(s.eng.cfg.Logger, "in-process session: ", func() {})
	s.callbacks = g
	s.changed = make(map[string]Presence)
	s.outcomes = callback.NewLine(g, "the callback of a SendAsync", 0, maxStuck, s.callBack)
	s.kicks = callback.NewLine(g, "OnKick", 0, 0, func(k kick) { s.cfg.OnKick(k.id, k.epoch) })
	s.changes = callback.NewLine(g, "OnPresence", 0, 0, s.tellPresence)
}

// callHandler answers in the handler's stead: acked if it returned without an answer, rejected if
// it did not return. What it panicked with is not for the sender.
func (s *InProcess) callHandler(m *Message) {
	returned := callback.Contain(func() { s.cfg.Handler(m) }, func(f callback.Failure) {
		_ = m.Reject("the handler " + f.How())
		m.Payload = nil
		f.Log(s.eng.cfg.Logger, "in-process session: a handler", "to", m.To, "from", m.From)
	})
	if returned {
		_ = m.Ack(nil) // ErrAnswered if the handler has answered
		m.Payload = nil
	}
}

// callBack calls a callback of SendAsync, whose send is not in flight any more.
func (s *InProcess) callBack(o outcome) {
	s.mu.Lock()
	s.uncalled--
	s.landed()
	s.mu.Unlock()
	o.done(o.result())
}

// kick lets an ID go, if the kick is about a newer binding than the session's own (S13). mu is
// held.
func (s *InProcess) kick(id string, epoch uint64) {
	h := s.held[id]
	switch {
	case h == nil || h.epoch >= epoch:
	case h.binds > 0: // settleBind decides
		h.epoch, h.kicked = 0, max(h.kicked, epoch)
	default:
		delete(s.held, id)
		if s.cfg.OnKick != nil {
			s.kicks.Push(kick{id, epoch})
		}
	}
}

// change has OnPresence hear what became of a watched ID. mu is held.
func (s *InProcess) change(v Presence) {
	if s.cfg.OnPresence == nil {
		return
	}
	_, listed := s.changed[v.ID]
	s.changed[v.ID] = v
	if !listed {
		s.changes.Push(v.ID)
	}
}

func (s *InProcess) tellPresence(id string) {
	s.mu.Lock()
	v := s.changed[id]
	delete(s.changed, id)
	s.mu.Unlock()
	s.cfg.OnPresence(v)
}
