package engine

import "time"

// fence gives the node a new incarnation, as if it had just started. The node has stood still for
// so long that other nodes may have taken its IDs over (S24).
func (e *Engine) fence(gap time.Duration) {
	e.fenceMu.Lock()
	defer e.fenceMu.Unlock()
	now := e.clock()
	if e.lastFence != 0 && now-e.lastFence < e.cfg.LoopGap {
		return // another loop has noticed the same stop
	}
	e.lastFence = now
	before := e.incarnation.Load()
	next := max(uint64(time.Now().UnixMicro()), before+1)
	if (next^before)&0xfff == 0 { // tokens carry only these bits as their tag
		next++
	}
	e.incarnation.Store(next)
	e.dir.Doubt()
	e.cfg.Logger.Warn("the event loops were stopped: dropping all connections and continuing under a new incarnation",
		"gap", gap, "incarnation", next)
	for _, l := range e.loops {
		l.ring()
	}
	if e.cluster != nil {
		e.cluster.peers.Announcer.Soon()
	}
}

// dropAll drops everything from before a stop: unread input, unwritten output, connections and
// pending acks. The loop then continues under the engine's new incarnation (S24).
func (l *loop) dropAll() {
	l.fenced = l.eng.incarnation.Load()
	l.mail.drop()
	for _, c := range l.conns {
		if c != nil {
			c.drop()
			l.pace.worked(writeWork)
		}
	}
	l.park.dropReturned()
	for _, c := range l.observed { // lingering connections have a backlog, too
		if c.closed() && !c.gone() {
			c.cut()
			l.pace.worked(writeWork)
		}
	}
	l.endings.endAll()
	l.settle.acks.SetTag(uint16(l.fenced))
}
