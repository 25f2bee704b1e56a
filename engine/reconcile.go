package engine

import (
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// The registry may say what was true once: Redis came back from a backup, or with a replica that
// was behind. Upkeep adds what is missing there. This file removes what names this node and is
// untrue (S27).
//
// One node at a time reads the registry, and passes to each other node the entries that name it. A
// node compares an entry with its own tables only after the registry was read, and removes exactly
// that entry: a session that attaches, or an ID that is bound, at this very moment has another
// serial or epoch. Only a session itself knows all its IDs, for it may be attached at several
// nodes. So before an ID goes, the session is asked to bind all it has again.

const (
	// askPause is the time between a doubt and the question. Another node may have answered a bind
	// just before the doubt arose: by then that answer has reached the session, or the connection
	// is dead.
	askPause = 3 * time.Second
	// answerTime is how long a session has to bind all it has again, once it was asked. After a
	// loss, the registry gives sessions as long (RebuildWindow).
	answerTime = 10 * time.Second
	// maxDoubted bounds the IDs of one session that are in doubt. The others wait for the next
	// time.
	maxDoubted = 1 << 16
	// claimBytes is about how many bytes of IDs one claim frame has.
	claimBytes = 16 << 10
	// maxClaimIDs bounds the IDs of a frame, each of which takes 4 bytes or more.
	maxClaimIDs = 1 << 16
)

// claim is what the registry says of this node.
type claim struct {
	session routing.SessionID
	entry   routing.Presence // the session is attached here; Incarnation 0: it is attached nowhere
	ids     []routing.BoundID
}

// heardClaims takes what the registry says, and passes on what names other nodes.
func (e *Engine) heardClaims(all []routing.Claim) {
	frames := make(map[*link][]byte)
	for i := range all {
		e.heardClaim(&all[i], frames)
	}
	for k, b := range frames {
		l := e.loops[k.handle.Loop]
		l.post(func() {
			// A link with much to write is left out: the next claims come.
			if c := l.linkConn(k.handle); c != nil && c.out.queued() < c.out.maxPending/2 {
				c.out.wroteControl(append(c.out.buf(), b...))
			}
		})
	}
}

func (e *Engine) heardClaim(c *routing.Claim, frames map[*link][]byte) {
	if len(c.At) == 0 { // whoever has the session says so
		e.examine(claim{session: c.Session})
		for _, k := range e.cluster.allLinks() {
			frames[k] = appendClaim(frames[k], c, routing.Presence{})
		}
		return
	}
	for _, p := range e.whoAnswers(c) {
		switch k := e.cluster.linkAt(p); {
		case p.Node == e.cfg.NodeID:
			e.examine(claim{c.Session, p, c.Bound})
		case k != nil:
			frames[k] = appendClaim(frames[k], c, p)
		}
	}
}

// whoAnswers are the nodes that a claim is for, among those that can be asked: all where the
// session is said to be attached, but for its IDs only one.
func (e *Engine) whoAnswers(c *routing.Claim) []routing.Presence {
	var nodes []routing.Presence
	for _, p := range c.At {
		if p.Node == e.cfg.NodeID && p.Incarnation == e.incarnation.Load() || e.cluster.linkAt(p) != nil {
			nodes = append(nodes, p)
		}
	}
	if len(c.Bound) == 0 || len(nodes) == 0 {
		return nodes
	}
	first := nodes[0]
	for _, p := range nodes {
		if p.Node < first.Node {
			first = p
		}
	}
	return []routing.Presence{first}
}

// linkAt returns the link to the node of a presence entry. It returns nil if there is none, or none
// to that incarnation.
func (c *cluster) linkAt(p routing.Presence) *link {
	if c == nil {
		return nil
	}
	if k := c.linkTo(p.Node); k != nil && k.incarnation == p.Incarnation {
		return k
	}
	return nil
}

// allLinks returns the open links.
func (c *cluster) allLinks() []*link {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*link, 0, len(c.links))
	for _, k := range c.links {
		all = append(all, k)
	}
	return all
}

// appendClaim appends frames that say to a node what the registry says of it.
func appendClaim(b []byte, c *routing.Claim, p routing.Presence) []byte {
	ids := make([]codec.IDEpoch, 0, len(c.Bound))
	size := 0
	for _, v := range c.Bound {
		if len(v.ID) == 0 || len(v.ID) > codec.MaxID { // no node has written that; nor must it fill a frame
			continue
		}
		if size > claimBytes {
			b = codec.AppendClaim(b, c.Session[:], p.Incarnation, p.Serial, ids)
			ids, size = ids[:0], 0
		}
		ids = append(ids, codec.IDEpoch{ID: []byte(v.ID), Epoch: v.Epoch})
		size += len(v.ID) + 16
	}
	return codec.AppendClaim(b, c.Session[:], p.Incarnation, p.Serial, ids)
}

