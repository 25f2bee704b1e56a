package admin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/internal/cli"
)

type fakeNode struct {
	ready    chan struct{}
	draining bool
	stats    engine.Stats
	troubles []string
}

func (n *fakeNode) Ready() <-chan struct{} { return n.ready }
func (n *fakeNode) Draining() bool         { return n.draining }
func (n *fakeNode) Stats() engine.Stats    { return n.stats }
func (n *fakeNode) Health() []string       { return n.troubles }

func (n *fakeNode) LoopSilence() time.Duration { return n.stats.LoopSilence }

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthAndReadiness(t *testing.T) {
	node := &fakeNode{ready: make(chan struct{})}
	h := Handler(node, Options{})
	check := func(when, path string, want int) {
		t.Helper()
		if code, body := get(t, h, path); code != want {
			t.Errorf("%s: %s is %d %q, want %d", when, path, code, body, want)
		}
	}
	check("starting", "/healthz", http.StatusOK)
	check("starting", "/readyz", http.StatusServiceUnavailable)
	close(node.ready)
	check("running", "/readyz", http.StatusOK)
	node.draining = true
	check("draining", "/readyz", http.StatusServiceUnavailable)
	check("draining", "/healthz", http.StatusOK)
	check("draining", "/nowhere", http.StatusNotFound)
	node.draining = false
	node.stats.LoopSilence = 2 * time.Second
	check("standing still", "/readyz", http.StatusServiceUnavailable)
	node.stats.LoopSilence = 20 * time.Millisecond
	check("going on", "/readyz", http.StatusOK)
}

// A node with troubles is alive and takes clients; it says what it does without.
func TestDegraded(t *testing.T) {
	node := &fakeNode{ready: make(chan struct{})}
	close(node.ready)
	var others []string
	h := Handler(node, Options{Troubles: []func() []string{func() []string { return others }}})
	check := func(path string, want string) {
		t.Helper()
		if code, body := get(t, h, path); code != http.StatusOK || !strings.Contains("\n"+body, "\n"+want+"\n") {
			t.Errorf("%s is %d %q, want 200 and %q", path, code, body, want)
		}
	}
	check("/healthz", "ok")
	check("/metrics", "distmsg_degraded 0")
	node.troubles, others = []string{"no registry", "no link"}, []string{"no list"}
	check("/healthz", "degraded\nno registry\nno link\nno list")
	check("/metrics", "distmsg_degraded 3")
	check("/readyz", "ok")
	node.troubles = nil
	check("/healthz", "degraded\nno list")
}

func TestMetrics(t *testing.T) {
	node := &fakeNode{stats: engine.Stats{
		Connections:   3,
		Sends:         7,
		LongestStall:  1500 * time.Millisecond,
		Outcomes:      map[codec.Code]uint64{codec.CodeAcked: 5, codec.CodeNoRoute: 2},
		Faults:        map[codec.Fault]uint64{codec.FaultBadToken: 1},
		RegistryCalls: []engine.RegistryCall{{Operation: "bind", Time: lasted(3 * time.Millisecond)}},
		Limited: []engine.Limited{
			{Identity: "shop", Limit: "identity-bytes", Times: 3},
			{Identity: "(others)", Limit: "identity-bytes", Times: 1}, {Other: true, Limit: "identity-bytes", Times: 1},
			{Identity: "\xff", Limit: "identity-bytes", Times: 1}, {Identity: "\uFFFD", Limit: "identity-bytes", Times: 4},
		},
	}}
	code, body := get(t, Handler(node, Options{}), "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	for _, line := range []string{
		`distmsg_connections 3`,
		`distmsg_sends_total 7`,
		`distmsg_loop_stall_longest_seconds 1.5`,
		`distmsg_outcomes_total{outcome="acked"} 5`,
		`distmsg_outcomes_total{outcome="no_route"} 2`,
		`distmsg_outcomes_total{outcome="timeout"} 0`,
		`distmsg_faults_total{fault="bad_token"} 1`,
		`distmsg_faults_total{fault="zero_length"} 0`,
		`distmsg_registry_call_seconds_bucket{operation="bind",result="ok",le="0.001953125"} 0`,
		`distmsg_registry_call_seconds_bucket{operation="bind",result="ok",le="0.00390625"} 1`,
		`distmsg_registry_call_seconds_bucket{operation="bind",result="ok",le="+Inf"} 1`,
		`distmsg_registry_call_seconds_sum{operation="bind",result="ok"} 0.003`,
		`distmsg_message_residence_seconds_count 0`,
		`distmsg_limited_total{identity="shop",limit="identity-bytes"} 3`,
		`distmsg_limited_total{identity="(others)",limit="identity-bytes"} 2`,
		"distmsg_limited_total{identity=\"\uFFFD\",limit=\"identity-bytes\"} 5",
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("no line %q", line)
		}
	}
	for _, name := range []string{"go_goroutines", "go_build_info", "process_open_fds"} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("no metric %s", name)
		}
	}
}

