package otlp

import (
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"distmsg/client"
	"distmsg/codec"
)

// Close sends what waits, and a collector sees the IDs and the outcome of a span.
func TestExporter(t *testing.T) {
	got := make(chan *collector.ExportTraceServiceRequest, 4)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		request := new(collector.ExportTraceServiceRequest)
		if err == nil {
			err = proto.Unmarshal(body, request)
		}
		if err != nil {
			t.Error(err)
		}
		got <- request
	}))
	defer server.Close()
	x, err := New(Config{Collector: server.URL, Service: "chat", Instance: "chat-3", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	sent := client.Span{
		Kind: client.SpanSend, TraceID: [16]byte{1}, ID: [8]byte{2}, Parent: [8]byte{3}, Flags: 1, Began: time.Unix(5, 0), Ended: time.Unix(6, 0),
		From: "alice", To: "bob", Recipients: 1, Failed: 1, Code: codec.CodeNoRoute,
	}
	handled := client.Span{Kind: client.SpanHandler, TraceID: [16]byte{1}, ID: [8]byte{4}, Parent: [8]byte{2}, Flags: 1, Recipients: 1}
	x.OnSpan(sent)
	x.OnSpan(handled)
	if err := x.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	var spans []*trace.Span
	for len(spans) < 2 {
		from := (<-got).GetResourceSpans()[0]
		if text := from.GetResource().String(); !strings.Contains(text, "chat-3") || strings.Contains(text, "service.version") {
			t.Errorf("resource %s", text)
		}
		spans = append(spans, from.GetScopeSpans()[0].GetSpans()...)
	}
	for i, want := range []struct {
		name, id, parent string
		kind             trace.Span_SpanKind
	}{
		{"distmsg send", "0200000000000000", "0300000000000000", trace.Span_SPAN_KIND_PRODUCER},
		{"distmsg handle", "0400000000000000", "0200000000000000", trace.Span_SPAN_KIND_CONSUMER},
	} {
		s := spans[i]
		if s.GetName() != want.name || hex.EncodeToString(s.GetSpanId()) != want.id || hex.EncodeToString(s.GetParentSpanId()) != want.parent ||
			s.GetKind() != want.kind || s.GetTraceId()[0] != 1 {
			t.Errorf("%v, want %+v", s, want)
		}
	}
	if s := spans[0]; s.GetStatus().GetCode() != trace.Status_STATUS_CODE_ERROR || !strings.Contains(s.String(), "no_route") {
		t.Errorf("%v", s)
	}
}

// A collector that hangs delays nobody: spans wait up to a limit, and are dropped and counted.
func TestHangingCollector(t *testing.T) {
	asked, release := make(chan struct{}, 8), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-release }))
	defer server.Close()
	defer close(release)
	x, err := New(Config{Collector: server.URL, Service: "chat", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := client.Span{TraceID: [16]byte{1}, ID: [8]byte{2}, Parent: [8]byte{3}, Flags: 1}
	x.OnSpan(s)
	<-asked
	for range maxWaiting + 3 {
		x.OnSpan(s)
	}
	if n := x.Dropped(); n != 3 {
		t.Errorf("%d spans were dropped", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := x.Close(ctx); err == nil {
		t.Error("Close says that the collector has the spans")
	}
}

func TestConfig(t *testing.T) {
	for want, cfg := range map[string]Config{
		"Service":   {Collector: "http://127.0.0.1:4318"},
		"Collector": {Collector: "127.0.0.1:4318", Service: "chat"},
	} {
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
