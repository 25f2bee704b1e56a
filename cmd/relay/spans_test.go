package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"distmsg/client"
	"distmsg/internal/cli"
)

// A message whose trace is sampled is a span at the collector.
func TestOTLP(t *testing.T) {
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var request collector.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil {
			t.Error(err)
		}
		select {
		case got <- request.String():
		default:
		}
	}))
	defer server.Close()
	p := start(t, nil, "--otlp-endpoint="+server.URL, "--node-id=n1")
	addr, _ := p.addresses()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := client.Dial(ctx, client.Config{Nodes: []string{addr}, Logger: slog.New(slog.DiscardHandler), Handler: func(context.Context, *client.Delivery) {}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(ctx)
	if err := s.Bind(ctx, "me"); err != nil {
		t.Fatal(err)
	}
	m := client.Message{To: "me", From: "me", Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
	if _, err := s.Send(ctx, m); err != nil {
		t.Fatal(err)
	}
	select {
	case text := <-got:
		if !strings.Contains(text, "distmsg deliver") || !strings.Contains(text, "n1") {
			t.Errorf("%s", text)
		}
	case <-ctx.Done():
		t.Error("the collector gets nothing")
	}
	if code, _, stderr := run(t, "--otlp-endpoint=collector:4318"); code != cli.ExitUsage || !strings.Contains(stderr, "--otlp-endpoint") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
