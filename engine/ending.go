package engine

import (
	"distmsg/ackmgr"
	"distmsg/routing"
)

// When a connection or a link ends, every send that waits for its ack ends too. So does every send
// that a connection has made and that is still pending. That can be as many entries as the loop may
// hold. The loop ends them in steps. What is left after the first step waits in the loop's endings,
// which get a share of each iteration. Until its turn comes, an entry stays pending: its ack may
// still arrive, or its deadline may pass.

// ending is a group of entries that end together. No new entry joins its lists.
type ending struct {
	list  ackmgr.List            // the list that ends now
	lists map[uint64]ackmgr.List // the lists that follow; a link has one for each session
	slot  int64                  // of the connection that owns the list; -1 if none does

	link     *link // set if a link has ended; sessions are those at its other end
	sessions map[routing.SessionID]attachment
}

// endings holds the pending acks that end together, a step at a time. The loop owns it.
type endings struct {
	loop *loop // static

	all []ending // pending acks that have to end, the next ones first
	// linkLists holds the entries that wait for sessions at the other end of a link, by session.
	linkLists map[routing.Handle]map[uint64]ackmgr.List
}

// endList ends the pending acks of a list and frees the list.
func (es *endings) endList(list ackmgr.List) { es.add(ending{list: list, slot: -1}) }

// add ends the first step of e now, and the rest in later iterations.
func (es *endings) add(e ending) {
	if es.step(&e) {
		es.loop.stats.sliced++
		es.all = append(es.all, e)
	}
}

// step ends up to endingStep entries that came from a connection and as many that went to it. It
// reports whether there are more.
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
	// A connection's own sends have nobody left to get an outcome (S1). Messages that were
	// delivered to it end lost (S5).
	if l.settle.acks.EndOriginSome(e.list, endingStep, l.settle.abandoned) || l.settle.acks.EndDestSome(e.list, endingStep, l.settle.lost) {
		return true
	}
	l.settle.acks.FreeList(e.list)
	e.list = 0
	if e.slot >= 0 {
		// Free the slot last: the entries refer to it.
		l.freeSlot(uint32(e.slot))
	}
	l.pace.worked(1)
	return len(e.lists) > 0
}

// detachStep forgets some of the sessions that were attached at the other end of a link. It reports
// whether there are more.
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

// resume continues with the endings, as far as their share of the iteration allows.
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

// endAll ends everything that has to end, however long it takes.
func (es *endings) endAll() {
	for len(es.all) > 0 {
		es.endFirst()
	}
}

// endFirst does one step of the first ending. When a sender gets an outcome, its connection may
// close, which adds another ending.
func (es *endings) endFirst() {
	e := es.all[0]
	if es.step(&e) {
		es.all[0] = e
		return
	}
	es.all[0] = ending{}
	es.all = es.all[1:]
}

// expire ends entries that are past their deadlines. It reports whether there are more.
func (s *settling) expire() (more bool) {
	l := s.loop
	for more = true; more && !l.pace.full; {
		more = s.acks.AdvanceSome(l.now, endingStep, s.expired)
		// Count the entries that moved closer to their deadline and did not end.
		l.pace.worked(endingStep / scanPerUnit)
	}
	return more
}

// linkList returns the list of entries that wait for a session at the other end of a link.
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

// endLink ends every entry that waits for a session at the other end of a link that has ended.
func (es *endings) endLink(h routing.Handle) {
	if lists, ok := es.linkLists[h]; ok {
		delete(es.linkLists, h)
		es.add(ending{lists: lists, slot: -1})
	}
	es.loop.echoes.linkEnded(h)
}

// linkGone begins to end the entries that wait for a session that has lost a connection at the
// other end of a link (S5). Forwards that are on their way there come back, and the node may send
// them to where the session is now. So the loop waits for an echo of the link. The entries that are
// left then end lost. Later messages are not affected.
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
	l.echoes.ask(h, func() { es.endList(list) })
}
