package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/routing"
)

const (
	// tickEvery is how often a loop checks its deadlines when nothing else wakes it.
	tickEvery = 10 * time.Millisecond
	// earlyFlush is the size at which the loop writes a buffer before the iteration ends.
	earlyFlush = 64 << 10
	// scanRounds is over how many ticks a loop spreads the heartbeat check of all connections.
	scanRounds = 100
	// scratchSize is enough for any control frame without a payload.
	scratchSize = 128
)

// loop is the engine's half of a gnet event loop. An iteration is what happens between two runs of
// its doorbell. During it, callbacks read frames and append to the buffers of their destinations.
// At its end the doorbell (see Run) writes to every destination once and hands the mail to other
// loops.
//
// gnet has no hook for the end of an iteration. But a function given to EventLoop.Execute runs
// after the current batch of events, so the loop uses it as its doorbell. The doorbell carries no
// data, because gnet may reorder such functions. The loop arms it once per batch.
type loop struct {
	// static after construction
	eng *Engine
	idx uint16
	el  gnet.EventLoop

	// owned by the loop: its connections
	conns       []*conn  // by slot; nil in a free slot
	gens        []uint32 // by slot; the generation of the present or next connection
	freeSlots   []uint32
	live        int              // connections in conns
	handshakes  []hello          // by deadline
	dirty       []*conn          // connections with something to write
	observed    []*conn          // connections with a backlog in gnet, or closing
	observeNext int              // index of the one to check next
	behind      []routing.Handle // connections with changes still to send, see tellChanges
	telling     []*conn          // connections with outcomes of multicasts to send
	// aside holds the connections that have left their session or stepped back from it.
	aside map[routing.SessionID][]*conn

	// owned by the loop: its time
	pace     pace
	now      int64         // milliseconds since the engine was made, read once an iteration
	active   bool          // inside an iteration
	lastRead time.Duration // when an iteration last began with one of gnet's callbacks
	readAt   time.Duration // when the message that is being handled was read, see loopTimes
	isDue    bool          // some chores are left
	fenced   uint64        // the incarnation under which this loop works

	// owned by the loop: its components
	poll     poller
	turns    turns
	beats    heartbeats
	mail     mailroom
	settle   settling
	endings  endings
	echoes   echoes
	expiries expiries
	limits   limitNews
	bounce   bouncing
	park     park
	links    loopLinks
	memory   loopMemory
	probing  probing
	spans    loopSpans
	bufs     bufPool
	scratch  scratch
	stats    loopStats

	// shared
	armed  atomic.Bool  // the doorbell has been rung
	ticked atomic.Bool  // the ticker has asked for a tick
	seen   atomic.Int64 // the engine's clock at the loop's latest stamp, in nanoseconds
	inbox  inbox
	pubMu  sync.Mutex
	// copies for other goroutines, guarded by pubMu
	pub      loopStats
	pubLinks []LinkStats // of the open links
	pubSpans []span      // that nobody has taken yet; at most as many as spans has room for
}

// hello is a connection that has not sent hello yet.
type hello struct {
	handle   routing.Handle
	deadline int64
}

// bareLoop makes a loop and gives its components a pointer to it.
func bareLoop() *loop {
	l := new(loop)
	l.pace.loop, l.poll.loop, l.turns.loop, l.beats.loop, l.inbox.loop = l, l, l, l, l
	l.mail.loop, l.settle.loop, l.endings.loop, l.echoes.loop, l.bounce.loop = l, l, l, l, l
	l.expiries.loop, l.probing.loop = l, l
	l.park.loop, l.links.loop, l.memory.loop = l, l, l
	l.spans.loop = l
	return l
}

