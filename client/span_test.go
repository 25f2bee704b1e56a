package client

import (
	"context"
	"slices"
	"testing"

	"distmsg/codec"
	"distmsg/engine"
)

const sampledTrace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// traceparent returns the trace whose parent is s.
func (s *Span) traceparent() string {
	var b [codec.TraceLen]byte
	copy(b[traceIDAt:], s.TraceID[:])
	copy(b[parentAt:], s.ID[:])
	b[traceFlagsAt] = s.Flags
	return codec.FormatTrace(b[:])
}

// spanTest is a sender and a receiver of one session, whose spans are heard.
type spanTest struct {
	*Session
	t      *testing.T
	spans  chan Span
	traces chan string // what handlers find in Delivery.Trace
}

func newSpanTest(t *testing.T, handle func(*Delivery)) *spanTest {
	s := &spanTest{t: t, spans: make(chan Span, 64), traces: make(chan string, 64)}
	cfg := Config{OnSpan: func(v Span) { s.spans <- v }, Handler: func(_ context.Context, d *Delivery) { s.traces <- d.Trace; handle(d) }}
	s.Session = holder(t, cfg, startNode(t, engine.Config{}).addr, "me")
	return s
}

// expect takes the span of a message and those of n handlers, whatever their order, and checks who
// is whose parent.
func (s *spanTest) expect(what string, kind SpanKind, n int) (sent Span, handlers []Span) {
	s.t.Helper()
	for len(handlers) < n || sent.Kind == 0 {
		v := receive(s.t, s.spans, what)
		if v.ID == [8]byte{} || v.Ended.Before(v.Began) || v.From != "me" {
			s.t.Errorf("%s: %+v", what, v)
		}
		if v.Kind == SpanHandler {
			handlers = append(handlers, v)
		} else {
			sent = v
		}
	}
	parent := sent
	parent.ID = parent.Parent
	if sent.Kind != kind || parent.traceparent() != sampledTrace {
		s.t.Errorf("%s: its span is %+v", what, sent)
	}
	traces := make(map[string]bool)
	for range n {
		traces[receive(s.t, s.traces, what)] = true
	}
	for _, v := range handlers {
		if v.Parent != sent.ID || v.TraceID != sent.TraceID || v.Recipients != 1 || !traces[v.traceparent()] {
			s.t.Errorf("%s: a handler's span is %+v; handlers have %v", what, v, traces)
		}
	}
	return sent, handlers
}

// A sampled message has a span at its sender, and a child of it at its handler, which finds that in
// its Delivery.
func TestSpans(t *testing.T) {
	s, ctx := newSpanTest(t, func(*Delivery) {}), testContext(t)
	m := Message{From: "me", To: "me", Trace: sampledTrace}
	if _, err := s.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	sent, handled := s.expect("Send", SpanSend, 1)
	if sent.Code != codec.CodeAcked || sent.Failed != 0 || sent.Recipients != 1 || sent.To != "me" || handled[0].Code != codec.CodeAcked {
		t.Errorf("Send: %+v, %+v", sent, handled)
	}
	done := make(chan error, 1)
	s.SendAsync(ctx, m, func(_ Reply, err error) { done <- err })
	if err := receive(t, done, "the outcome"); err != nil {
		t.Fatal(err)
	}
	s.expect("SendAsync", SpanSend, 1)
	if _, err := s.Post(ctx, m); err != nil {
		t.Fatal(err)
	}
	if sent, _ := s.expect("Post", SpanPost, 1); sent.Code != 0 {
		t.Errorf("Post: %+v", sent)
	}
	m.To = ""
	if _, err := s.PostMulticast(ctx, m, []string{"me", "me"}); err != nil {
		t.Fatal(err)
	}
	s.expect("PostMulticast", SpanPost, 2)
	all, err := s.Multicast(ctx, m, []string{"me", "nobody", "", "me"})
	if err != nil || len(all) != 4 {
		t.Fatal(all, err)
	}
	if sent, _ := s.expect("Multicast", SpanSend, 2); sent.Recipients != 4 || sent.Failed != 2 || sent.Code == codec.CodeAcked || sent.To != "" {
		t.Errorf("Multicast: %+v", sent)
	}
}

