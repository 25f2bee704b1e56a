package engine

import "time"

// A loop that is busy is not a loop that was stopped (S24). To tell the two apart, a loop stamps its
// work: it reads the clock when an iteration begins, before it writes, and within the iteration
// whenever it has done about stampWork. Only the time between two stamps says that it was stopped.
// What a loop does between two of them takes far less than a millisecond. Hooks may take longer, so a
// loop that calls hooks stamps more often.
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
	// bytesPerUnit is how many bytes to copy count as one unit.
	bytesPerUnit = 512
	// scanPerUnit is how many things that are only looked at count as one unit.
	scanPerUnit = 16
)

// pace is when a loop stamps its work. The loop owns it.
type pace struct {
	every   int           // units between two stamps
	work    int           // units since the latest one
	began   time.Duration // when the iteration began, on the engine's clock
	stamped time.Duration // when the loop stamped last
}

func newPace(e *Engine) pace {
	now := e.clock()
	p := pace{every: stampWork, began: now, stamped: now}
	if h := &e.cfg.Hooks; h.Send != nil || h.Deliver != nil || h.Undeliverable != nil {
		p.every = hookedWork
	}
	return p
}

// worked counts work, and stamps when it is time to.
func (l *loop) worked(units int) {
	if l.work += units; l.work >= l.every {
		l.stamp()
	}
}

// stamp notes that the loop runs, and has the node start anew if it was stopped since the last stamp.
func (l *loop) stamp() { l.stampAt(l.eng.clk.glance()) }

func (l *loop) stampAt(now time.Duration) {
	gap := now - l.stamped
	l.stamped, l.work = now, 0
	l.seen.Store(int64(now))
	if l.active {
		l.stats.longestStall = max(l.stats.longestStall, gap)
	}
	if gap > l.eng.cfg.LoopGap {
		l.eng.fence(gap)
	}
}

// heedFence ends what was there before a stop, whichever loop has noticed it. It must be called where
// no frame is being handled.
func (l *loop) heedFence() {
	if l.fenced != l.eng.incarnation.Load() {
		l.dropAll()
	}
}
