package engine

import (
	"log/slog"

	"distmsg/codec"
	"distmsg/engine/internal/limit"
	"distmsg/internal/asynclog"
)

// component is the attribute that says which part of the node a record is about: links, sessions or
// clients. Records without it are about the node itself.
const component = "component"

// clientLog logs what an operator should know about clients. They can cause these lines as often as
// they like, so each message is logged once a second at most. Any goroutine may use it.
type clientLog struct {
	// static
	eng *Engine
	log *slog.Logger

	seldom asynclog.Seldom
}

func newClientLog(e *Engine) *clientLog {
	return &clientLog{eng: e, log: e.cfg.Logger.With(component, "clients")}
}

func (cl *clientLog) warn(message string, args ...any) {
	cl.seldom.Warn(cl.log, cl.eng.clock(), message, args...)
}

// closing logs that a node closes a connection. An operator should know of clients that break the
// protocol. Links have a line of their own, which says why. Other reasons have lines elsewhere, or
// are usual.
func (cl *clientLog) closing(c *conn, f codec.Fault, kind codec.Kind, detail string) {
	if c.kind == linkConn {
		c.link.why = detail
	} else if breaksProtocol(f) {
		args := append(c.who(), "fault", f, "detail", detail)
		if kind != 0 {
			args = append(args, "kind", kind)
		}
		cl.warn("closed a connection that breaks the protocol", args...)
		return
	}
	cl.log.Debug("connection closed", "remote", c.remote, "fault", f, "detail", detail)
}

// breaksProtocol reports whether only a client with a bug, or an attacker, causes the fault.
func breaksProtocol(f codec.Fault) bool {
	return f <= codec.FaultBadVersion || f == codec.FaultCreditExceeded || f == codec.FaultBadToken
}

// who returns attributes that say whose connection it is. The connection's loop calls it.
func (c *conn) who() []any {
	args := []any{"remote", c.remote}
	if c.session != nil {
		args = append(args, "session", c.session.ID(), "identity", c.session.Identity())
	}
	if c.kind == linkConn {
		args = append(args, "node", c.link.node)
	}
	return args
}

// limitNews says when a loop last logged that a limit was reached, by limit. The loop owns it.
// clientLog is for calls that are rare: a client may reach a limit with each message.
type limitNews struct {
	said [limit.Kinds]int64 // on the loop's time; 0: never
	left [limit.Kinds]int   // how often it was reached since
}

// limitPause is the least time in milliseconds between two lines about one limit.
const limitPause = 1000

// reached logs that a connection has reached a limit.
func (n *limitNews) reached(c *conn, identity string, kind limit.Kind) {
	now := c.loop.now
	if n.said[kind] != 0 && now-n.said[kind] < limitPause {
		n.left[kind]++
		return
	}
	args := []any{"limit", kind.String(), "identity", identity, "remote", c.remote}
	if n.left[kind] > 0 {
		args = append(args, "left_out", n.left[kind])
	}
	n.said[kind], n.left[kind] = max(now, 1), 0
	c.loop.eng.clients.log.Warn("a client has reached a limit, and hears overflow, or to come again later", args...)
}
