package client

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"time"

	"distmsg/codec"
)

// A message may carry a trace (Message.Trace). If that is sampled and Config.OnSpan is set, the
// session makes a span of what it does with the message. The IDs of the span are those of W3C's
// traceparent, so a Span becomes a span of any system for traces. This package knows none of these
// systems: package client/otlp exports spans to a collector of OpenTelemetry.

// SpanKind says what a session did with a message.
type SpanKind uint8

// The kinds of spans.
const (
	SpanSend    SpanKind = 1 // Send, SendAsync or Multicast, from the call to the outcome
	SpanPost    SpanKind = 2 // Post or PostMulticast, until the message is in a buffer
	SpanHandler SpanKind = 3 // a Handler, from its call to its return
)

// Span says what a session did with a message whose trace is sampled.
type Span struct {
	Kind    SpanKind
	TraceID [16]byte
	ID      [8]byte // of this span
	Parent  [8]byte // of its parent: as in Message.Trace, or the sender's span for a handler
	Flags   byte    // of the trace
	Began   time.Time
	Ended   time.Time
	From    string
	To      string // "" for a multicast
	// Recipients is the number of IDs that the message was for. A handler's is 1.
	Recipients int
	// Failed is how many of them have another outcome than acked. For a handler it is 1 if it
	// rejected the message, panicked, or ended its goroutine.
	Failed int
	// Code is the outcome, for a multicast one of those that failed. For a post it is 0, unless it
	// was not sent. For a handler it is 0 if the answer is up to a Responder.
	Code Code
}

// mostSpans is how many spans may wait for OnSpan.
const mostSpans = 1 << 13

// mostAlike is how many handlers get spans of one frame. A multicast may be for thousands of IDs.
const mostAlike = 8

// spanning is a Span that has not ended. One goroutine at a time has it.
type spanning struct {
	Span
	trace [codec.TraceLen]byte // as frames and handlers have it: its parent is this span
}

// The places of a trace's parts.
const (
	traceIDAt    = 1
	parentAt     = 17
	traceFlagsAt = 25
	sampledFlag  = 1
)

// spanOf begins the span of a message to send to n IDs. It returns nil if nobody wants spans, or
// the message's trace is not sampled.
func (s *Session) spanOf(kind SpanKind, m *Message, n int) *spanning {
	if s.cfg.OnSpan == nil || m.Trace == "" {
		return nil
	}
	var trace [codec.TraceLen]byte
	if !codec.ParseTrace(&trace, m.Trace) || trace[traceFlagsAt]&sampledFlag == 0 {
		return nil
	}
	x := beginSpan(kind, trace)
	x.From, x.To, x.Recipients = m.From, m.To, n
	return x
}

// handlerSpan begins the span of the handler that gets d, which came in j. The handler finds this
// span in d.Trace. handlerSpan returns nil if nobody wants a span.
func (s *Session) handlerSpan(j *job, d *Delivery) *spanning {
	t := j.deliver.Trace
	if s.cfg.OnSpan == nil || j.spanless || len(t) != codec.TraceLen || t[traceFlagsAt]&sampledFlag == 0 {
		return nil
	}
	x := beginSpan(SpanHandler, [codec.TraceLen]byte(t))
	x.From, x.To, x.Recipients = d.From, d.To, 1
	d.Trace = codec.FormatTrace(x.trace[:])
	return x
}

// beginSpan makes a span whose parent is that of trace.
func beginSpan(kind SpanKind, trace [codec.TraceLen]byte) *spanning {
	x := &spanning{trace: trace}
	x.Kind, x.Began, x.Flags = kind, time.Now(), trace[traceFlagsAt]
	copy(x.TraceID[:], trace[traceIDAt:])
	copy(x.Parent[:], trace[parentAt:])
	for x.ID == [8]byte{} { // which is not valid
		binary.BigEndian.PutUint64(x.ID[:], rand.Uint64())
	}
	copy(x.trace[parentAt:], x.ID[:])
	return x
}

// endHandler ends the span x of the handler of d, which may be nil.
func (s *Session) endHandler(x *spanning, d *Delivery, returned bool) {
	if x == nil {
		return
	}
	if answer := d.answer.answered.Load(); answer != leftToResponder {
		x.Code = Code(answer)
	}
	if x.Code == codec.CodeRejected || !returned {
		x.Failed = 1
	}
	s.endSpan(x)
}

// failed counts n recipients that have the outcome code in the span x, which may be nil.
func (x *spanning) failed(code Code, n int) {
	if x != nil {
		x.Code = code
		x.Failed += n
	}
}

// endSpan passes x on to the application. It does nothing if x is nil.
func (s *Session) endSpan(x *spanning) {
	if x == nil {
		return
	}
	x.Ended = time.Now()
	if x.Code == 0 && x.Kind == SpanSend {
		x.Code = codec.CodeAcked
	}
	notify(s, true, s.cb.spans, x.Span)
}

// posted ends the span of a post, whose error may be nil. A post with an error of another type than
// *Error has no span, as a send has none.
func (s *Session) posted(x *spanning, err error) {
	if e, ok := errors.AsType[*Error](err); ok {
		s.endWith(x, e.Code)
	} else if err == nil {
		s.endSpan(x)
	}
}

// endWith ends the span of a message to one ID, or the whole of a message that was not sent.
func (s *Session) endWith(x *spanning, code Code) {
	if x != nil && code != codec.CodeAcked {
		x.failed(code, x.Recipients-x.Failed)
	}
	s.endSpan(x)
}
