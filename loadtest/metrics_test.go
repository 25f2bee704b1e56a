package loadtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestMetricsOfTheServer has a server elsewhere, whose metrics say that it used 2 s of CPU in the
// measured time.
func TestMetricsOfTheServer(t *testing.T) {
	node, err := startNode(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.stop(); err != nil {
			t.Error(err)
		}
	}()
	var asked atomic.Int64
	metrics := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "process_cpu_seconds_total %d\nprocess_resident_memory_bytes 1000\n"+
			"distmsg_build_info{version=\"v1\",revision=\"unknown\",goversion=\"go1\"} 1\n", 2*asked.Add(1))
	}))
	defer metrics.Close()
	for _, warmup := range []time.Duration{-1, 100 * time.Millisecond} {
		cfg := Config{Nodes: []string{node.addr}, Metrics: []string{metrics.URL}, Conns: 2, Warmup: warmup, Duration: 200 * time.Millisecond}
		r, err := Run(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if r.ServerCPU == nil || r.ServerRSS == nil || *r.ServerRSS != 1000 || r.Versions.Server != "distmsg v1" || r.ServerError != "" {
			t.Fatalf("%+v, %+v", r.Versions, r)
		}
		if used := float64(*r.ServerCPU) * float64(r.Completed); used < 1.99 || used > 2.01 {
			t.Errorf("the server used %g s, want 2", used)
		}
	}
	none := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "go_goroutines 1") }))
	defer none.Close()
	r, err := Run(t.Context(), Config{Nodes: []string{node.addr}, Metrics: []string{none.URL}, Conns: 2, Warmup: -1, Duration: 100 * time.Millisecond})
	if err != nil || r.ServerCPU != nil || !strings.Contains(r.ServerError, "has no process_cpu_seconds_total") {
		t.Errorf("metrics without the CPU time: %v, %+v", err, r)
	}
	metrics.Close()
	_, err = Run(t.Context(), Config{Nodes: []string{node.addr}, Metrics: []string{metrics.URL}, Conns: 2})
	if err == nil || !strings.HasPrefix(err.Error(), "metrics: ") {
		t.Errorf("without an answer: %v", err)
	}
}
