package engine

import (
	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

// When a connection or a link ends, all that waits for an ack of it ends too, and so does all that
// a connection has sent and waits for. That can be as many entries as the loop may hold. What is
// more than a step waits in the loop's endings, which get a share of each iteration. An entry whose
// turn has yet to come is pending until then: its ack may still come, or its deadline.

// ending is what ends together. Nothing is armed with its lists any more.
type ending struct {
	list  ackmgr.List            // the one that ends now
	lists map[uint64]ackmgr.List // those that follow: a link has one for each session
	slot  int64                  // of the connection whose list it is; -1: it is none's

	link     *link // or a link, of whose other end these sessions are
	sessions map[routing.SessionID]attachment
}

// endings are the pending acks that end together, a step at a time. The loop owns them.
type endings struct {
	loop *loop // static

	all []ending // pending acks that have to end, the next ones first
	// linkLists is what waits for sessions at the other end of a link, by session.
	linkLists map[routing.Handle]map[uint64]ackmgr.List
	// sweeps is what is left of lists whose sessions have lost a connection, see linkGone.
	sweeps  map[uint64]sweep
	sweepNo uint64
}

// endList ends the pending acks of a list and gives it back.
func (es *endings) endList(list ackmgr.List) { es.add(ending{list: list, slot: -1}) }

// add ends the first step of it, and the rest in the iterations that follow.
func (es *endings) add(e ending) {
	if es.step(&e) {
		es.loop.stats.sliced++
		es.all = append(es.all, e)
	}
}

// step ends up to endingStep entries from a connection and as many that went to it. It reports
// whether there are more.
func (es *endings) step(e *ending) (more bool) {
	l := es.loop
	if e.link != nil {
		return es.detachStep(e)
	}
	for session, list := range e.lists {
		if e.list != 0 {
			break
		}
		delete(e.lists, session)
		e.list = list
	}
	// Its own sends have nobody left to answer (S1); those delivered to it are lost (S5).
	if l.settle.acks.EndOriginSome(e.list, endingStep, l.settle.abandoned) || l.settle.acks.EndDestSome(e.list, endingStep, l.settle.lost) {
		return true
	}
	l.settle.acks.FreeList(e.list)
	e.list = 0
	if e.slot >= 0 {
		l.freeSlot(uint32(e.slot)) // not before: entries name it
	}
	l.pace.worked(1)
	return len(e.lists) > 0
}

// detachStep forgets that some sessions are attached at the other end of a link.
func (es *endings) detachStep(e *ending) (more bool) {
	n := 0
	for id, at := range e.sessions {
		if n++; n > endingStep {
			break
		}
		delete(e.sessions, id)
		e.link.detached(id, at.session)
		es.loop.pace.worked(1)
	}
	if len(e.sessions) > 0 {
		return true
	}
	e.link.cluster.detaching.Add(-1)
	return false
}

// resume goes on with what has to end, as far as its share of the iteration allows.
func (es *endings) resume() {
	l := es.loop
	if len(es.all) == 0 {
		return
	}
	l.pace.part(endingShare)
	for len(es.all) > 0 && !l.pace.full {
		es.endFirst()
	}
}

// endAll ends all that has to end, however long it takes.
func (es *endings) endAll() {
	for len(es.all) > 0 {
		es.endFirst()
	}
}

// endFirst ends a step of the first ending. To answer senders can close connections, which makes
// more.
func (es *endings) endFirst() {
	e := es.all[0]
	if es.step(&e) {
		es.all[0] = e
		return
	}
	es.all[0] = ending{}
	es.all = es.all[1:]
}

// expire ends acks that are past their deadlines, and reports whether there are more.
func (s *settling) expire() (more bool) {
	l := s.loop
	for more = true; more && !l.pace.full; {
		more = s.acks.AdvanceSome(l.now, endingStep, s.expired)
		l.pace.worked(endingStep / scanPerUnit) // what moved towards its end, and did not end
	}
	return more
}

// linkList returns the list of the entries that wait for a session at the other end of a link.
func (es *endings) linkList(h routing.Handle, session uint64) ackmgr.List {
	lists := es.linkLists[h]
	list, ok := lists[session]
	if !ok {
		if lists == nil {
			lists = make(map[uint64]ackmgr.List)
			es.linkLists[h] = lists
		}
		list = es.loop.settle.acks.NewList()
		lists[session] = list
	}
	return list
}

// endLink ends what waits for any session at the other end of a link that has ended.
func (es *endings) endLink(h routing.Handle) {
	if lists, ok := es.linkLists[h]; ok {
		delete(es.linkLists, h)
		es.add(ending{lists: lists, slot: -1})
	}
	for no, s := range es.sweeps {
		if s.link == h {
			es.endSweep(no)
		}
	}
}

// sweep is a list that ends as soon as all that may still come back has.
type sweep struct {
	link routing.Handle
	list ackmgr.List
}

// sweepPing tells pings of sweeps from those of heartbeats, which carry a time; the loop stands
// above sweepLoop.
const (
	sweepPing = 1 << 63
	sweepLoop = 40
)

// linkGone begins to end what waits for a session that has lost a connection at the other end of a
// link (S5). Forwards on their way there at this moment come back, and may go to where the session
// is now: so what waits is lost when a ping, sent behind the last of them, has its pong, and
// nothing that comes later is touched.
func (es *endings) linkGone(h routing.Handle, session uint64) {
	l := es.loop
	list, ok := es.linkLists[h][session]
	if !ok {
		return
	}
	delete(es.linkLists[h], session)
	if l.settle.acks.Empty(list) {
		l.settle.acks.FreeList(list)
		return
	}
	es.sweepNo++
	no := sweepPing | uint64(l.idx)<<sweepLoop | es.sweepNo
	es.sweeps[no] = sweep{h, list}
	l.links.send(h, codec.AppendPing(l.scratch.control[:0], no))
}

// handlePong takes the pong of a sweep to its loop.
func (k *link) handlePong(body []byte) error {
	c := k.conn
	no, err := codec.DecodePong(body)
	if loop := uint16(no &^ sweepPing >> sweepLoop); err == nil && no&sweepPing != 0 && int(loop) < len(c.loop.eng.loops) {
		c.loop.mail.notify(loop, note{kind: noteSwept, seq: no})
	}
	return err
}

func (es *endings) endSweep(no uint64) {
	if s, ok := es.sweeps[no]; ok {
		delete(es.sweeps, no)
		es.endList(s.list)
	}
}
