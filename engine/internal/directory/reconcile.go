package directory

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
	// MaxClaimIDs bounds the IDs of a frame, each of which takes 4 bytes or more.
	MaxClaimIDs = 1 << 16
)

// claim is what the registry says of this node.
type claim struct {
	session routing.SessionID
	entry   routing.Presence // the session is attached here; Incarnation 0: it is attached nowhere
	ids     []routing.BoundID
}

// claims compares what the registry says of this node with what is so.
type claims struct {
	dir    *Directory // static
	doubts doubts
}

// heard takes what the registry says, and passes on what names other nodes.
func (cl *claims) heard(all []routing.Claim) {
	frames := make(map[routing.Handle][]byte)
	for i := range all {
		cl.heardOne(&all[i], frames)
	}
	for link, b := range frames {
		cl.dir.peers.TellOne(link, b) // if it is left out, the next claims come
	}
}

func (cl *claims) heardOne(c *routing.Claim, frames map[routing.Handle][]byte) {
	if len(c.At) == 0 { // whoever has the session says so
		cl.examine(claim{session: c.Session})
		for _, link := range cl.links() {
			frames[link] = appendClaim(frames[link], c, routing.Presence{})
		}
		return
	}
	for _, p := range cl.whoAnswers(c) {
		link, linked := cl.linkTo(p)
		switch {
		case p.Node == cl.dir.cfg.Node:
			cl.examine(claim{c.Session, p, c.Bound})
		case linked:
			frames[link] = appendClaim(frames[link], c, p)
		}
	}
}

func (cl *claims) links() []routing.Handle {
	if cl.dir.alone() {
		return nil
	}
	return cl.dir.peers.Links()
}

func (cl *claims) linkTo(p routing.Presence) (link routing.Handle, ok bool) {
	if cl.dir.alone() {
		return link, false
	}
	return cl.dir.peers.LinkTo(p)
}

