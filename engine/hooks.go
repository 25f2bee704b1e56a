package engine

import (
	"context"

	"distmsg/codec"
	"distmsg/routing"
)

// Hooks are optional functions that the engine calls. A nil hook costs nothing. If a hook panics,
// the node logs the stack, refuses what it asked the hook for, without the panic's text, and
// continues. It does the same if a hook ends its goroutine (runtime.Goexit, testing.T.Fatal),
// except on a loop: the loop would end, so the process panics.
//
// A hook that is marked "on a loop" delays every connection of that loop while it runs: it must not
// block, nor call anything that waits for the engine. Its byte arguments are views into the loop's
// buffers: they are valid only during the call. Do not change them, and copy what you keep. The
// engine calls a hook from several goroutines at once.
//
// A lane is one of a few queues that the engine handles off the loops. Each has the binds and
// lookups of its part of the IDs, or sessions that begin and end, one after the other. The identity
// that a hook gets is Identity.Name.
type Hooks struct {
	// Authenticate turns a login into an identity, or refuses it with an error whose text goes to
	// the client. With an error that is or wraps ErrRetryLogin, it asks the client to try again
	// later. It runs on a goroutine of its own and may block. The connection waits for it, but at
	// most for Config.IdleTimeout. ctx ends then and when the engine stops, and Run does not return
	// before the hook has returned.
	Authenticate func(ctx context.Context, l Login) (Identity, error)
	// Bind refuses an ID to an identity with an error, whose text goes to the client. The text is
	// cut to 255 bytes, and texts beyond 32 KiB for all IDs of one bind are left out. It runs on
	// the ID's lane and may block. Then later binds of the same IDs wait, and so do those of other
	// IDs that share the lane.
	Bind func(identity, id string) error
	// Send decides on a message before it is routed, at the node that its sender is attached to:
	// codec.CodeOK lets it pass, any other code is its outcome. Usually that is CodeDenied. The
	// engine uses CodeDenied in place of a code that does not mean "not delivered". On a loop.
	Send func(identity string, m *codec.Send) codec.Code
	// Deliver decides, in the same way, on a message that is about to be written to a session of
	// this node, wherever it came from. It sees each message once, and once more if the message
	// comes back because its ID has moved. A message that it lets pass can still fail to be
	// written; then Undeliverable is called. On a loop, which need not be the receiver's.
	Deliver func(session routing.SessionID, identity string, m *codec.Deliver) codec.Code
	// Undeliverable is called for each message that ends at this node without having been
	// delivered, with its outcome: a code for which Code.Delivered says no. Token and Epoch of m
	// are undefined. It is not called for timeout, lost and rejected, because the receiver may have
	// seen the message and the node keeps no copy. It is not called for messages whose sender's
	// connection ends while they wait for the registry. And it is not called for messages without
	// ack that the receiver's session has returned, because they may have lost their content, and
	// nobody can tell whether it is unchanged. On a loop.
	Undeliverable func(m *codec.Deliver, code codec.Code)
	// Kick is called when a session of this node has lost an ID to another binding. epoch is that
	// of the other binding. A session that is attached to several nodes loses the ID at each of
	// them. It runs on the ID's lane and may block only briefly.
	Kick func(session routing.SessionID, identity, id string, epoch uint64)
	// SessionUp and SessionDown are called for sessions that began and ended here (not for their
	// connections, and not for a session that moved to or from another node). A session that is
	// attached to several nodes ends at each of them. They are not called for sessions that exist
	// when the engine stops, because these may continue at another node. They run on the session's
	// lane and may block only briefly.
	SessionUp, SessionDown func(session routing.SessionID, identity string)
}

// hookVerdict is what a hook's code makes of a message.
func hookVerdict(code codec.Code) verdict {
	if code == codec.CodeOK {
		return verdict{}
	}
	if code.Delivered() != codec.DeliveredNo { // only this is true before a delivery
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
		h.undelivered(&codec.Deliver{To: m.To, From: m.From, TTL: m.TTL, Flags: m.Flags & knownFlags, Payload: m.Payload, Trace: m.Trace}, code)
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
