package main

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
	"distmsg/client/otlp"
	"distmsg/internal/cli"
	"distmsg/internal/proc"
)

// tracing is a collector. spans has what it gets.
type tracing struct {
	url   string
	spans chan *trace.Span
}

func startCollector(t *testing.T) *tracing {
	c := &tracing{spans: make(chan *trace.Span, 64)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var request collector.ExportTraceServiceRequest
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = proto.Unmarshal(body, &request)
		}
		if err != nil {
			t.Error(err)
		}
		for _, from := range request.GetResourceSpans() {
			for _, s := range from.GetScopeSpans()[0].GetSpans() {
				c.spans <- s
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// take returns the spans by their names, once there are n.
func (c *tracing) take(t *testing.T, n int) map[string]*trace.Span {
	t.Helper()
	all, late := make(map[string]*trace.Span), time.After(patience)
	for len(all) < n {
		select {
		case s := <-c.spans:
			all[s.GetName()] = s
		case <-late:
			t.Fatalf("only these spans: %v", all)
		}
	}
	return all
}

// One trace shows the way of a message: from the sender's SDK over two nodes to the receiver's
// handler.
func TestOTLP(t *testing.T) {
	redis, c := startRedis(t, proc.RedisOptions{}), startCollector(t)
	node := func(id, peers string) *proc.Relay {
		relay, err := proc.StartRelay(t.Context(), proc.RelayOptions{
			Flags: []string{"--node-id", id, "--peers", peers, "--peer-listen", "{peer-addr}", "--registry", redis.URL(), "--otlp-endpoint", c.url},
			Env:   []string{testSecret},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(relay.Close)
		return relay
	}
	n1 := node("n1", "n0=127.0.0.1:1/127.0.0.1:2")
	n0 := node("n0", "n0={addr}/{peer-addr},n1="+n1.Addr+"/"+n1.PeerAddr)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	quiet := slog.New(slog.DiscardHandler)
	dial := func(addr, id string) (s *client.Session, end func()) {
		spans, err := otlp.New(otlp.Config{Collector: c.url, Service: id, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		s, err = client.Dial(ctx, client.Config{Nodes: []string{addr}, Logger: quiet, OnSpan: spans.OnSpan, Handler: func(context.Context, *client.Delivery) {}})
		if err == nil {
			err = s.Bind(ctx, id)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s, func() { s.Close(ctx); spans.Close(ctx) }
	}
	alice, endAlice := dial(n0.Addr, "alice")
	_, endBob := dial(n1.Addr, "bob")
	const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if _, err := alice.Send(ctx, client.Message{To: "bob", From: "alice", Trace: traceparent}); err != nil {
		t.Fatal(err)
	}
	endAlice()
	endBob()
	all := c.take(t, 4)
	send := all["distmsg send"]
	if hex.EncodeToString(send.GetParentSpanId()) != traceparent[36:52] {
		t.Errorf("%v", send)
	}
	for _, name := range []string{"distmsg send", "distmsg forward", "distmsg deliver", "distmsg handle"} {
		s := all[name]
		if hex.EncodeToString(s.GetTraceId()) != traceparent[3:35] || s != send && string(s.GetParentSpanId()) != string(send.GetSpanId()) {
			t.Errorf("%s: %v", name, s)
		}
	}
	if code, _, stderr := run(t, "--otlp-endpoint=collector:4318"); code != cli.ExitUsage || !strings.Contains(stderr, "--otlp-endpoint") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}
