package engine

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/ranking"
	"distmsg/routing"
)

const (
	// tickEvery is how often a loop looks at its deadlines when nothing else wakes it.
	tickEvery = 10 * time.Millisecond
	// earlyFlush is the size at which a buffer is written before the iteration ends.
	earlyFlush = 64 << 10
	// scanRounds spreads the heartbeat check of all connections over this many ticks.
	scanRounds = 100
	// scratchSize has room for any control frame without a payload.
	scratchSize = 128
)

// loop is our half of a gnet event loop. What happens between two runs of its doorbell is one
// iteration: callbacks read frames and append to the buffers of their destinations, and the
// doorbell (see Run) writes every destination once and hands over the mail for other loops.
//
// Why a doorbell: gnet has no hook for the end of an iteration, but EventLoop.Execute runs after
// the current batch of events. It carries no data (it may be reordered) and is armed once per batch.
type loop struct {
	// static after construction
	eng   *Engine
	idx   uint16
	el    gnet.EventLoop
	epoll int // its epoll descriptor, see setReading

	// owned by the loop
	conns      []*conn  // by slot; nil where there is none
	gens       []uint32 // by slot; the generation of the connection that is, or will be, there
	freeSlots  []uint32
	live       int // connections in conns
	acks       *ackmgr.Manager
	mostAcks   int      // static; how many the loop waits for at most
	endings    []ending // pending acks that have to end, see endSoon
	isDue      bool     // some of the chores are left
	bufs       bufPool
	dirty      []*conn
	turns      turns          // connections whose input waits for their turn
	unread     int            // bytes of it
	nudged     bool           // again was called since gnet has last read
	nudge      [1]byte        // what again writes
	polled     [1]unix.PollFd // scratch of inputWaits
	more       []byte         // scratch of readOn
	watched    []*conn        // connections with a backlog in gnet, or closing
	watchNext  int            // the one to look at next
	memory     loopMemory
	behind     []routing.Handle // connections that were not told of all changes yet, see tellChanges
	handshakes []hello          // oldest first
	mail       []outbox         // by loop
	pace                        // when it stamps
	active     bool             // inside an iteration
	lastRead   time.Duration    // when an iteration began last with one of gnet's callbacks
	now        int64            // milliseconds since the engine was made, read once an iteration
	scanNext   int
	awake      int64                         // milliseconds that the loop has been able to hear what came
	lastTick   int64                         // when it ticked last
	suspects   []routing.Handle              // connections that are given up soon if nothing comes
	aside      map[routing.SessionID][]*conn // those that have left their session or stepped back from it
	stats      loopStats
	fenced     uint64 // the incarnation this loop works under
	expired    func(ackmgr.Token, ackmgr.Entry)
	lost       func(ackmgr.Token, ackmgr.Entry)
	abandoned  func(ackmgr.Token, ackmgr.Entry)
	send       codec.Send           // scratch: decoding into them allocates nothing
	deliver    codec.Deliver        // scratch
	multi      codec.Multicast      // scratch
	many       codec.DeliverMany    // scratch
	fan        fan                  // scratch
	telling    []*conn              // connections with outcomes of multicasts to tell
	walk       mailFrame            // scratch of eachMail
	iov, spent [][]byte             // scratch of output.flush
	ack        codec.Ack            // scratch
	token      [codec.MaxToken]byte // scratch
	body       []byte               // of the send that is being decided on

	// owned by the loop; of a cluster
	links         []*conn                                   // to other nodes, with or without handshake
	linkLists     map[routing.Handle]map[uint64]ackmgr.List // of what waits for sessions at the other end of a link, by session
	sweeps        map[uint64]sweep                          // what is left of lists whose sessions have lost a connection, see linkGone
	sweepNo       uint64
	parked        map[string]*waitLine      // by ID
	lined         uint64                    // grows with each message that is parked or held
	deadlines     ranking.Ranking[*waiting] // of what is parked or held
	parkedSends   int                       // sends in parked and in connections' held; of the returned ones, those without ack
	returnedBytes int                       // of returned messages in parked
	returnedOn    map[routing.Handle]int    // those bytes, by the connection or link that they came back on
	disowned      *directory.Request        // what the frame in hand gives back, see releaseDisowned
	recents       map[string]recentAnswer
	holding       map[string][]routing.Handle // connections with held sends, by the sender they wait for
	casts         []readyCast                 // multicasts of which some recipients may go on
	toBuf         []byte                      // scratch of takeUp
	asked         directory.Holder            // the word on the sender whose held sends are going on
	forward       codec.Forward               // scratch
	answer        codec.Answer                // scratch
	sessionID     [codec.SessionIDLen]byte    // scratch
	scratch       []byte                      // a control frame for a link, until sendControl has it

	// shared
	armed  atomic.Bool  // the doorbell has been rung
	ticked atomic.Bool  // the ticker wants a tick
	seen   atomic.Int64 // the engine's clock at the loop's latest stamp, in nanoseconds
	inbox  inbox
	pubMu  sync.Mutex
	pub    loopStats // copy of stats for other goroutines, guarded by pubMu
}

