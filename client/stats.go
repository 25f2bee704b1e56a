package client

import (
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// Stats counts what a session has done since Dial, and shows what it is doing now.
type Stats struct {
	// InFlight counts the sends with ack that hold a place in the window. A send that ended with
	// its context keeps its place until the node's outcome comes.
	InFlight      int
	InFlightBytes int
	IDs           int // bound, or about to be
	Watched       int // IDs
	Queued        int // messages and callbacks that wait or run
	// handlers that run; when there are Config.Workers of them, the messages of other IDs wait
	Handlers int
	Stuck    int // callbacks that have not returned for a second or longer

	Sent uint64 // sends with ack appended to a connection's buffer
	// how sends with ack ended, each once, including those that never reached a buffer
	Outcomes map[Code]uint64
	// ignored outcomes for sends that had ended, including duplicates and forgeries
	LateOutcomes uint64
	Posted       uint64 // posts appended to a connection's buffer
	// posts reported as undeliverable, or still unwritten when their connection died
	PostsFailed uint64

	Received uint64 // messages, however they were answered
	NotHere  uint64 // of these: returned, because the ID is not held
	Busy     uint64 // of these: rejected (or, without ack, dropped) because the queue was full
	Unheard  uint64 // answers whose connection had closed
	// of these: not handled, because their deadline had passed when their handler was free
	Expired uint64
	// of handlers, callbacks, Dialer and Membership, including calls that ended their goroutine
	Panics uint64

	Kicks    uint64 // IDs lost
	Attaches uint64 // connections that got as far as welcome
	Faults   uint64 // error frames and unknown kinds from nodes
	// calls of OnPostFailed, OnOutcome, OnSpan, OnState and OnDrain that did not fit into their
	// queues
	EventsDropped uint64
	LogsDropped   uint64 // log records that were dropped because the logger's handler was too slow

	Writes, Reads     uint64 // system calls
	BytesOut, BytesIn uint64
}

// counters are the counters behind Stats.
type counters struct {
	sent, late, posted, postsFailed          atomic.Uint64
	received, notHere, busy, unheard         atomic.Uint64
	expired, panics, kicks, attaches, faults atomic.Uint64
	eventsDropped                            atomic.Uint64
	writes, reads, bytesOut, bytesIn         atomic.Uint64
	outcomes                                 [128]atomic.Uint64
}

// Outcome is the outcome of one message whose sender waited for it.
type Outcome struct {
	Code Code
	// RoundTrip is the time from the call until the outcome was known. It includes the wait for the
	// window and for a node.
	RoundTrip time.Duration
}

// ended counts an outcome of a call that began at since, as stamp gave it.
func (s *Session) ended(code Code, since time.Time) {
	s.count.outcomes[code&127].Add(1)
	if s.cfg.OnOutcome != nil {
		notify(s, true, s.cb.outcomes, Outcome{code, time.Since(since)})
	}
}

// stamp returns the time when a call begins, if anybody needs it.
func (s *Session) stamp() (now time.Time) {
	if s.cfg.OnOutcome != nil {
		now = time.Now()
	}
	return now
}

// Stats returns the session's numbers. Any goroutine may call it, also after Close.
func (s *Session) Stats() Stats {
	c := &s.count
	v := Stats{
		IDs: s.holds.len(), Watched: s.watches.len(), Stuck: s.cb.group.Stuck(),
		Sent: c.sent.Load(), LateOutcomes: c.late.Load(), Posted: c.posted.Load(), PostsFailed: c.postsFailed.Load(),
		Received: c.received.Load(), NotHere: c.notHere.Load(), Busy: c.busy.Load(), Unheard: c.unheard.Load(),
		Expired: c.expired.Load(), Panics: c.panics.Load(), Kicks: c.kicks.Load(), Attaches: c.attaches.Load(), Faults: c.faults.Load(),
		EventsDropped: c.eventsDropped.Load(), LogsDropped: s.log.Dropped(),
		Writes: c.writes.Load(), Reads: c.reads.Load(), BytesOut: c.bytesOut.Load(), BytesIn: c.bytesIn.Load(),
		Outcomes: make(map[Code]uint64),
	}
	v.Queued, v.Handlers = s.inbox.queued()
	v.Queued += s.cb.group.Pending()
	v.InFlight, v.InFlightBytes = s.window.used()
	for code := range c.outcomes {
		if n := c.outcomes[code].Load(); n > 0 {
			v.Outcomes[codec.Code(code)] = n
		}
	}
	return v
}
