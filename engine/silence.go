package engine

import (
	"fmt"
	"math"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// A host that vanishes, or a path that drops packets, sends no reset. Silence is the only sign. In
// its hello a client promises how often it sends something. If it is silent for three times that
// long, the node closes its connection. If a client promises nothing, the node waits for
// Config.IdleTimeout.
//
// A connection is in doubt if its session has been attached elsewhere and it has been silent for
// one and a half of its heartbeats (S26). The node then pings it and at once sends messages to the
// other place. It closes the connection after doubtFor of silence.

const (
	deadBeats = 3
	// minDead is the least silence after which the node closes a client that has promised
	// heartbeats. So a client that is busy for a moment survives.
	minDead = 3 * time.Second
	// doubtFor is how long a connection in doubt may be silent.
	doubtFor = 3 * time.Second
	// assumedBeat is the heartbeat that the node assumes for doubts if a client promises none. It
	// is that of the SDK.
	assumedBeat = time.Second
	// scanEvery is how often the scan checks each connection. A connection that may have to close
	// sooner is a suspect, and the loop checks it with each tick.
	scanEvery = scanRounds * tickEvery
	// longestTick bounds what one tick adds to a loop's waking time. A loop that was delayed has
	// not read what came meanwhile.
	longestTick = 250 * time.Millisecond
)

// liveness says when the client last sent something, and what follows from its silence. The
// connection's loop owns it.
type liveness struct {
	conn *conn // static

	lastFrame int64 // when the last complete frame came
	lastHeard int64 // when anything came, on the loop's waking time
	doubted   int64 // since when it is in doubt, on that time; 0 if it is not
	pinged    bool  // since the last frame
	suspected bool  // it is in the loop's suspects

	// After so many milliseconds of silence the node pings the client (beat) or closes the
	// connection (dead). Both are 0 if the client promised no heartbeats.
	beat, dead uint32
}

// promise notes how often, in ms, a client promises to send something. 0 means that it promises
// nothing.
func (v *liveness) promise(heartbeat uint64) {
	if heartbeat == 0 {
		return
	}
	cfg := &v.conn.loop.eng.cfg
	beat := time.Duration(min(heartbeat, math.MaxInt32/deadBeats)) * time.Millisecond
	beat = min(max(beat, minDead/deadBeats), cfg.Heartbeat)
	v.beat = uint32(beat.Milliseconds())
	v.dead = uint32(min(deadBeats*beat, cfg.IdleTimeout).Milliseconds())
}

// limits returns what welcome announces: the node's limits, with the heartbeats of this connection.
func (v *liveness) limits() codec.Limits {
	l := v.conn.loop.eng.limits
	if v.dead > 0 {
		l.Heartbeat, l.IdleTimeout = uint64(v.beat), uint64(v.dead)
	}
	return l
}

// heartbeats finds the connections of a loop that have been silent for too long. The loop owns it.
type heartbeats struct {
	loop *loop // static

	scanNext int              // the slot that scan looks at next
	awake    int64            // milliseconds in which the loop was able to read input
	lastTick int64            // when it ticked last
	suspects []routing.Handle // connections that close soon if nothing comes
}

// awaken adds the time since the last tick to the loop's waking time.
func (hb *heartbeats) awaken() {
	l := hb.loop
	hb.awake += min(l.now-hb.lastTick, longestTick.Milliseconds())
	hb.lastTick = l.now
}

// silentFor returns how long the other end has sent nothing, not even a part of a frame, while the
// loop was able to read.
func (v *liveness) silentFor() int64 { return v.conn.loop.beats.awake - v.lastHeard }

// check pings a silent client and closes a dead connection.
func (v *liveness) check() {
	c := v.conn
	// the one has a deadline of its own, the other no wire
	if c.state == stateHello || c.kind == insideConn || c.kind == linkConn {
		return
	}
	if c.in.inTurns { // it has said something
		return
	}
	cfg := &c.loop.eng.cfg
	beat := cfg.Heartbeat.Milliseconds()
	if v.beat > 0 {
		beat = int64(v.beat)
	}
	silence := c.loop.now - v.lastFrame
	switch {
	case silence >= cfg.IdleTimeout.Milliseconds():
		c.close(codec.FaultIdleTimeout, "no complete frame for "+cfg.IdleTimeout.String())
		return
	case silence >= beat && !v.pinged && c.state == stateOpen:
		v.ping()
	}
	if left := v.timeLeft(); left < scanEvery.Milliseconds() {
		v.suspect()
	}
}

func (v *liveness) ping() {
	c := v.conn
	v.pinged = true
	c.out.wroteControl(codec.AppendPing(c.out.buf(), uint64(c.loop.now)))
}

// timeLeft returns how many more milliseconds the connection may be silent.
func (v *liveness) timeLeft() int64 {
	c := v.conn
	left := int64(math.MaxInt64)
	if c.state != stateOpen || c.in.inTurns {
		// Before welcome a client may send nothing, and the loop does not read from a connection
		// that waits for its turn.
		return left
	}
	if v.dead > 0 {
		left = int64(v.dead) - v.silentFor()
	}
	if c.standing == steppedBack {
		left = min(left, doubtFor.Milliseconds()-(c.loop.beats.awake-max(v.doubted, v.lastHeard)))
	}
	return left
}

// suspect makes the loop check the connection with each tick.
func (v *liveness) suspect() {
	c := v.conn
	if !v.suspected {
		v.suspected = true
		c.loop.beats.suspects = append(c.loop.beats.suspects, c.handle())
	}
}

// scan checks some of the loop's connections with each tick, and all of them within scanEvery.
func (hb *heartbeats) scan() {
	l := hb.loop
	n := len(l.conns)/scanRounds + 1
	for range min(n, len(l.conns)) {
		if l.pace.full {
			break
		}
		if hb.scanNext >= len(l.conns) {
			hb.scanNext = 0
		}
		if c := l.conns[hb.scanNext]; c != nil {
			c.live.check()
		}
		hb.scanNext++
	}
}

// checkSuspects closes connections that have been silent for too long.
func (hb *heartbeats) checkSuspects() {
	kept := hb.suspects[:0]
	for _, h := range hb.suspects {
		c := hb.loop.conn(h)
		if c == nil {
			continue
		}
		switch left := c.live.timeLeft(); {
		case left <= 0:
			c.close(codec.FaultIdleTimeout, fmt.Sprintf("nothing was received for %d ms", c.live.silentFor()))
		case left >= scanEvery.Milliseconds() && c.standing != steppedBack:
			c.live.suspected = false
		default:
			kept = append(kept, h)
		}
	}
	hb.suspects = kept
}

// doubt is called when the connection's session has just been attached elsewhere: at another node,
// or by another connection to this node.
func (v *liveness) doubt() {
	c := v.conn
	beat := int64(v.beat)
	if beat == 0 {
		beat = assumedBeat.Milliseconds()
	}
	if c.kind == insideConn || c.state != stateOpen || c.standing == hasLeft || v.silentFor() < beat+beat/2 {
		return
	}
	v.distrust()
	v.stepBack()
}

// distrust pings a connection that may be dead. If it answers, heardAgain announces its session
// again.
func (v *liveness) distrust() {
	if v.doubted == 0 {
		v.doubted = max(v.conn.loop.beats.awake, 1)
		v.ping()
	}
}

// heardAgain announces the session of a connection that was in doubt.
func (v *liveness) heardAgain() {
	c := v.conn
	v.doubted = 0
	if c.state != stateOpen || c.standing == hasLeft {
		return
	}
	if c.standing == steppedBack {
		c.standing = inSession
		c.endAside()
		e := c.loop.eng
		serial, ok := e.table.Attach(c.session, c.handle())
		if !ok {
			c.close(codec.FaultSessionEnded, directory.SessionOver)
			return
		}
		e.dir.Attached(c.session, routing.Presence{Node: e.cfg.NodeID, Incarnation: c.incarnation, Serial: serial}, true)
	}
	c.loop.links.sendAll(c.attachedFrame(nil))
}

// stepBack takes a connection in doubt out of its session until the client sends something, if the
// session is also attached elsewhere. Meanwhile the node sends messages there.
func (v *liveness) stepBack() {
	c := v.conn
	e := c.loop.eng
	if v.doubted == 0 || c.standing == steppedBack || c.state != stateOpen {
		return
	}
	if len(c.session.Handles()) < 2 && !e.dir.AttachedElsewhere(c.session.ID()) {
		return
	}
	c.standing = steppedBack
	c.stepAside()
	v.suspect()
	e.table.Detach(c.session, c.handle())
}
