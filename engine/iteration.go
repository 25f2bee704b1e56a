package engine

import (
	"context"
	"time"
)

// enter opens an iteration, if none is open, and makes sure that it will be closed. Every gnet
// callback calls it first.
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

// begin reads the clock and checks that the loop was not stopped for long (S24).
func (l *loop) begin() {
	l.pace.began = l.eng.clock()
	l.now = l.pace.began.Milliseconds()
	l.pace.stampAt(l.pace.began)
	l.pace.before = l.pace.done()
	l.pace.part(l.inputTime(inputShare))
	l.active = true
	l.heedFence()
}

// ring arms the doorbell. Any goroutine may call it.
func (l *loop) ring() {
	if l.armed.CompareAndSwap(false, true) {
		// The only error is that the engine is shutting down; then nobody waits for this loop any more.
		_ = l.el.Execute(context.Background(), l)
	}
}

// Run is the doorbell: the end of an iteration. gnet calls it on the loop.
//
// gnet runs tasks for as long as there are any, up to 256 in a row, and reads no socket meanwhile.
// Each iteration that is longer than a tick is rung for again before it ends. So if gnet has not
// read for some time, and sockets have something, an iteration that follows another one waits until
// it has.
func (l *loop) Run(context.Context) error {
	l.armed.Store(false) // first: what is posted from here on rings again
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
	if l.turns.wait() { // what is cheap goes out before what is expensive begins
		l.sendOut(earlyShare)
	}
	l.turns.serve(l.inputTime(turnsShare) + spare)
	l.sendOut(flushShare)
	l.turns.settle(l.turns.crowded())
	l.active = false
	if l.inbox.opening() || len(l.dirty) > 0 || l.turns.wait() || len(l.endings.all) > 0 || l.isDue {
		l.poll.again()
	}
	return nil
}

// sendOut writes what waits for connections, as far as that share of the iteration allows, and
// hands over the mail.
func (l *loop) sendOut(share time.Duration) {
	l.pace.stamp()
	l.heedFence() // stopped in the middle of the iteration: what was read before is old now
	l.pace.part(share)
	l.flushDirty()
	l.mail.send()
}

// inputTime is the share of a part of the iteration that handles input.
func (l *loop) inputTime(share time.Duration) time.Duration {
	if l.inbox.opening() {
		return min(share, behindShare)
	}
	return share
}

// again makes sure that another iteration follows, behind what gnet has to read. (A task that hands
// in another one would run again before gnet reads anything.)
func (p *poller) again() {
	l := p.loop
	if !p.nudged {
		p.nudged = true
		_, _ = l.eng.anchors[l.idx].Write(p.nudge[:]) // it can only fail when the engine is stopping
	}
}

// flushDirty writes each connection that has something, until this part of the iteration is over.
func (l *loop) flushDirty() {
	i := 0
	for ; i < len(l.dirty) && !l.pace.full; i++ { // flushing can close a connection, which can make others dirty
		c := l.dirty[i]
		c.out.dirty = false
		c.out.flush()
		l.pace.worked(writeWork)
	}
	left := copy(l.dirty, l.dirty[i:])
	clear(l.dirty[left:])
	l.dirty = l.dirty[:left]
}

// chores is what is due and may be much. It has two shares of the iteration: one for what is past
// its deadline, and one for those who have yet to be told something. What is left comes in the next
// iteration, and not with the next tick only.
func (l *loop) chores() {
	l.pace.part(expiryShare)
	hellos, acks, waits := l.checkHandshakes(), l.settle.expire(), l.park.expire()
	l.pace.part(tellingShare)
	told, changes := l.tellAll(), l.tellBehind()
	l.isDue = acks || waits || told || changes || hellos
}

// tick is what happens every tickEvery: deadlines, slow consumers, a share of the heartbeats, and
// the published counters.
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