// handleClaim takes what another node has read in the registry about this one.
func (k *link) handleClaim(body []byte) error {
	var f codec.Claim
	if err := codec.DecodeClaim(body, maxClaimIDs, &f); err != nil {
		return err
	}
	e := k.cluster.eng
	aboutIDs := f.IDs.Len() > 0
	c := claim{session: routing.SessionID(f.Session), entry: routing.Presence{Node: e.cfg.NodeID, Incarnation: f.Incarnation, Serial: f.Serial}}
	for v, ok := f.IDs.Next(); ok; v, ok = f.IDs.Next() {
		if _, known := e.table.Lookup(v.ID); !known { // as a rule all are, and that is all
			c.ids = append(c.ids, routing.BoundID{ID: string(v.ID), Epoch: v.Epoch})
		}
	}
	if !aboutIDs || len(c.ids) > 0 {
		e.examine(c)
	}
	return nil
}

// examine compares a claim with what this node has. Any goroutine may call it.
func (e *Engine) examine(c claim) {
	e.presences.mu.Lock()
	p := e.presences.all[c.session]
	here := p != nil && !p.left
	named := c.entry.Incarnation != 0
	wrong := p != nil && here != named && len(c.ids) == 0 // the registry lacks the entry, or has one too many
	if wrong {
		p.written = false
	}
	e.presences.mu.Unlock()
	switch {
	case wrong:
		e.writePresence(p)
	case !named || c.entry.Incarnation != e.incarnation.Load():
	case here:
		e.compareIDs(p.session, c.ids)
	case len(c.ids) == 0:
		e.disclaim(c.session, c.entry)
	}
}

// disclaim removes the registry's untrue entry that a session is attached here. If the session is
// attached nowhere else, it ends, unless somebody resumes it within its resume window.
func (e *Engine) disclaim(id routing.SessionID, entry routing.Presence) {
	e.lanes.inSession(id, func() {
		ctx, cancel := e.registryContext()
		defer cancel()
		left, err := e.registry.Detach(ctx, id, entry) // one that has attached by now has a later serial
		if err != nil {
			return // the next claims come
		}
		e.cfg.Logger.Info("the registry had a session here that is not", "session", id, "nodes left", left)
		if left > 0 {
			return
		}
		time.AfterFunc(e.cfg.ResumeWindow, func() {
			e.lanes.inSession(id, func() {
				if !e.attached(id) {
					_, _ = e.endInRegistry(routing.EndOp{Session: id})
				}
			})
		})
	})
}

// compareIDs looks for IDs that the session holds by the registry, and that this node does not
// know.
func (e *Engine) compareIDs(s *routing.Session, ids []routing.BoundID) {
	var byLane [laneCount][]routing.BoundID
	for _, b := range ids {
		if _, known := e.table.Lookup([]byte(b.ID)); !known {
			lane := e.lanes.of([]byte(b.ID))
			byLane[lane] = append(byLane[lane], b)
		}
	}
	for lane, mine := range byLane {
		if len(mine) > 0 {
			e.lanes.should(lane, func() { e.doubtIDs(s, mine) })
		}
	}
}

// doubtIDs asks the registry again, in the lane of the IDs, so that what this node was about to
// bind or unbind is done.
func (e *Engine) doubtIDs(s *routing.Session, ids []routing.BoundID) {
	for ids = e.unknown(ids); len(ids) > 0; {
		batch := ids[:min(len(ids), verifyBatch)]
		ids = ids[len(batch):]
		names := make([]string, len(batch))
		for i, b := range batch {
			names[i] = b.ID
		}
		ctx, cancel := e.registryContext()
		found, err := e.registry.Lookup(ctx, names)
		cancel()
		if err != nil {
			return
		}
		var doubted, over []routing.BoundID
		for i, b := range batch {
			switch {
			case found[i].Binding != routing.Binding{Session: s.ID(), Epoch: b.Epoch}:
			case e.cluster != nil && e.cluster.overs.has([]byte(b.ID), b.Epoch):
				over = append(over, b) // this node knows that it has ended
			default:
				doubted = append(doubted, b)
			}
		}
		e.removeUntrue(s, over)
		if len(doubted) > 0 && e.doubts.add(s, doubted) {
			e.askLater(s)
		}
	}
}

// unknown are those of the IDs that nobody holds at this node.
func (e *Engine) unknown(ids []routing.BoundID) []routing.BoundID {
	var unknown []routing.BoundID
	for _, b := range ids {
		if _, known := e.table.Lookup([]byte(b.ID)); !known {
			unknown = append(unknown, b)
		}
	}
	return unknown
}

