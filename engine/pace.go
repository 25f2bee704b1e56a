package engine

import "time"

// A busy loop differs from a loop that was stopped (S24). To tell the two apart, a loop stamps its
// work: it reads the clock when an iteration begins, before it writes, and each time it has done
// about stampWork. If the time between two stamps is long, the loop was stopped. The work between
// two stamps takes far less than a millisecond. Hooks may take longer, so a loop that calls hooks
// stamps more often.
//
// Counting work is cheap. Reading the clock for each message would not be.

const (
	// stampWork is the number of units of work between two stamps. hookedWork is the same for a
	// loop that calls hooks. Relaying a message is about one unit.
	stampWork  = 256
	hookedWork = 4
	// callbackWork is what one callback of gnet counts for, with the system call before it.
	// writeWork is what writing to one connection counts for.
	callbackWork = 8
	writeWork    = 8
	// unitTime is about how long a unit takes. Work that took longer counts for more, such as a
	// hook, or memory that the loop touches for the first time.
	unitTime = 500 * time.Nanosecond
	// slowest is how many units one unit may count for when it took long.
	slowest = 16
	// bytesPerUnit is how many bytes to copy count as one unit.
	bytesPerUnit = 512
	// scanPerUnit is how many things count as one unit if the loop only looks at them.
	scanPerUnit = 16
)

// An iteration takes about 50 ms at most. Each of its parts has a share of that. What does not fit
// waits for the next iteration. So a few connections with much input cannot keep a loop from its
// ticks, from the mail of other loops, or from writing.
const (
	// inputShare is for what gnet reads.
	inputShare = 15 * time.Millisecond
	// mailShare is for what other loops and goroutines have queued for this loop.
	mailShare = 10 * time.Millisecond
	// turnsShare is for connections whose input waits. They also get the unused shares of the parts
	// before.
	turnsShare = 10 * time.Millisecond
	// flushShare is for the writes.
	flushShare = 15 * time.Millisecond
	// earlyShare is for the writes that go out before waiting connections have their turns.
	earlyShare = 5 * time.Millisecond
	// While mail of the previous iteration still waits, mail has lateMailShare and input has at
	// most behindShare. So the loop finishes old work before it takes new input. Iterations do not
	// become shorter, because each ends with a write to every connection that has something to
	// write.
	lateMailShare = 30 * time.Millisecond
	behindShare   = 5 * time.Millisecond
	// endingShare is for the pending acks of connections and links that have ended. expiryShare is
	// for sends past their deadline, pending or waiting. tellingShare is for outcomes and changes
	// that clients have yet to hear. checkShare is for the scan of some connections in each tick.
	endingShare  = 5 * time.Millisecond
	expiryShare  = 5 * time.Millisecond
	tellingShare = 5 * time.Millisecond
	checkShare   = 5 * time.Millisecond
	// unreadTime is how long iterations may follow each other before gnet reads the sockets again.
	unreadTime = 2 * time.Millisecond
	// turnShare is how long the loop handles the input of one connection in a row.
	turnShare = time.Millisecond
)

// The loop handles a frame for many recipients in slices. See longframe.go.
const (
	// sliceShare is how long a slice may resolve recipients. Writing to them takes about as long
	// again.
	sliceShare = time.Millisecond
	// sliceWork bounds what a slice leaves to write, in units of work.
	sliceWork = 8 << 10
	// sliceLeast is the least number of recipients in a slice, however long it takes. Otherwise an
	// overloaded machine would make many frames of one. hookedLeast is the same for a loop that
	// calls hooks.
	sliceLeast  = 1 << 10
	hookedLeast = 64
	// batchCost is the cost of writing to one more connection, besides the bytes and the
	// recipients: its buffer may be cold or new. hookedCost is the cost of a recipient for whom a
	// hook is called. returnCost is the cost of a message that comes back, because the loop must
	// resolve it again.
	batchCost  = 8
	hookedCost = sliceWork / 512
	returnCost = sliceWork / 1024
)

// Other work that may take long runs in steps, and the loop reads the clock between them. A step
// takes far less than a millisecond, or a few milliseconds where caches are cold.
const (
	// endingStep is how many pending acks, or sessions at the other end of a link, end in a step.
	endingStep = 1 << 10
	// resolvedStep is how many messages that waited for the registry resume in a step.
	resolvedStep = 1 << 10
	// observedStep is how many connections with a backlog, or that are closing, the loop checks in
	// one tick.
	observedStep = 1 << 10
)

// pace decides when a loop stamps its work and when it must turn to something else. The loop owns
// it.
type pace struct {
	loop *loop // static

	every   int           // units between two stamps
	work    int           // units since the latest stamp
	began   time.Duration // when the iteration began, on the engine's clock
	stamped time.Duration // the latest stamp

	partEnds time.Duration // when the share of this part of the iteration ends
	full     bool          // this part has used up its share
	turnEnds time.Duration // when the turn of the connection ends
	turnOver bool

	sliceEnds time.Duration // when a long frame must wait, see sliceOver
	sliceLeft int           // recipients that it handles first in any case

	counted int      // units up to the latest stamp
	total   int      // the same, or the time that they took if that is more
	before  workDone // when the iteration began
	late    bool     // input did not fit its share in the last iteration
}

// begin starts the stamps of the loop.
func (p *pace) begin() {
	e := p.loop.eng
	p.every, p.began = stampWork, e.clock()
	p.stamped = p.began
	if h := &e.cfg.Hooks; h.Send != nil || h.Deliver != nil || h.Undeliverable != nil {
		p.every = hookedWork
	}
}

// worked counts work. It stamps when stamps are due.
func (p *pace) worked(units int) {
	if p.work += units; p.work >= p.every {
		p.stamp()
	}
}

// workDone is how much work a loop has done.
type workDone struct {
	units int // as counted
	work  int // as the stamps say: units, or the time that they took if that is more
}

func (p *pace) done() workDone {
	return workDone{p.counted + p.work, p.total + p.work}
}

// since returns the work between two calls of done. The loop knows the time only from stamp to
// stamp, so part of that time may belong to other work.
func (d workDone) since(before workDone) int {
	return min(d.work-before.work, slowest*(d.units-before.units))
}

// stamp notes that the loop runs. If the loop was stopped since the latest stamp, stamp fences the
// node (S24).
func (p *pace) stamp() { p.stampAt(p.loop.eng.clk.glance()) }

func (p *pace) stampAt(now time.Duration) {
	l := p.loop
	gap := now - p.stamped
	p.counted += p.work
	if work := int(gap / unitTime); l.active && work > p.work {
		p.work = work
	}
	p.stamped, p.total, p.work = now, p.total+p.work, 0
	l.seen.Store(int64(now))
	if l.active {
		l.stats.longestStall = max(l.stats.longestStall, gap)
		if gap >= leastStall {
			l.stats.times.stall.Add(gap, 1)
		}
	}
	p.full = now >= p.partEnds
	p.turnOver = p.turnOver || now >= p.turnEnds
	if gap > l.eng.cfg.LoopGap {
		l.eng.fence(gap)
	}
}

// part begins a part of the iteration with the given share of time. It starts from the latest stamp
// and reads no clock.
func (p *pace) part(share time.Duration) {
	p.partEnds, p.full = p.stamped+share, false
}

// unused returns what is left of the share of this part.
func (p *pace) unused() time.Duration { return max(0, p.partEnds-p.stamped) }

// heedFence drops everything from before a stop, whichever loop noticed the stop. It must be called
// where the loop handles no frame.
func (l *loop) heedFence() {
	if l.fenced != l.eng.incarnation.Load() {
		l.dropAll()
	}
}
