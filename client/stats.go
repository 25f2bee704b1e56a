package client

import (
	"sync/atomic"
	"time"

	"distmsg/codec"
)

// Stats is what a session has done since Dial, and what it is doing now.
type Stats struct {
	// InFlight counts the acked sends that hold a place in the window. One that ended here with its
	// context keeps its place until the node's outcome comes.
	InFlight      int
	InFlightBytes int
	IDs           int // bound, or about to be
	Watched       int // IDs
	Queued        int // messages and callbacks that wait or run
	Handlers      int // that run; when they are as many as Config.Workers, the messages of other IDs wait
	Stuck         int // callbacks that have not returned for a second or longer

	Sent         uint64          // acked sends handed to a connection's buffer
	Outcomes     map[Code]uint64 // how acked sends ended, each once; those that never reached a buffer included
	LateOutcomes uint64          // outcomes for sends that had ended, doubles and forgeries included; ignored
	Posted       uint64          // posts handed to a connection's buffer
	PostsFailed  uint64          // posts reported as undeliverable, or still unwritten when their connection died

	Received uint64 // messages, however they were answered
	NotHere  uint64 // of these: returned, because the ID is not held
	Busy     uint64 // of these: rejected (or, without ack, dropped) because the queue was full
	Unheard  uint64 // answers whose connection was gone
	Expired  uint64 // of these: not handled, because their deadline had passed when their handler was free
	Panics   uint64 // of handlers, callbacks, Dialer and Membership, those included that ended their goroutine

	Kicks         uint64 // IDs lost
	Attaches      uint64 // connections that got as far as welcome
	Faults        uint64 // error frames and unknown kinds from nodes
	EventsDropped uint64 // calls of OnPostFailed, OnOutcome, OnState and OnDrain that did not fit into their queue
	LogsDropped   uint64 // log records that the logger's handler was too slow for

	Writes, Reads     uint64 // system calls
	BytesOut, BytesIn uint64
}

// counters are Stats' numbers while they are counted.
type counters struct {
	sent, late, posted, postsFailed          atomic.Uint64
	received, notHere, busy, unheard         atomic.Uint64
	expired, panics, kicks, attaches, faults atomic.Uint64
	eventsDropped                            atomic.Uint64
	writes, reads, bytesOut, bytesIn         atomic.Uint64
	outcomes                                 [128]atomic.Uint64
}

// Outcome is how one message ended whose sender waited for that.
type Outcome struct {
	Code Code
	// RoundTrip is the time from the call until the outcome was known, waiting for the window and for a node included.
	RoundTrip time.Duration
}

// ended counts an outcome of a call that began at since, as stamp gave it.
func (s *Session) ended(code Code, since time.Time) {
	s.count.outcomes[code&127].Add(1)
	if s.cfg.OnOutcome != nil {
		notify(s, true, s.cb.outcomes, Outcome{code, time.Since(since)})
	}
}

// stamp is when a call begins, if somebody wants to know.
func (s *Session) stamp() (now time.Time) {
	if s.cfg.OnOutcome != nil {
		now = time.Now()
	}
	return now
}

// Stats returns the session's numbers. It may be called from any goroutine, also after Close.
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
