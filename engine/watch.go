package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// changesAtOnce is how many changed frames a connection gets in one iteration. More come with the
// next tick.
const changesAtOnce = 4

// changesPause is how many milliseconds pass between the last change that a connection hears and
// the next. Otherwise an ID that many watch and that is bound again and again would cost a write to
// each of them every time (S32).
const changesPause = 100

// watchList holds the IDs that one connection watches. Its loop owns it.
type watchList struct {
	ids   *directory.Watches
	pause int64 // until then the connection hears of no more changes
}

// handleWatch puts the IDs on the list at once, so that the client misses no change, and asks who
// holds them.
func (c *conn) handleWatch(body []byte) {
	var f codec.Watch
	e := c.loop.eng
	if err := codec.DecodeWatch(body, e.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindWatch)
		return
	}
	r := c.newRequest(codec.KindWatched, f.Seq, &f.IDs)
	if !c.mayWatch(r) || !c.mayAsk(r) {
		return
	}
	if c.watchList == nil {
		c.watchList = &watchList{ids: directory.NewWatches(c.handle(), c.session.Identity())}
	}
	c.quota.watchedIDs(r)
	e.dir.Watch(c.watchList.ids, r)
}

func (c *conn) handleUnwatch(body []byte) {
	ids, err := codec.DecodeUnwatch(body, c.loop.eng.cfg.MaxIDs)
	if err != nil {
		c.decodeFault(err, codec.KindUnwatch)
		return
	}
	if c.watchList != nil {
		c.loop.eng.dir.Unwatch(c.watchList.ids, &ids)
	}
}

// endWatches ends the list. Its connection has closed.
func (c *conn) endWatches() {
	if c.watchList != nil {
		c.loop.eng.dir.EndWatches(c.watchList.ids)
		c.watchList = nil
	}
}

// answerWatch fills in what the node knows at the moment of the answer, because what a lane found
// out may be out of date.
func (c *conn) answerWatch(r *directory.Request) {
	if r.Kind == codec.KindWatched && c.watchList != nil {
		c.loop.eng.dir.FillIn(c.watchList.ids, r)
	}
}

// tellChanges sends a connection the changes of its IDs that it has not heard of. It stops while
// the queue is half full, because the other half is for messages.
func (l *loop) tellChanges(h routing.Handle) {
	for range changesAtOnce {
		c := l.conn(h)
		if c == nil || c.watchList == nil {
			return
		}
		if c.out.queued() > c.out.maxPending/2 || l.now < c.watchList.pause {
			break
		}
		changes, more := l.eng.dir.Changes(c.watchList.ids, l.eng.cfg.MaxIDs)
		if len(changes) > 0 {
			c.out.wroteControl(codec.AppendChanged(c.out.buf(), changes))
			l.pace.worked(len(changes))
		}
		if !more {
			c.watchList.pause = l.now + changesPause
			return
		}
	}
	l.behind = append(l.behind, h)
}

// tellBehind sends changes to connections that have not heard all of them, as far as the
// iteration's share allows. It reports whether there are more.
func (l *loop) tellBehind() (more bool) {
	behind := l.behind
	l.behind = nil
	for i, h := range behind {
		if l.pace.full {
			l.behind = append(behind[i:], l.behind...)
			return true
		}
		l.tellChanges(h)
		l.pace.worked(1)
	}
	return false
}
