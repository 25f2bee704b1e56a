package engine

import (
	"context"
	"net"

	"distmsg/codec"
	"distmsg/routing"
)

// Hooks are optional functions that the engine calls; one that is nil costs nothing. If a hook
// panics, the node logs the stack, refuses what it asked the hook for, without the panic's text,
// and goes on. It does the same if a hook ends its goroutine (runtime.Goexit, testing.T.Fatal),
// except on a loop: the loop would end, so the process panics.
//
// Those marked "on a loop" hold up every connection of that loop while they run: they must not block, nor call what waits for
// the engine. Bytes that they are given are views into the loop's buffers: they end with the call, are not to be changed,
// and what is to be kept is copied. The engine calls a hook from several goroutines at once.
type Hooks struct {
	// Authenticate turns the credentials of a hello into an identity, or refuses with an error
	// whose text goes to the client. On a goroutine of its own: it may block; the connection waits, for at most
	// Config.IdleTimeout. ctx ends then and when the engine stops, and Run does not return before the hook has.
	// credentials are the hook's to keep.
	Authenticate func(ctx context.Context, credentials []byte, remote net.Addr) (identity string, err error)
	// Bind refuses an ID to an identity with an error, whose text goes to the client; what is over
	// 255 bytes is cut off, and what is over 32 KiB for all IDs of one bind is left out. On the
	// ID's lane: it may block, and later binds of the same IDs wait, as do
	// those of others that share the lane.
	Bind func(identity, id string) error
	// Send decides on a message before it is routed, at the node that its sender is attached to: codec.CodeOK lets it pass, any
	// other code is its outcome. That is CodeDenied as a rule, and always if the code would not say "not
	// delivered". On a loop.
	Send func(identity string, m *codec.Send) codec.Code
	// Deliver decides, in the same way, on a message that is about to be written to a session of this node, wherever it
	// came from. It sees each message once, and once more if that comes back because its ID has moved. A message that it
	// lets pass can still fail to be written; Undeliverable hears of that. On a loop, which need not be the receiver's.
	Deliver func(session routing.SessionID, identity string, m *codec.Deliver) codec.Code
	// Undeliverable hears of each message that ends at this node without having been delivered, and with which outcome: one of those
	// of which Code.Delivered says no. Of m, Token and Epoch mean nothing. Not told are timeout, lost and rejected, for which the
	// message may have been seen and of which the node keeps no copy; messages whose sender's connection
	// ends while they wait for the registry; and those that the receiver's session itself has given
	// back without ack, as nobody can tell whether what came back is what was sent, or without
	// their content. On a loop.
	Undeliverable func(m *codec.Deliver, code codec.Code)
	// Kick hears that a session of this node has lost an ID to another binding, which has that epoch. A session that is attached to
	// several nodes loses it at each of them. On the ID's lane: it may block only briefly.
	Kick func(session routing.SessionID, identity, id string, epoch uint64)
	// SessionUp and SessionDown tell of sessions that began and ended here (not of their connections, and not of one that moved to
	// or from another node). One that is attached to several nodes ends at each of them. Sessions
	// that are there when the engine stops are not told of: they may go on at another node.
	// On the session's lane: they may block only briefly.
	SessionUp, SessionDown func(session routing.SessionID, identity string)
}

// hookVerdict is what a hook's code makes of a message.
func hookVerdict(code codec.Code) verdict {
	if code == codec.CodeOK {
		return verdict{}
	}
	if code.Delivered() != codec.DeliveredNo { // a hook cannot say that, and sees nothing happen
		code = codec.CodeDenied
	}
	return verdict{code, reasonHook}
}

// maySend asks the hook about a send.
func (s *sender) maySend(m *codec.Send) verdict {
	c := s.conn
	hook := c.loop.eng.cfg.Hooks.Send
	if hook == nil {
		return verdict{}
	}
	e := c.loop.eng
	return hookVerdict(e.hooks.decide("Send", func() codec.Code { return hook(c.session.Identity(), m) }))
}

// mayDeliver asks the hook about a message that is about to be written to a session of this node.
func (h *hooks) mayDeliver(s *routing.Session, d *codec.Deliver) verdict {
	hook := h.eng.cfg.Hooks.Deliver
	if hook == nil {
		return verdict{}
	}
	return hookVerdict(h.decide("Deliver", func() codec.Code { return hook(s.ID(), s.Identity(), d) }))
}

// undelivered tells the hook of a message that ends here, if it was not delivered.
func (h *hooks) undelivered(d *codec.Deliver, code codec.Code) {
	if hook := h.eng.cfg.Hooks.Undeliverable; hook != nil && code.Delivered() == codec.DeliveredNo {
		h.onLoop("Undeliverable", func() { hook(d, code) })
	}
}

// unsent is undelivered for a message that was not made into a deliver yet.
func (h *hooks) unsent(m *codec.Send, code codec.Code) {
	if h.eng.cfg.Hooks.Undeliverable != nil {
		h.undelivered(&codec.Deliver{To: m.To, From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Payload: m.Payload}, code)
	}
}

// unreturned is undelivered for a message that came back and goes nowhere else.
func (h *hooks) unreturned(f *codec.Forward, code codec.Code) {
	if h.eng.cfg.Hooks.Undeliverable != nil {
		d := f.Deliver
		d.Flags &= knownFlags
		h.undelivered(&d, code)
	}
}
