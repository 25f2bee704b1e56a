package engine

import (
	"time"

	"distmsg/codec"
)

// A message may carry a trace (codec.Send). If that is sampled, the node makes a span: for how long
// the message was in the node. The loop keeps spans in a buffer of its own, and its tick publishes
// them. Whoever exports them takes them from there, so a loop never waits for that. A buffer that
// is full drops spans.

// Span says for how long a node had a message whose trace is sampled.
type Span struct {
	Trace [codec.TraceLen]byte // that of the message
	// Began is when the node read the message, and Ended when it wrote it, or gave it to the event
	// loop of its receiver. Both are as exact as Times.Residence.
	Began, Ended time.Time
	Forwarded    bool // it went to another node, and not to a client
	Recipients   int  // of the frame
}

// mostAlike is how many spans a loop makes in a row for one trace. A message to many has a frame
// for each connection, and needs no span for each.
const mostAlike = 8

// sampledFlag is the bit in the last byte of a trace that says that it is sampled.
const sampledFlag = 1

// span is a Span as a loop keeps it.
type span struct {
	trace      [codec.TraceLen]byte
	forwarded  bool
	recipients int
	began      time.Duration // on the engine's clock
	ended      time.Duration
}

// loopSpans are the spans of a loop. The loop owns them.
type loopSpans struct {
	loop *loop // static

	made    []span // it never grows; of no capacity: spans are off
	written int    // those before it have ended
	alike   int    // how many in a row have the trace of the last
	dropped uint64
}

// note makes the span of a message that is about to be queued for n recipients.
func (s *loopSpans) note(trace []byte, forwarded bool, n int) {
	if cap(s.made) == 0 || len(trace) != codec.TraceLen || trace[codec.TraceLen-1]&sampledFlag == 0 {
		return
	}
	t := [codec.TraceLen]byte(trace)
	if last := len(s.made) - 1; last < 0 || s.made[last].trace != t {
		s.alike = 0
	} else if s.alike++; s.alike == mostAlike {
		s.alike--
		return
	}
	if len(s.made) == cap(s.made) {
		s.dropped++
		return
	}
	s.made = append(s.made, span{trace: t, forwarded: forwarded, recipients: n, began: s.loop.readAt})
}

// end ends the spans of what has just been written.
func (s *loopSpans) end() {
	for ; s.written < len(s.made); s.written++ {
		s.made[s.written].ended = s.loop.pace.stamped
	}
}

// publish moves the spans that have ended to where TakeSpans finds them. The loop holds pubMu.
func (s *loopSpans) publish() {
	l := s.loop
	n := min(s.written, cap(s.made)-len(l.pubSpans))
	l.pubSpans = append(l.pubSpans, s.made[:n]...)
	s.dropped += uint64(s.written - n)
	s.made = s.made[:copy(s.made, s.made[s.written:])]
	s.written = 0
}

// TakeSpans appends the spans since the last call to all, if Config.Spans is set. Any goroutine but
// an event loop may call it.
func (e *Engine) TakeSpans(all []Span) []Span {
	select {
	case <-e.ready:
	default:
		return all // e.loops may not be there yet
	}
	for _, l := range e.loops {
		l.pubMu.Lock()
		for _, s := range l.pubSpans {
			all = append(all, Span{
				Trace: s.trace, Began: e.clk.born.Add(s.began), Ended: e.clk.born.Add(s.ended),
				Forwarded: s.forwarded, Recipients: s.recipients,
			})
		}
		l.pubSpans = l.pubSpans[:0]
		l.pubMu.Unlock()
	}
	return all
}