// Messages that fail have spans that say so, and messages that are not sampled have none.
func TestSpansOfFailures(t *testing.T) {
	s := newSpanTest(t, func(d *Delivery) {
		switch string(d.Payload) {
		case "reject":
			_ = d.Reject("no")
		case "panic":
			panic("no")
		case "defer":
			_ = d.Defer().Accept()
		}
	})
	ctx := testContext(t)
	for _, trace := range []string{"", "nonsense", sampledTrace[:54] + "0"} {
		if _, err := s.Send(ctx, Message{From: "me", To: "me", Trace: trace}); err != nil {
			t.Fatal(err)
		}
		<-s.traces
	}
	for payload, want := range map[string]struct {
		sent, handled Code
		failed        int
	}{
		"reject": {codec.CodeRejected, codec.CodeRejected, 1}, "panic": {codec.CodeRejected, codec.CodeRejected, 1}, "defer": {codec.CodeAcked, 0, 0},
	} {
		_, _ = s.Send(ctx, Message{From: "me", To: "me", Payload: []byte(payload), Trace: sampledTrace})
		sent, all := s.expect(payload, SpanSend, 1)
		if sent.Code != want.sent || sent.Failed != want.failed || all[0].Code != want.handled || all[0].Failed != want.failed {
			t.Errorf("%s: %+v, %+v", payload, sent, all)
		}
	}
	for to, code := range map[string]Code{"nobody": codec.CodeNoRoute, "": codec.CodeBadID} {
		_, _ = s.Send(ctx, Message{From: "me", To: to, Trace: sampledTrace})
		if sent, _ := s.expect("to "+to, SpanSend, 0); sent.Code != code || sent.Failed != 1 {
			t.Errorf("to %q: %+v", to, sent)
		}
	}
}

// A frame for many IDs of one session has spans for the first few handlers only.
func TestSpansOfManyHandlers(t *testing.T) {
	s := newSpanTest(t, func(*Delivery) {})
	if _, err := s.Multicast(testContext(t), Message{From: "me", Trace: sampledTrace}, slices.Repeat([]string{"me"}, 20)); err != nil {
		t.Fatal(err)
	}
	sent, handlers := Span{}, 0
	for sent.Kind == 0 || handlers < mostAlike {
		switch v := receive(t, s.spans, "a span"); v.Kind {
		case SpanHandler:
			handlers++
		case SpanSend:
			sent = v
		}
	}
	if err := s.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	for len(s.spans) > 0 {
		if v := <-s.spans; v.Kind == SpanHandler {
			handlers++
		}
	}
	if handlers != mostAlike || sent.Recipients != 20 {
		t.Errorf("%d spans of handlers, and %+v", handlers, sent)
	}
}

// An OnSpan that does not return delays nobody. What does not fit is counted.
func TestStuckOnSpan(t *testing.T) {
	release := make(chan struct{})
	s := holder(t, Config{OnSpan: func(Span) { <-release }, Handler: func(context.Context, *Delivery) {}}, startNode(t, engine.Config{}).addr, "me")
	defer close(release)
	ctx := testContext(t)
	for range mostSpans/2 + 10 { // each has two spans
		if _, err := s.Send(ctx, Message{From: "me", To: "me", Trace: sampledTrace}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "spans are dropped", func() bool { return s.Stats().EventsDropped > 0 })
}

// Without OnSpan a sampled message costs no memory, and with it one that is not sampled.
func TestSpansAllocateNothing(t *testing.T) {
	off, on := &Session{}, &Session{cfg: Config{OnSpan: func(Span) {}}}
	sampled, not := Message{Trace: sampledTrace}, Message{Trace: sampledTrace[:54] + "0"}
	sum := testing.AllocsPerRun(100, func() {
		off.endWith(off.spanOf(SpanSend, &sampled, 1), codec.CodeAcked)
		on.posted(on.spanOf(SpanPost, &not, 1), nil)
	})
	if sum != 0 {
		t.Errorf("%v allocations", sum)
	}
}
