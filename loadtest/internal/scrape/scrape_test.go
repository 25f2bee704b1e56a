package scrape

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// serve serves a text as metrics.
func serve(t *testing.T, text string) (url string) {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }))
	t.Cleanup(s.Close)
	return s.URL
}

const node = `# HELP go_goroutines Goroutines.
# TYPE go_goroutines gauge
go_goroutines 37
process_open_fds 70
process_cpu_seconds_total 1.5
process_resident_memory_bytes 1.024e+06
distmsg_build_info{version="v1.2.3",revision="0123456789abcdef-dirty",goversion="go1.26.8"} 1
distmsg_sent_total{loop="0"} 1
distmsg_sent_total{loop="1"} 2
`

func TestGet(t *testing.T) {
	p, err := Get(serve(t, node))
	if err != nil {
		t.Fatal(err)
	}
	if *p.Goroutines != 37 || *p.FDs != 70 || *p.RSS != 1_024_000 || *p.CPU != 1500*time.Millisecond ||
		p.Version != "distmsg v1.2.3 0123456789ab+dirty" || p.Go != "go1.26.8" {
		t.Errorf("%+v, %s", p, *p.CPU)
	}
	if p, err := Get(serve(t, "")); err != nil || p != (Process{}) {
		t.Errorf("no metrics: %+v, %v", p, err)
	}
	if _, err := Get(serve(t, "<html>")); err == nil {
		t.Error("a page is taken for metrics")
	}
	if _, err := Get(serve(t, node) + "\x00"); err == nil {
		t.Error("a bad URL is taken")
	}
}

func TestUsage(t *testing.T) {
	one, two := serve(t, node), serve(t, strings.Replace(node, "v1.2.3", "v2", 1))
	cpu, rss, err := Usage([]string{one, two})
	if err != nil || cpu != 3*time.Second || rss != 2_048_000 {
		t.Errorf("%v, %d, %v", cpu, rss, err)
	}
	if first, err := Reach([]string{one, two}); err != nil || !strings.Contains(first.Version, "v1.2.3") {
		t.Errorf("%+v, %v", first, err)
	}
	if _, _, err := Usage([]string{one, serve(t, "go_goroutines 1\n")}); err == nil || !strings.Contains(err.Error(), "process_cpu_seconds_total") {
		t.Errorf("without the CPU time: %v", err)
	}
}
