package engine

import (
	"context"
	"time"
)

// enter begins an iteration if none is open, and makes sure that it will end. Every gnet callback
// calls it first.
func (l *loop) enter() {
	if !l.active {
		l.begin()
		l.lastRead = l.pace.began
		l.ring()
		return
	}
	l.pace.worked(callbackWork)
	l.heedFence()
}

// begin waits for a CPU if loops share them. Then it reads the clock, and checks whether the loop
// was stopped for long (S24).
func (l *loop) begin() {
	l.eng.cpus.take()
	l.pace.began = l.eng.clock()
	l.now = l.pace.began.Milliseconds()
	l.pace.stampAt(l.pace.began)
	l.readAt = l.pace.began
	l.pace.before = l.pace.done()
	l.pace.part(l.inputTime(inputShare))
	l.active = true
	l.heedFence()
}

// ring arms the doorbell. Any goroutine may call it.
func (l *loop) ring() {
	if l.armed.CompareAndSwap(false, true) {
		// Execute fails only while the engine shuts down, when nobody waits for this loop any more.
		_ = l.el.Execute(context.Background(), l)
	}
}

// Run is the doorbell and ends the iteration. gnet calls it on the loop.
//
// gnet runs tasks as long as there are any, up to 256 in a row, and reads no socket meanwhile. If
// an iteration is longer than a tick, the ticker rings the doorbell again before the iteration
// ends. So if gnet has not read for some time, and a socket has input, the next iteration waits
// until gnet has read it.
func (l *loop) Run(context.Context) error {
	// Disarm first, so that tasks posted from here on ring again.
	l.armed.Store(false)
	if !l.active && l.pace.stamped-l.lastRead > unreadTime && l.poll.inputWaits() {
		l.poll.again()
		return nil
	}
	if !l.active {
		l.begin()
	}
	l.stats.wakeups++
	l.pace.late = l.pace.full
	spare := l.pace.unused()
	l.inbox.open()
	spare += l.pace.unused()
	l.endings.resume()
	if l.ticked.Swap(false) {
		l.tick()
	} else if l.isDue {
		l.chores()
	}
	if l.turns.wait() { // write cheap output before expensive work begins
		l.sendOut(earlyShare)
		l.mail.wake()
	}
	l.turns.serve(l.inputTime(turnsShare) + spare)
	l.sendOut(flushShare)
	l.turns.settle(l.turns.crowded())
	l.active = false
	l.stats.times.iteration.Add(l.pace.stamped-l.pace.began, 1)
	if l.inbox.opening() || len(l.dirty) > 0 || l.turns.wait() || len(l.endings.all) > 0 || l.isDue {
		l.poll.again()
	}
	l.eng.cpus.give()
	l.mail.wake()
	return nil
}

// sendOut writes the output of connections, as far as the given share of the iteration allows, and
// hands over the mail. The caller wakes the other loops.
func (l *loop) sendOut(share time.Duration) {
	l.pace.stamp()
	// If the loop was stopped within the iteration, its earlier input is out of date.
	l.heedFence()
	l.pace.part(share)
	l.flushDirty()
	l.mail.send()
	l.spans.end()
}

// inputTime returns how much of a part of the iteration goes to handling input.
func (l *loop) inputTime(share time.Duration) time.Duration {
	if l.inbox.opening() {
		return min(share, behindShare)
	}
	return share
}

// again makes sure that another iteration follows after gnet has read its sockets. (If a task
// posted another task, gnet would run that before it reads.)
func (p *poller) again() {
	l := p.loop
	if !p.nudged {
		p.nudged = true
		// The write fails only while the engine stops.
		_, _ = l.eng.anchors[l.idx].Write(p.nudge[:])
	}
}

// flushDirty writes the output of each dirty connection until this part of the iteration is over.
func (l *loop) flushDirty() {
	i := 0
	// Flushing can close a connection, which can make others dirty.
	for ; i < len(l.dirty) && !l.pace.full; i++ {
		c := l.dirty[i]
		c.out.dirty = false
		c.out.flush()
		l.pace.worked(writeWork)
	}
	left := copy(l.dirty, l.dirty[i:])
	clear(l.dirty[left:])
	l.dirty = l.dirty[:left]
}

// chores does work that is due and may be long. It has two shares of the iteration: one for entries
// past their deadlines, and one for connections that have notifications to get. The rest is done in
// the next iteration, without a wait for the next tick.
func (l *loop) chores() {
	l.pace.part(expiryShare)
	hellos, acks, waits := l.checkHandshakes(), l.settle.expire(), l.park.expire()
	logins := l.expiries.check()
	l.pace.part(tellingShare)
	told, changes := l.tellAll(), l.tellBehind()
	l.isDue = acks || waits || told || changes || hellos || logins
}

// tick runs every tickEvery. It handles deadlines, slow consumers and a share of the heartbeats,
// and publishes the counters.
func (l *loop) tick() {
	l.beats.awaken()
	l.chores()
	l.pace.part(checkShare)
	l.beats.checkSuspects()
	l.checkObserved()
	l.links.check()
	l.memory.say()
	l.beats.scan()
	l.publish()
}