func TestMetricNamesAreClean(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newCollector(func() engine.Stats { return allStats() }), newDegraded(func() []string { return nil }),
		newLogins(nil), newBuildInfo(cli.ReadBuild()))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// allStats has something for each metric that is only there if there is something to say.
func allStats() engine.Stats {
	return engine.Stats{
		PerLoop:       make([]engine.LoopStats, 2),
		PerLink:       []engine.LinkStats{{Node: "n2"}},
		SlowConsumers: map[string]uint64{"queue_full": 1},
		Limited:       []engine.Limited{{Limit: "identity-bytes", Times: 1}},
		RegistryCalls: []engine.RegistryCall{{Operation: "bind"}},
	}
}

// Every number in Stats has a metric: set one field after the other and see something change.
func TestEveryStatHasAMetric(t *testing.T) {
	var stats engine.Stats
	value := reflect.ValueOf(&stats).Elem()
	scrape := func() string {
		_, body := get(t, statsOnly(stats), "/")
		return body
	}
	zero := scrape()
	for i := range value.NumField() {
		field := value.Field(i)
		switch {
		case field.CanInt():
			field.SetInt(1)
		case value.Type().Field(i).Name == "BytesIn", value.Type().Field(i).Name == "BytesOut":
			continue // they are sums of what PerLoop has
		case field.CanUint():
			field.SetUint(1)
		case field.Type() == reflect.TypeFor[map[codec.Code]uint64]():
			field.Set(reflect.ValueOf(map[codec.Code]uint64{codec.CodeLost: 1}))
		case field.Type() == reflect.TypeFor[map[codec.Fault]uint64]():
			field.Set(reflect.ValueOf(map[codec.Fault]uint64{codec.FaultInternal: 1}))
		case field.Type() == reflect.TypeFor[engine.Times]():
			eachHistogram(t, field, func(name string) {
				if scrape() == zero {
					t.Errorf("Times.%s has no metric", name)
				}
			})
			continue
		case field.Type() == reflect.TypeFor[[]engine.RegistryCall]():
			field.Set(reflect.ValueOf([]engine.RegistryCall{{Operation: "bind"}}))
		case field.Type() == reflect.TypeFor[map[string]uint64]():
			field.Set(reflect.ValueOf(map[string]uint64{"queue_full": 1}))
		case field.Type() == reflect.TypeFor[[]engine.LoopStats]():
			field.Set(reflect.ValueOf([]engine.LoopStats{{Mail: 1}}))
		case field.Type() == reflect.TypeFor[[]engine.LinkStats]():
			field.Set(reflect.ValueOf([]engine.LinkStats{{Node: "n1"}}))
		case field.Type() == reflect.TypeFor[[]engine.Limited]():
			field.Set(reflect.ValueOf([]engine.Limited{{Limit: "identity-bytes", Times: 1}}))
		default:
			t.Errorf("Stats.%s is of a type this test does not know", value.Type().Field(i).Name)
		}
		if scrape() == zero {
			t.Errorf("Stats.%s has no metric", value.Type().Field(i).Name)
		}
		field.SetZero()
	}
}

// eachHistogram sets one field of an engine.Times after the other and calls f with its name.
func eachHistogram(t *testing.T, times reflect.Value, f func(name string)) {
	for i := range times.NumField() {
		h, ok := times.Field(i).Addr().Interface().(*engine.Histogram)
		if !ok {
			t.Errorf("Times.%s is no histogram", times.Type().Field(i).Name)
			continue
		}
		*h = lasted(time.Second)
		f(times.Type().Field(i).Name)
		*h = engine.Histogram{}
	}
}

// lasted returns a histogram with one duration.
func lasted(d time.Duration) (h engine.Histogram) {
	h.Add(d, 1)
	return h
}

// statsOnly answers every path with the metrics of stats alone.
func statsOnly(stats engine.Stats) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(newCollector(func() engine.Stats { return stats }))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

func TestServe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- (&Server{Handler: Handler(&fakeNode{}, Options{}), Logger: slog.New(slog.DiscardHandler)}).Serve(ctx, l)
	}()
	resp, err := http.Get("http://" + l.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "ok\n" {
		t.Errorf("got %q, %v", body, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve returned %v after its context ended", err)
	}

	if err := (&Server{Handler: Handler(&fakeNode{}, Options{}), Logger: slog.New(slog.DiscardHandler)}).Serve(t.Context(), l); err == nil {
		t.Error("Serve on a closed listener returned no error")
	}
}