// hello is a connection that has yet to say hello.
type hello struct {
	handle   routing.Handle
	deadline int64
}

func newLoop(e *Engine, idx int) *loop {
	l := &loop{eng: e, idx: uint16(idx), mail: make([]outbox, e.cfg.Loops), aside: make(map[routing.SessionID][]*conn)}
	l.bufs.shared = &e.bufs
	l.fan.each = recipientCost(e)
	if e.cluster != nil {
		l.linkLists = make(map[routing.Handle]map[uint64]ackmgr.List)
		l.returnedOn = make(map[routing.Handle]int)
		l.sweeps = make(map[uint64]sweep)
		l.parked = make(map[string]*waitLine)
		l.recents = make(map[string]recentAnswer)
		l.holding = make(map[string][]routing.Handle)
		l.scratch = make([]byte, 0, scratchSize)
	}
	l.pace = newPace(e)
	l.now = l.began.Milliseconds()
	l.lastTick = l.now
	l.seen.Store(int64(l.began))
	l.fenced = e.incarnation.Load()
	l.mostAcks = e.cfg.MaxAcks
	l.acks = ackmgr.New(ackmgr.Config{Tag: uint16(l.fenced), Loop: uint8(idx), Max: l.mostAcks}, l.now)
	end := func(code codec.Code) func(ackmgr.Token, ackmgr.Entry) {
		return func(_ ackmgr.Token, en ackmgr.Entry) {
			l.finishEntry(en, code, nil, nil)
			l.worked(1)
		}
	}
	l.expired, l.lost = end(codec.CodeTimeout), end(codec.CodeLost)
	l.abandoned = func(ackmgr.Token, ackmgr.Entry) {
		l.stats.abandoned++
		l.worked(1)
	}
	return l
}

// checkHandshakes closes connections that have not said hello in time, as far as the iteration's share
// allows, and reports whether there are more.
func (l *loop) checkHandshakes() (more bool) {
	n := 0
	for ; n < len(l.handshakes) && l.handshakes[n].deadline <= l.now; n++ {
		if l.full {
			more = true
			break
		}
		if c := l.conn(l.handshakes[n].handle); c != nil && c.state == stateHello && !c.in.inTurns {
			c.close(codec.FaultHelloTimeout, "no hello in "+l.eng.cfg.HelloTimeout.String())
		}
	}
	if n > 0 {
		l.handshakes = append(l.handshakes[:0], l.handshakes[n:]...)
	}
	return more
}

// checkWatched looks at connections that gnet buffers for, and at those that linger before they close.
// Where there are many, each is looked at every few ticks.
func (l *loop) checkWatched() {
	for n := min(len(l.watched), watchedStep); n > 0 && !l.full; n-- { // to close one can make others watched
		l.worked(1)
		if l.watchNext >= len(l.watched) {
			l.watchNext = 0
		}
		c := l.watched[l.watchNext]
		if c.out.check() {
			l.watchNext++
			continue
		}
		c.out.watched = false
		l.worked(writeWork) // as a rule its socket has been closed
		last := len(l.watched) - 1
		l.watched[l.watchNext] = l.watched[last]
		l.watched[last] = nil
		l.watched = l.watched[:last]
	}
}

// checkLinks pings silent nodes and gives up on dead ones: sooner than on clients.
func (l *loop) checkLinks() {
	kept := l.links[:0]
	for _, c := range l.links {
		silence := l.now - c.live.lastFrame
		switch {
		case c.state == stateClosed:
			continue
		case c.in.inTurns: // it has said something
		case c.state == stateOpen && silence >= linkDead.Milliseconds():
			c.close(codec.FaultIdleTimeout, "no frame for "+linkDead.String())
			continue
		case c.state == stateOpen && silence >= linkPing.Milliseconds() && !c.live.pinged:
			c.live.pinged = true
			c.out.wroteControl(codec.AppendPing(c.out.buf(), uint64(l.now)))
		}
		kept = append(kept, c)
	}
	clear(l.links[len(kept):])
	l.links = kept
}

// conn returns the connection that the handle names, or nil if it is gone. The handle must be of this loop.
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

// removeConn takes c out; handles to it are void from here on. Its slot is free with freeSlot.
func (l *loop) removeConn(c *conn) {
	l.conns[c.slot] = nil
	l.gens[c.slot]++
	l.live--
}

// freeSlot lets the slot have a new tenant.
func (l *loop) freeSlot(slot uint32) { l.freeSlots = append(l.freeSlots, slot) }
