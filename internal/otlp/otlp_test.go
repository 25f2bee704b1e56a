package otlp

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"distmsg/codec"
)

var node = Resource{Service: "distmsg-relay", Instance: "n1", Version: "v1"}

// requests returns the URL of a collector, and what it gets.
func requests(t *testing.T, broken *atomic.Bool) (url string, got <-chan *collector.ExportTraceServiceRequest) {
	all := make(chan *collector.ExportTraceServiceRequest, 4)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			http.Error(w, "broken", http.StatusInternalServerError)
			return
		}
		body, err := io.ReadAll(r.Body)
		request := new(collector.ExportTraceServiceRequest)
		if err == nil {
			err = proto.Unmarshal(body, request)
		}
		if err != nil || r.URL.Path != tracesPath || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("%s %s, %v", r.URL, r.Header, err)
		}
		all <- request
	}))
	t.Cleanup(server.Close)
	return server.URL, all
}

func TestExport(t *testing.T) {
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	var broken atomic.Bool
	broken.Store(true)
	url, got := requests(t, &broken)
	began := time.Unix(1_700_000_000, 5)
	one := Span{Name: "distmsg forward", Began: began, Ended: began.Add(3 * time.Millisecond), Recipients: 7}
	if !codec.ParseTrace(&one.Parent, traceparent) {
		t.Fatal("the trace of the test is none")
	}
	var log bytes.Buffer
	x, err := New(t.Context(), node, url, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // which are lost
		x.Export(t.Context(), []Span{one})
	}
	broken.Store(false)
	two := one
	two.Name, two.Recipients, two.ID = "distmsg send", 1, [8]byte{1, 2, 3, 4, 5, 6, 7, 8}
	two.To, two.Failed, two.Code = "bob", 1, codec.CodeNoRoute
	x.Export(t.Context(), []Span{one, two})
	if text := log.String(); strings.Count(text, "does not take spans") != 1 || strings.Count(text, "takes spans again") != 1 {
		t.Errorf("log:\n%s", text)
	}
	all := (<-got).GetResourceSpans()
	if len(all) != 1 || len(all[0].GetScopeSpans()) != 1 || len(all[0].GetScopeSpans()[0].GetSpans()) != 2 {
		t.Fatalf("%v", all)
	}
	if text := all[0].GetResource().String(); !strings.Contains(text, "n1") || !strings.Contains(text, "distmsg-relay") {
		t.Errorf("resource %s", text)
	}
	spans := all[0].GetScopeSpans()[0].GetSpans()
	for i, name := range []string{"distmsg forward", "distmsg send"} {
		s := spans[i]
		if s.GetName() != name || hex.EncodeToString(s.GetTraceId()) != traceparent[3:35] || hex.EncodeToString(s.GetParentSpanId()) != traceparent[36:52] {
			t.Errorf("%v", s)
		}
		if len(s.GetSpanId()) != 8 || bytes.Equal(s.GetSpanId(), s.GetParentSpanId()) {
			t.Errorf("span ID %x of %v", s.GetSpanId(), s)
		}
		if s.GetStartTimeUnixNano() != uint64(began.UnixNano()) || s.GetEndTimeUnixNano() != uint64(one.Ended.UnixNano()) {
			t.Errorf("times of %v", s)
		}
	}
	if bytes.Equal(spans[0].GetSpanId(), spans[1].GetSpanId()) || !bytes.Equal(spans[1].GetSpanId(), two.ID[:]) {
		t.Errorf("the spans have the IDs %x and %x", spans[0].GetSpanId(), spans[1].GetSpanId())
	}
	if text := spans[1].String(); !strings.Contains(text, "bob") || !strings.Contains(text, "STATUS_CODE_ERROR") || !strings.Contains(text, "no_route") {
		t.Errorf("%s", text)
	}
	if text := spans[0].GetStatus().String(); text != "" {
		t.Errorf("status %s of what went well", text)
	}
}

// Run takes what there is, and ends with its context.
func TestRun(t *testing.T) {
	var broken atomic.Bool
	url, got := requests(t, &broken)
	take := func(all []Span) []Span {
		return append(all, Span{Parent: [codec.TraceLen]byte{1: 1, 17: 1, 25: 1}, Began: time.Now(), Ended: time.Now()})
	}
	x, err := New(t.Context(), node, url+"/", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { x.Run(ctx, take); close(done) }()
	<-got
	cancel()
	<-done
}

func TestURL(t *testing.T) {
	for text, ok := range map[string]bool{
		"http://127.0.0.1:4318": true, "https://collector.example/otlp/v1/traces": true,
		"": false, "127.0.0.1:4318": false, "grpc://x:4317": false, "http://": false, "http://me:secret@collector:4318": false,
	} {
		if err := CheckURL(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
