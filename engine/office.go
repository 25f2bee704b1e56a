package engine

import (
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// The directory does the work that may wait for the registry, on its own goroutines. This file is
// how it gives work to the loops and the links. It posts everything to a loop as a task, so nobody
// waits.

// officeConfig returns the directory's configuration.
func (e *Engine) officeConfig(own bool) directory.Config {
	c := &e.cfg
	cfg := directory.Config{
		Node: c.NodeID, Registry: c.Registry, Own: own, Table: e.table, Log: c.Logger.With(component, "sessions"), Loops: c.Loops,
		Clock: e.clock, Incarnation: e.incarnation.Load, Gone: e.Gone,
		Secrets: e.secrets.resume, ResumeWindow: c.ResumeWindow, IdleTimeout: c.IdleTimeout, LoopGap: c.LoopGap,
		VerifyPeriod: c.VerifyPeriod, WatchPeriod: c.WatchPeriod,
		MaxSessionIDs: c.MaxSessionIDs, MaxNodeIDs: c.MaxNodeIDs, MaxRoutes: c.MaxRoutes,
		MaxWatched: c.MaxWatched, MaxNodeWatched: c.MaxNodeWatched,
		TakeoverInterval: c.TakeoverInterval, TakeoverBurst: c.TakeoverBurst,
		Bind: c.Hooks.Bind, Kick: c.Hooks.Kick, SessionUp: c.Hooks.SessionUp, SessionDown: c.Hooks.SessionDown,
	}
	if c.Membership != nil {
		cfg.Remote = routing.NewTable()
	}
	return cfg
}

// hall is the event loops as the directory sees them.
type hall struct{ eng *Engine }

var _ directory.Loops = hall{}

// eachConn calls f for each connection, on its loop.
func (h hall) eachConn(conns []routing.Handle, f func(*conn)) {
	for _, at := range conns {
		l := h.eng.loops[at.Loop]
		l.post(func() {
			if c := l.conn(at); c != nil {
				f(c)
			}
		})
	}
}

func (h hall) Kick(conns []routing.Handle, id string, epoch uint64) {
	h.eachConn(conns, func(c *conn) { c.out.wroteControl(codec.AppendKick(c.out.buf(), id, epoch)) })
}

func (h hall) Close(conns []routing.Handle, f codec.Fault, detail string) {
	h.eachConn(conns, func(c *conn) { c.close(f, detail) })
}

func (h hall) CloseAside(session routing.SessionID, f codec.Fault, detail string) {
	if h.eng.aside.Load() == 0 {
		return
	}
	for _, l := range h.eng.loops {
		l.post(func() {
			for _, c := range slices.Clone(l.aside[session]) {
				c.close(f, detail)
			}
		})
	}
}

func (h hall) Answer(r *directory.Request) {
	l := h.eng.loops[r.Conn.Loop]
	switch {
	case r.Kind == 0 && !r.Charged: // nobody waits for the answer
	case r.Kind == codec.KindUnbound && len(h.eng.loops) > 1:
		// Messages for the IDs that other loops have under way must arrive before "unbound".
		h.eng.mailRounds.after(func() { l.answerRequest(r) })
	default:
		l.answerRequest(r)
	}
}

func (h hall) Resolved(loop int, all []directory.Resolved) {
	l := h.eng.loops[loop]
	words := make([]*resolution, len(all))
	for i, r := range all {
		words[i] = &resolution{id: r.ID, code: r.Code, stale: r.Stale}
	}
	l.post(func() { l.park.resolved(words) })
}

func (h hall) SendersKnown(loop int, all []directory.Holder) {
	l := h.eng.loops[loop]
	l.post(func() {
		for _, w := range all {
			l.park.senderKnown(w)
		}
	})
}

func (h hall) TellChanges(conn routing.Handle) {
	l := h.eng.loops[conn.Loop]
	l.post(func() { l.tellChanges(conn) })
}

func (h hall) Reassert(at routing.Handle, within time.Duration) {
	h.eachConn([]routing.Handle{at}, func(c *conn) {
		c.out.wroteControl(codec.AppendReassert(c.out.buf(), uint64(within.Milliseconds())))
	})
}

func (h hall) AskForAll(at routing.Handle, answerTime time.Duration, heard func(directory.Reply)) {
	l := h.eng.loops[at.Loop]
	l.post(func() {
		c := l.conn(at)
		if c == nil || c.state != stateOpen {
			heard(directory.NoReply)
			return
		}
		c.out.wroteControl(codec.AppendReassert(c.out.buf(), 0))
		asked := l.now
		// An answer may come in the same millisecond.
		c.live.lastFrame = min(c.live.lastFrame, asked-1)
		time.AfterFunc(answerTime, func() {
			l.post(func() {
				// Only the connection that was asked can answer. A stopped client does not.
				c := l.conn(at)
				if c != nil && c.state == stateOpen && c.standing == inSession && c.live.lastFrame >= asked {
					heard(directory.Replied)
					return
				}
				heard(directory.NoReply)
			})
		})
	})
}

// porch is the links to other nodes as the directory sees them.
type porch struct{ eng *Engine }

var _ directory.Peers = porch{}

func (p porch) LinkTo(at routing.Presence) (link routing.Handle, ok bool) {
	k := p.eng.cluster.linkTo(at.Node)
	if k == nil || k.incarnation != at.Incarnation {
		return link, false
	}
	return k.handle, true
}

func (p porch) Links() []routing.Handle { return slices.Clone(*p.eng.cluster.open.Load()) }

func (p porch) Tell(frames []byte) {
	l := p.eng.loops[0]
	l.post(func() { l.links.sendAll(frames) })
}

func (p porch) TellOne(link routing.Handle, frames []byte) {
	l := p.eng.loops[link.Loop]
	l.post(func() {
		if c := l.links.conn(link); c != nil && c.out.queued() < c.out.maxPending/2 {
			c.out.wroteControl(append(c.out.buf(), frames...))
		}
	})
}