func newLoop(e *Engine, idx int) *loop {
	l := bareLoop()
	l.eng, l.idx = e, uint16(idx)
	l.mail.boxes = make([]outbox, e.cfg.Loops)
	l.aside = make(map[routing.SessionID][]*conn)
	l.bufs.shared = &e.bufs
	l.scratch.fan.each = recipientCost(e)
	l.spans.made = make([]span, 0, e.cfg.Spans)
	l.pubSpans = make([]span, 0, e.cfg.Spans)
	if e.cluster != nil {
		l.endings.linkLists = make(map[routing.Handle]map[uint64]ackmgr.List)
		l.echoes.waiting = make(map[uint64]echo)
		l.park.returnedOn = make(map[routing.Handle]int)
		l.park.lines = make(map[string]*waitLine)
		l.park.recents = make(map[string]recentAnswer)
		l.park.holding = make(map[string][]routing.Handle)
		l.scratch.control = make([]byte, 0, scratchSize)
	}
	l.pace.begin()
	l.now = l.pace.began.Milliseconds()
	l.beats.lastTick = l.now
	l.seen.Store(int64(l.pace.began))
	l.fenced = e.incarnation.Load()
	l.settle.begin()
	return l
}

// expectHello notes a connection that has not sent hello. Connections come in the order of their
// deadlines, or nearly: those with TLS have had their handshake before.
func (l *loop) expectHello(h hello) {
	l.handshakes = append(l.handshakes, h)
	for i := len(l.handshakes) - 1; i > 0 && l.handshakes[i-1].deadline > h.deadline; i-- {
		l.handshakes[i-1], l.handshakes[i] = h, l.handshakes[i-1]
	}
}

// checkHandshakes closes connections that have not sent hello in time, as far as the iteration's
// share allows. It reports whether there are more. It forgets those that have sent hello, so that
// the list stays short.
func (l *loop) checkHandshakes() (more bool) {
	n := 0
	for ; n < len(l.handshakes); n++ {
		h := l.handshakes[n]
		late := h.deadline <= l.now
		if l.pace.full {
			more = late
			break
		}
		c := l.conn(h.handle)
		if c == nil || c.state != stateHello {
			continue
		}
		if !late {
			break
		}
		if !c.in.inTurns {
			c.close(codec.FaultHelloTimeout, "no hello in "+l.eng.cfg.HelloTimeout.String())
		}
	}
	if n > 0 {
		l.handshakes = append(l.handshakes[:0], l.handshakes[n:]...)
	}
	return more
}

// checkObserved checks connections that have a backlog in gnet, and connections that linger before
// they close. If there are many, it checks each of them every few ticks.
func (l *loop) checkObserved() {
	// Closing one connection can put others under observation.
	for n := min(len(l.observed), observedStep); n > 0 && !l.pace.full; n-- {
		l.pace.worked(1)
		if l.observeNext >= len(l.observed) {
			l.observeNext = 0
		}
		c := l.observed[l.observeNext]
		if c.out.check() {
			l.observeNext++
			continue
		}
		c.out.observed = false
		l.pace.worked(writeWork) // usually its socket has been closed
		last := len(l.observed) - 1
		l.observed[l.observeNext] = l.observed[last]
		l.observed[last] = nil
		l.observed = l.observed[:last]
	}
}

// conn returns the connection of a handle, or nil if it is gone. The handle must belong to this
// loop.
func (l *loop) conn(h routing.Handle) *conn {
	if int(h.Slot) >= len(l.conns) || l.gens[h.Slot] != h.Gen {
		return nil
	}
	return l.conns[h.Slot]
}

// addConn gives c a slot.
func (l *loop) addConn(c *conn) {
	if n := len(l.freeSlots); n > 0 {
		c.slot = l.freeSlots[n-1]
		l.freeSlots = l.freeSlots[:n-1]
	} else {
		c.slot = uint32(len(l.conns))
		l.conns = append(l.conns, nil)
		l.gens = append(l.gens, 1)
	}
	c.gen = l.gens[c.slot]
	l.conns[c.slot] = c
	l.live++
}

// removeConn removes c, and makes all handles to it invalid. freeSlot frees its slot.
func (l *loop) removeConn(c *conn) {
	l.conns[c.slot] = nil
	l.gens[c.slot]++
	l.live--
}

// freeSlot makes a slot available to another connection.
func (l *loop) freeSlot(slot uint32) { l.freeSlots = append(l.freeSlots, slot) }
