package engine

import (
	"distmsg/ackmgr"
	"distmsg/routing"
)

// When a connection or a link ends, all that waits for an ack of it ends too, and so does all that a
// connection has sent and waits for. That can be as many entries as the loop may hold. What is more
// than a step waits in the loop's endings, which get a share of each iteration. An entry whose turn has
// yet to come is pending until then: its ack may still come, or its deadline.

// ending is what ends together. Nothing is armed with its lists any more.
type ending struct {
	list  ackmgr.List            // the one that ends now
	lists map[uint64]ackmgr.List // those that follow: a link has one for each session
	slot  int64                  // of the connection whose list it is; -1: it is none's

	link     *link // or a link, of whose other end these sessions are
	sessions map[routing.SessionID]attachment
}

// endList ends the pending acks of a list and gives it back.
func (l *loop) endList(list ackmgr.List) { l.endSoon(ending{list: list, slot: -1}) }

// endSoon ends the first step of it, and the rest in the iterations that follow.
func (l *loop) endSoon(e ending) {
	if l.endStep(&e) {
		l.stats.sliced++
		l.endings = append(l.endings, e)
	}
}

// endStep ends up to endingStep entries from a connection and as many that went to it. It reports
// whether there are more.
func (l *loop) endStep(e *ending) (more bool) {
	if e.link != nil {
		return l.detachStep(e)
	}
	for session, list := range e.lists {
		if e.list != 0 {
			break
		}
		delete(e.lists, session)
		e.list = list
	}
	// Its own sends have nobody left to answer (S1); those delivered to it are lost (S5).
	if l.acks.EndOriginSome(e.list, endingStep, l.abandoned) || l.acks.EndDestSome(e.list, endingStep, l.lost) {
		return true
	}
	l.acks.FreeList(e.list)
	e.list = 0
	if e.slot >= 0 {
		l.freeSlot(uint32(e.slot)) // not before: entries name it
	}
	l.worked(1)
	return len(e.lists) > 0
}

// detachStep forgets that some sessions are attached at the other end of a link.
func (l *loop) detachStep(e *ending) (more bool) {
	n := 0
	for id, at := range e.sessions {
		if n++; n > endingStep {
			break
		}
		delete(e.sessions, id)
		e.link.detached(id, at.session)
		l.worked(1)
	}
	if len(e.sessions) > 0 {
		return true
	}
	e.link.cluster.detaching.Add(-1)
	return false
}

// goOnEnding goes on with what has to end, as far as its share of the iteration allows.
func (l *loop) goOnEnding() {
	if len(l.endings) == 0 {
		return
	}
	l.part(endingShare)
	for len(l.endings) > 0 && !l.full {
		l.endFirst()
	}
}

// endAll ends all that has to end, however long it takes.
func (l *loop) endAll() {
	for len(l.endings) > 0 {
		l.endFirst()
	}
}

// endFirst ends a step of the first ending. To answer senders can close connections, which makes more.
func (l *loop) endFirst() {
	e := l.endings[0]
	if l.endStep(&e) {
		l.endings[0] = e
		return
	}
	l.endings[0] = ending{}
	l.endings = l.endings[1:]
}

// expireAcks ends acks that are past their deadlines, and reports whether there are more.
func (l *loop) expireAcks() (more bool) {
	for more = true; more && !l.full; {
		more = l.acks.AdvanceSome(l.now, endingStep, l.expired)
		l.worked(endingStep / scanPerUnit) // what moved towards its end, and did not end
	}
	return more
}