// doubts are IDs that, by the registry, a session at this node holds, and that this node does not
// know.
type doubts struct {
	askPause, answerTime time.Duration // static

	mu  sync.Mutex
	all map[*routing.Session]*doubt // guarded by mu
}

// doubt is those of one session. All is guarded by doubts.mu.
type doubt struct {
	ids   []routing.BoundID // the session is asked about
	asked bool              // the question has gone out
	later []routing.BoundID // it is asked about after that
}

// add notes IDs. It reports whether the session has to be asked.
func (d *doubts) add(s *routing.Session, ids []routing.BoundID) (ask bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = make(map[*routing.Session]*doubt)
	}
	of := d.all[s]
	if of == nil {
		of = new(doubt)
		d.all[s], ask = of, true
	}
	to := &of.ids
	if of.asked {
		to = &of.later
	}
	*to = append(*to, ids[:min(len(ids), maxDoubted-len(*to))]...)
	return ask
}

// ask notes that the question goes out.
func (d *doubts) ask(s *routing.Session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[s].asked = true
}

// answered returns the IDs that a session was asked about. It reports whether it has to be asked
// about others.
func (d *doubts) answered(s *routing.Session) (ids []routing.BoundID, again bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	of := d.all[s]
	if again = len(of.later) > 0; again {
		d.all[s] = &doubt{ids: of.later}
	} else {
		delete(d.all, s)
	}
	return of.ids, again
}

func (e *Engine) askLater(s *routing.Session) {
	time.AfterFunc(e.doubts.askPause, func() { e.askForAll(s) })
}

// askForAll asks a session for all its bindings. The session does not hold IDs that it does not
// name in reply.
func (e *Engine) askForAll(s *routing.Session) {
	e.doubts.ask(s)
	failures := e.registry.failures()
	handles := s.Handles()
	if len(handles) == 0 {
		e.heardAll(s, false)
		return
	}
	h := handles[0]
	l := e.loops[h.Loop]
	l.post(func() {
		c := l.conn(h)
		switch {
		case c == nil || c.state != stateOpen:
			e.heardAll(s, false)
			return
		case c.local != nil: // what it holds is all in the table
			e.heardAll(s, true)
			return
		}
		c.out.wroteControl(codec.AppendReassert(c.out.buf(), 0))
		asked := l.now
		time.AfterFunc(e.doubts.answerTime, func() {
			l.post(func() {
				// Only the connection that was asked can answer. A client that is stopped, or a
				// registry that took no binds, is no answer.
				c := l.conn(h)
				alive := c != nil && c.state == stateOpen && !c.left && !c.live.steppedBack && c.live.lastFrame > asked
				e.heardAll(s, alive && e.registry.failures() == failures)
			})
		})
	})
}

// heardAll ends doubts: after an answer, what is not in the table goes from the registry.
func (e *Engine) heardAll(s *routing.Session, answered bool) {
	ids, again := e.doubts.answered(s)
	if answered {
		var byLane [laneCount][]routing.BoundID
		for _, b := range ids {
			lane := e.lanes.of([]byte(b.ID))
			byLane[lane] = append(byLane[lane], b)
		}
		for lane, mine := range byLane {
			if len(mine) > 0 {
				e.lanes.must(lane, func() { e.removeUntrue(s, e.unknown(mine)) })
			}
		}
	}
	if again {
		e.askLater(s)
	}
}

// removeUntrue removes bindings that their session does not hold, in the lane of the IDs. The other
// nodes hear of it, as of an unbind: one of them may have the binding in its table, and would tell
// the registry again.
func (e *Engine) removeUntrue(s *routing.Session, ids []routing.BoundID) {
	for len(ids) > 0 {
		batch := ids[:min(len(ids), verifyBatch)]
		ids = ids[len(batch):]
		ops := make([]routing.UnbindOp, len(batch))
		for i, b := range batch {
			ops[i] = routing.UnbindOp{ID: b.ID, Session: s.ID(), Epoch: b.Epoch}
		}
		ctx, cancel := e.registryContext()
		results, err := e.registry.Unbind(ctx, ops)
		cancel()
		if err != nil {
			return // the next claims come
		}
		var removed []routing.UnbindOp
		for i, r := range results {
			if r.Removed {
				removed = append(removed, ops[i])
				e.watcher.unbound(ops[i].ID, ops[i].Epoch)
			}
		}
		e.released(s, removed)
		if len(removed) > 0 {
			e.cfg.Logger.Info("the registry had bindings that their session does not hold", "session", s.ID(), "ids", len(removed))
		}
	}
}
