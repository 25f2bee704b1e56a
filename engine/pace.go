package engine

import "time"

// A loop that is busy is not a loop that was stopped (S24). To tell the two apart, a loop stamps
// its work: it reads the clock when an iteration begins, before it writes, and within the iteration
// whenever it has done about stampWork. Only the time between two stamps says that it was stopped.
// What a loop does between two of them takes far less than a millisecond. Hooks may take longer, so
// a loop that calls hooks stamps more often.
//
// To count the work is cheap. To read the clock for each message would not be.

const (
	// stampWork is how many units of work there are between two stamps, and hookedWork the same for
	// a loop that calls hooks. A unit is about what it takes to relay a message.
	stampWork  = 256
	hookedWork = 4
	// callbackWork is what one of gnet's callbacks counts for, with the system call before it, and
	// writeWork what the writing of one connection does.
	callbackWork = 8
	writeWork    = 8
	// unitTime is how long a unit takes, about. Work that took longer counts for more: a hook, or
	// memory that is touched for the first time.
	unitTime = 500 * time.Nanosecond
	// slowest is how many units one may count for by the time that it took.
	slowest = 16
	// bytesPerUnit is how many bytes to copy count as one unit.
	bytesPerUnit = 512
	// scanPerUnit is how many things that are only looked at count as one unit.
	scanPerUnit = 16
)

// An iteration takes about 50 ms at most, and each of its parts has a share of that. What does not
// fit waits for the next iteration. So the input of a few cannot keep a loop from its ticks, from
// what other loops have sent, and from writing.
const (
	// inputShare is for what gnet reads.
	inputShare = 15 * time.Millisecond
	// mailShare is for what other loops and goroutines have left.
	mailShare = 10 * time.Millisecond
	// turnsShare is for connections whose input had to wait. They also get what the parts before
	// have left of their shares.
	turnsShare = 10 * time.Millisecond
	// flushShare is for the writes.
	flushShare = 15 * time.Millisecond
	// earlyShare is for the writes that go out before connections that had to wait have their
	// turns.
	earlyShare = 5 * time.Millisecond
	// While mail of the iteration before still waits, it has lateMailShare, and input no more than
	// behindShare: what has come in goes on before more does. The iterations do not become shorter,
	// for each ends with a write to every connection that has something.
	lateMailShare = 30 * time.Millisecond
	behindShare   = 5 * time.Millisecond
	// endingShare is for the pending acks of connections and links that have ended, while there are
	// any, expiryShare for what is past its deadline, tellingShare for what clients have yet to be
	// told, and checkShare for a look at some of the connections in each tick.
	endingShare  = 5 * time.Millisecond
	expiryShare  = 5 * time.Millisecond
	tellingShare = 5 * time.Millisecond
	checkShare   = 5 * time.Millisecond
	// unreadTime is for how long iterations may follow each other before gnet reads what sockets
	// have.
	unreadTime = 2 * time.Millisecond
	// turnShare is for how long the loop handles the input of one connection in a row.
	turnShare = time.Millisecond
)

// A frame for many recipients is handled in slices, see longframe.go.
const (
	// sliceShare is for how long a slice may look for the ways of recipients. To write to them
	// takes about as long again.
	sliceShare = time.Millisecond
	// sliceWork bounds what a slice leaves to be written, in units of work.
	sliceWork = 8 << 10
	// sliceLeast is how many recipients a slice has at least, however long it takes: a machine that
	// is overloaded must not make many frames of one. hookedLeast is the same for a loop that calls
	// hooks.
	sliceLeast  = 1 << 10
	hookedLeast = 64
	// batchCost is what it costs to write to one more connection, beside the bytes and the
	// recipients: its buffer may be cold, or new. hookedCost is what a recipient costs whom a hook
	// is asked about, and returnCost a message that comes back: another way has to be found for it.
	batchCost  = 8
	hookedCost = sliceWork / 512
	returnCost = sliceWork / 1024
)

// What may be long and is no frame is done in steps, and the clock is read in between. A step takes
// far less than a millisecond, or a few where caches are cold.
const (
	// endingStep is how many pending acks end in a step, or sessions at the other end of a link.
	endingStep = 1 << 10
	// resolvedStep is how many messages that have waited for the registry go on in a step.
	resolvedStep = 1 << 10
	// observedStep is how many connections that have a backlog, or are closing, are looked at in
	// one tick.
	observedStep = 1 << 10
)

// pace is when a loop stamps its work, and when it has to turn to something else. The loop owns it.
type pace struct {
	loop *loop // static

	every   int           // units between two stamps
	work    int           // units since the latest one
	began   time.Duration // when the iteration began, on the engine's clock
	stamped time.Duration // when the loop stamped last

	partEnds time.Duration // when the share of this part of the iteration is over
	full     bool          // it is
	turnEnds time.Duration // the same for the turn of a connection
	turnOver bool

	sliceEnds time.Duration // when a long frame has to wait, see sliceOver
	sliceLeft int           // recipients that it handles before, in any case

	counted int      // units up to the latest stamp
	total   int      // the same, or the time that they took if that is more
	before  workDone // when the iteration began
	late    bool     // the share for input was over too soon, the last time
}

// begin has the loop stamp from now on.
func (p *pace) begin() {
	e := p.loop.eng
	p.every, p.began = stampWork, e.clock()
	p.stamped = p.began
	if h := &e.cfg.Hooks; h.Send != nil || h.Deliver != nil || h.Undeliverable != nil {
		p.every = hookedWork
	}
}

// worked counts work, and stamps when it is time to.
func (p *pace) worked(units int) {
	if p.work += units; p.work >= p.every {
		p.stamp()
	}
}

// workDone is what a loop has done.
type workDone struct {
	units int // as counted
	work  int // as the stamps say: units, or the time that they took if that is more
}

func (p *pace) done() workDone {
	return workDone{p.counted + p.work, p.total + p.work}
}

// since is what was done between two looks. Time is known from one stamp to the next only, so part
// of it may have been somebody else's.
func (d workDone) since(before workDone) int {
	return min(d.work-before.work, slowest*(d.units-before.units))
}

// stamp notes that the loop runs, and has the node start anew if it was stopped since the last
// stamp.
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
	}
	p.full = now >= p.partEnds
	p.turnOver = p.turnOver || now >= p.turnEnds
	if gap > l.eng.cfg.LoopGap {
		l.eng.fence(gap)
	}
}

// part begins a part of the iteration, which has that share of it. It goes by the latest stamp, so
// it reads no clock.
func (p *pace) part(share time.Duration) {
	p.partEnds, p.full = p.stamped+share, false
}

// unused is what is left of the share of this part.
func (p *pace) unused() time.Duration { return max(0, p.partEnds-p.stamped) }

// heedFence ends what was there before a stop, whichever loop has noticed it. It must be called
// where no frame is being handled.
func (l *loop) heedFence() {
	if l.fenced != l.eng.incarnation.Load() {
		l.dropAll()
	}
}
