package engine

import (
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// changesAtOnce is how many changed frames a connection gets in one iteration; more come with the
// next tick.
const changesAtOnce = 4

// changesPause is how many milliseconds a connection that has been told of all changes is not told
// of the next ones. One ID that is bound again and again, and watched by many, would else cost a
// write to each of them every time (S32).
const changesPause = 100

// watchList is what one connection watches. Its loop owns it.
type watchList struct {
	ids   *directory.Watches
	pause int64 // until then the connection is told of no more changes
}

// handleWatch puts IDs on the list at once, so that no change is missed, and asks who holds them.
func (c *conn) handleWatch(body []byte) {
	var f codec.Watch
	e := c.loop.eng
	if err := codec.DecodeWatch(body, e.cfg.MaxIDs, &f); err != nil {
		c.decodeFault(err, codec.KindWatch)
		return
	}
	r := c.newRequest(codec.KindWatched, f.Seq, &f.IDs)
	if !c.mayAsk(r) {
		return
	}
	if c.watchList == nil {
		c.watchList = &watchList{ids: directory.NewWatches(c.handle())}
	}
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

// endWatches is the end of the list: its connection is gone.
func (c *conn) endWatches() {
	if c.watchList != nil {
		c.loop.eng.dir.EndWatches(c.watchList.ids)
		c.watchList = nil
	}
}

// answerWatch fills in what is known at the moment of the answer: what was found out by a lane may
// be the past.
func (c *conn) answerWatch(r *directory.Request) {
	if r.Kind == codec.KindWatched && c.watchList != nil {
		c.loop.eng.dir.FillIn(c.watchList.ids, r)
	}
}

// tellChanges tells a connection what it does not know yet of its IDs, as far as there is room:
// half of its queue is for messages.
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

// tellBehind goes on with the connections that had not been told everything, as far as the
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