// whoAnswers are the nodes that a claim is for, among those that can be asked: all where the
// session is said to be attached, but for its IDs only one.
func (cl *claims) whoAnswers(c *routing.Claim) []routing.Presence {
	var nodes []routing.Presence
	for _, p := range c.At {
		_, linked := cl.linkTo(p)
		if p.Node == cl.dir.cfg.Node && p.Incarnation == cl.dir.cfg.Incarnation() || linked {
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

// appendClaim appends frames that say to a node what the registry says of it.
func appendClaim(b []byte, c *routing.Claim, p routing.Presence) []byte {
	ids := make([]codec.IDEpoch, 0, len(c.Bound))
	size := 0
	for _, v := range c.Bound {
		// no node has written that; nor must it fill a frame
		if len(v.ID) == 0 || len(v.ID) > codec.MaxID {
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

// HeardClaim takes what another node has read in the registry about this one. f ends with the call.
func (d *Directory) HeardClaim(f *codec.Claim) {
	aboutIDs := f.IDs.Len() > 0
	c := claim{session: routing.SessionID(f.Session), entry: routing.Presence{Node: d.cfg.Node, Incarnation: f.Incarnation, Serial: f.Serial}}
	for v, ok := f.IDs.Next(); ok; v, ok = f.IDs.Next() {
		if _, known := d.table.Lookup(v.ID); !known { // as a rule all are, and that is all
			c.ids = append(c.ids, routing.BoundID{ID: string(v.ID), Epoch: v.Epoch})
		}
	}
	if !aboutIDs || len(c.ids) > 0 {
		d.claims.examine(c)
	}
}

// examine compares a claim with what this node has. Any goroutine may call it.
func (cl *claims) examine(c claim) {
	cl.dir.presences.mu.Lock()
	p := cl.dir.presences.all[c.session]
	here := p != nil && !p.left
	named := c.entry.Incarnation != 0
	// the registry lacks the entry, or has one too many
	wrong := p != nil && here != named && len(c.ids) == 0
	if wrong {
		p.written = false
	}
	cl.dir.presences.mu.Unlock()
	switch {
	case wrong:
		cl.dir.presences.write(p)
	case !named || c.entry.Incarnation != cl.dir.cfg.Incarnation():
	case here:
		cl.compareIDs(p.session, c.ids)
	case len(c.ids) == 0:
		cl.disclaim(c.session, c.entry)
	}
}

// disclaim removes the registry's untrue entry that a session is attached here. If the session is
// attached nowhere else, it ends, unless somebody resumes it within its resume window.
func (cl *claims) disclaim(id routing.SessionID, entry routing.Presence) {
	cl.dir.lanes.inSession(id, func() {
		ctx, cancel := cl.dir.registryContext()
		defer cancel()
		// one that has attached by now has a later serial
		left, err := cl.dir.registry.Detach(ctx, id, entry)
		if err != nil {
			return // the next claims come
		}
		cl.dir.cfg.Log.Info("removed from the registry: a session that is not attached here", "session", id, "nodes left", left)
		if left > 0 {
			return
		}
		time.AfterFunc(cl.dir.cfg.ResumeWindow, func() {
			cl.dir.lanes.inSession(id, func() {
				if !cl.dir.attached(id) {
					_, _ = cl.dir.sessions.endInRegistry(routing.EndOp{Session: id})
				}
			})
		})
	})
}

// compareIDs looks for IDs that the session holds by the registry, and that this node does not
// know.
func (cl *claims) compareIDs(s *routing.Session, ids []routing.BoundID) {
	var byLane [laneCount][]routing.BoundID
	for _, b := range ids {
		if _, known := cl.dir.table.Lookup([]byte(b.ID)); !known {
			lane := cl.dir.lanes.of([]byte(b.ID))
			byLane[lane] = append(byLane[lane], b)
		}
	}
	for lane, mine := range byLane {
		if len(mine) > 0 {
			cl.dir.lanes.should(lane, func() { cl.doubtIDs(s, mine) })
		}
	}
}

// doubtIDs asks the registry again, in the lane of the IDs, so that what this node was about to
// bind or unbind is done.
func (cl *claims) doubtIDs(s *routing.Session, ids []routing.BoundID) {
	for ids = cl.unknown(ids); len(ids) > 0; {
		batch := ids[:min(len(ids), verifyBatch)]
		ids = ids[len(batch):]
		names := make([]string, len(batch))
		for i, b := range batch {
			names[i] = b.ID
		}
		ctx, cancel := cl.dir.registryContext()
		found, err := cl.dir.registry.Lookup(ctx, names)
		cancel()
		if err != nil {
			return
		}
		var doubted, over []routing.BoundID
		for i, b := range batch {
			switch {
			case found[i].Binding != routing.Binding{Session: s.ID(), Epoch: b.Epoch}:
			case !cl.dir.alone() && cl.dir.news.overs.has([]byte(b.ID), b.Epoch):
				over = append(over, b) // this node knows that it has ended
			default:
				doubted = append(doubted, b)
			}
		}
		cl.removeUntrue(s, over)
		if len(doubted) > 0 && cl.doubts.add(s, doubted) {
			cl.askLater(s)
		}
	}
}

// unknown are those of the IDs that nobody holds at this node.
func (cl *claims) unknown(ids []routing.BoundID) []routing.BoundID {
	var unknown []routing.BoundID
	for _, b := range ids {
		if _, known := cl.dir.table.Lookup([]byte(b.ID)); !known {
			unknown = append(unknown, b)
		}
	}
	return unknown
}

// doubts are IDs that, by the registry, a session at this node holds, and that this node does not
// know.
type doubts struct {
	askPause, answerTime time.Duration // static after Start

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

func (cl *claims) askLater(s *routing.Session) {
	time.AfterFunc(cl.doubts.askPause, func() { cl.askForAll(s) })
}

// askForAll asks a session for all its bindings. The session does not hold IDs that it does not
// name in reply.
func (cl *claims) askForAll(s *routing.Session) {
	cl.doubts.ask(s)
	failures := cl.dir.registry.failureCount()
	handles := s.Handles()
	if len(handles) == 0 {
		cl.heardAll(s, false)
		return
	}
	cl.dir.loops.AskForAll(handles[0], cl.doubts.answerTime, func(r Reply) {
		// A registry that took no binds makes a reply no answer.
		cl.heardAll(s, r == Replied && cl.dir.registry.failureCount() == failures)
	})
}

// heardAll ends doubts: after an answer, what is not in the table goes from the registry.
func (cl *claims) heardAll(s *routing.Session, answered bool) {
	ids, again := cl.doubts.answered(s)
	if answered {
		var byLane [laneCount][]routing.BoundID
		for _, b := range ids {
			lane := cl.dir.lanes.of([]byte(b.ID))
			byLane[lane] = append(byLane[lane], b)
		}
		for lane, mine := range byLane {
			if len(mine) > 0 {
				cl.dir.lanes.must(lane, func() { cl.removeUntrue(s, cl.unknown(mine)) })
			}
		}
	}
	if again {
		cl.askLater(s)
	}
}

// removeUntrue removes bindings that their session does not hold, in the lane of the IDs. The other
// nodes hear of it, as of an unbind: one of them may have the binding in its table, and would tell
// the registry again.
func (cl *claims) removeUntrue(s *routing.Session, ids []routing.BoundID) {
	for len(ids) > 0 {
		batch := ids[:min(len(ids), verifyBatch)]
		ids = ids[len(batch):]
		ops := make([]routing.UnbindOp, len(batch))
		for i, b := range batch {
			ops[i] = routing.UnbindOp{ID: b.ID, Session: s.ID(), Epoch: b.Epoch}
		}
		ctx, cancel := cl.dir.registryContext()
		results, err := cl.dir.registry.Unbind(ctx, ops)
		cancel()
		if err != nil {
			return // the next claims come
		}
		var removed []routing.UnbindOp
		for i, r := range results {
			if r.Removed {
				removed = append(removed, ops[i])
				cl.dir.watcher.unbound(ops[i].ID, ops[i].Epoch)
			}
		}
		cl.dir.news.released(s, removed)
		if len(removed) > 0 {
			cl.dir.cfg.Log.Info("removed from the registry: bindings that their session does not hold", "session", s.ID(), "ids", len(removed))
		}
	}
}
