package report

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"distmsg/internal/browsertest"
	"distmsg/loadtest/judge"
	"distmsg/loadtest/result"
)

// screenshot is given as: go test ./loadtest/report -run TestPages -screenshot
// ../../docs/loadtest.png
var screenshot = flag.String("screenshot", "", "`file` to write the picture to")

// example is the report of a run in which much happened: a stall, a fault, several outcomes.
func example() *result.Report {
	r := &result.Report{
		Schema: result.Schema, Begun: time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC), Measured: 30,
		Config:  result.Settings{Driver: "relay", Nodes: []string{"10.0.0.1:7400", "10.0.0.2:7400"}, Conns: 200, IDsPerConn: 1, Payload: 128, Ack: true, Window: 8, Seed: 1, Fanout: 1},
		Machine: result.Machine{Host: "bench-1", OS: "linux", Arch: "amd64", Kernel: "6.12", CPU: "Some <Processor> & Co", Cores: 2, Allowed: 1, GOMAXPROCS: 2, Memory: 8 << 30},
		Sent:    4_000_000, Delivered: 3_999_000, Acked: 3_999_000, Outcomes: map[string]uint64{"acked": 3_999_000, "timeout": 600, "no_route": 400},
		Slowest: map[string]result.Seconds{"acked": 1.2, "timeout": 5}, Rate: new(133_300.0), ServerCPU: new(result.Seconds(2.1e-6)),
		Latency:    &result.Latency{P50: 0.0011, P90: 0.002, P99: 0.0043, P999: 0.012, Max: 1.2},
		Thresholds: []result.Threshold{{FailIf: "p99>2ms", Missed: true, Found: "p99 is 4.30ms"}, {FailIf: "missing>0", Found: "missing is 0"}},
	}
	for i := range 33 {
		at := float64(i)
		wave := 1 + 0.1*math.Sin(at/3)
		p := result.Point{At: result.Seconds(at), Length: 1, Phase: result.Measuring, Round: 1, Completed: uint64(133_000 * wave), Sent: uint64(133_000 * wave),
			Outcomes: map[string]uint64{"acked": uint64(133_000 * wave)},
			Latency:  &result.Latency{P50: result.Seconds(0.001 / wave), P90: 0.002, P99: result.Seconds(0.004 * wave), P999: 0.009, Max: 0.02}}
		switch i {
		case 14: // a node died
			p.Completed, p.Latency, p.LostConnections = 0, nil, 100
			p.Outcomes = map[string]uint64{"timeout": 600}
		case 15:
			p.Outcomes["no_route"], p.Moves = 400, 100
			p.Latency.Max = 1.2
		}
		r.Timeline = append(r.Timeline, p)
	}
	limit := result.Seconds(100e-6)
	for i := range 30 {
		if i%7 != 5 {
			r.Distribution = append(r.Distribution, result.Bar{UpTo: limit, Count: int64(400_000 * math.Exp(-math.Pow(float64(i-13), 2)/20))})
		}
		limit *= 1.2
	}
	for i := range 5 {
		round := r.Round()
		round.Rate = new(*r.Rate + float64(i*1000))
		r.Rounds = append(r.Rounds, round)
	}
	return r
}

// exampleCluster is a run with a fault, made by two agents of which one died.
func exampleCluster() *result.Report {
	r := example()
	r.Config.Script, r.Partial = "14s kill-node 2", true
	r.Episodes = []result.Episode{
		{Name: "before any fault", Length: 14, Rate: 133_000, Latency: r.Latency, Outcomes: map[string]uint64{"acked": 1_862_000}},
		{Name: "kill-node 2", Fault: true, At: 14, Length: 5, Rate: 100_000, Outcomes: map[string]uint64{"acked": 500_000, "lost": 9, "timeout": 600},
			Unexpected: map[string]uint64{"timeout": 600}, FailedReceivers: 8, Recovery: new(result.Seconds(0.5))},
		{Name: "end of kill-node 2", At: 19, Length: 14, Rate: 133_000, Latency: r.Latency, Outcomes: map[string]uint64{"acked": 1_637_000}},
	}
	r.Agents = []result.Agent{{Address: "10.0.0.3:7460", Machine: r.Machine, Conns: 100, Sent: r.Sent, Delivered: r.Delivered, Rate: r.Rate, Latency: r.Latency},
		{Address: "10.0.0.4:7460", Conns: 100, Failed: "agent 10.0.0.4:7460 has died or does not answer: unexpected EOF"}}
	return r
}

// exampleSweep is a sweep whose third step did not hold.
func exampleSweep() *result.Sweep {
	s := &result.Sweep{Schema: result.SchemaSweep, Of: "rate", Knee: new(20_000.0), Config: example().Config}
	for i, rate := range []float64{10_000, 20_000, 40_000} {
		l := result.Seconds(math.Pow(4, float64(i)) / 1e3)
		s.Steps = append(s.Steps, result.Step{Value: rate, Held: i < 2, Why: map[int]string{2: "p99 is 16ms, more than 10ms"}[i], Outcomes: map[string]uint64{"acked": 100},
			Round: result.Round{Rate: new(rate * 0.99), Latency: &result.Latency{P50: l / 4, P90: l / 2, P99: l, P999: l * 2, Max: l * 3}}})
	}
	return s
}

// exampleSoak is a soak in which the server's memory grows. At one moment, it does not answer.
func exampleSoak() *result.Soak {
	s := &result.Soak{SoakHeader: result.SoakHeader{Schema: result.SchemaSoak, Begun: example().Begun, Every: 30, Config: example().Config, Machine: example().Machine}, End: example()}
	s.Settled = 180
	for i := range 60 {
		sample := result.SoakSample{Point: result.Point{At: result.Seconds(30 * i), Length: 30, Phase: result.Measuring, Completed: 3000, Outcomes: map[string]uint64{"acked": 3000},
			Latency: &result.Latency{P50: 0.001, P90: 0.002, P99: 0.004, P999: 0.009, Max: 0.02}}}
		sample.Tool = result.Usage{RSS: new(uint64(40 << 20)), FDs: new(uint64(210)), Goroutines: new(uint64(12))}
		sample.Server = &result.Usage{RSS: new(uint64((60 + i) << 20)), FDs: new(uint64(220))}
		if i == 30 {
			sample.Server, sample.Latency, sample.LostConnections = nil, nil, 5
			sample.Outcomes["lost"] = 20
		}
		s.Samples = append(s.Samples, sample)
	}
	s.Trends = []result.SoakTrend{
		{What: "the server's memory", Unit: "bytes", Start: 65 << 20, End: 115 << 20, PerHour: 120 << 20, Low: 119 << 20, High: 121 << 20, Allowed: 4 << 20, Grows: true, Verdict: "GROWS"},
		{What: "p99", Unit: "seconds", Start: 0.004, End: 0.004, Allowed: 0.0002, High: 0.001, Verdict: "cannot tell", Why: "too noisy for this time"},
	}
	return s
}

func write(t *testing.T, p *Page) (url string) {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), " src=") {
		t.Error("the page refers to another file")
	}
	file := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return "file://" + file
}

// TestPages looks at the pages in Chromium: on a phone in the dark, and on a desk in the light.
func TestPages(t *testing.T) {
	tab := browsertest.Open(t)
	slower := example()
	for i := range slower.Rounds {
		slower.Rounds[i].Rate = new(*slower.Rounds[i].Rate * 0.8)
	}
	for name, page := range map[string]*Page{
		"run":     OfRun(example()),
		"cluster": OfRun(exampleCluster()),
		"diff":    OfComparison(judge.Compare("before.json", example(), "after.json", slower, 0.01)),
		"sweep":   OfSweep(exampleSweep()),
		"compare": OfStanding(exampleStanding()),
		"soak":    OfSoak(exampleSoak()),
		"killed":  OfSoak(&result.Soak{}),
		"empty":   OfRun(new(result.Report)),
	} {
		url := write(t, page)
		for width, scheme := range map[int64]string{390: "dark", 1440: "light"} {
			browsertest.Do(t, tab, browsertest.Prefer(scheme), chromedp.EmulateViewport(width, 1000), chromedp.Navigate(url))
			checkPage(t, tab, fmt.Sprintf("%s at %d px, %s", name, width, scheme), page)
			if name == "run" && scheme == "light" && *screenshot != "" {
				browsertest.Picture(t, tab, *screenshot)
			}
		}
	}
}

// findings are expressions of JavaScript that are empty for a good page, besides those of
// browsertest.Check.
var findings = map[string]string{
	"charts without a table":            `[...document.querySelectorAll("figure")].filter(f => f.querySelectorAll("table tbody tr").length == 0).length || ""`,
	"tables that are cut off on a desk": `[...document.querySelectorAll(".tables .scroll")].filter(e => innerWidth > 1000 && e.scrollWidth > e.clientWidth).map(e => e.ariaLabel).join(" ")`,
	"loads from the network":            `performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:")).join(" ")`,
}

func checkPage(t *testing.T, tab context.Context, name string, page *Page) {
	t.Helper()
	if got := browsertest.Evaluate(t, tab, `document.documentElement.dataset.drawn`); got != fmt.Sprint(len(page.Charts)) {
		t.Errorf("%s: %s charts are drawn, want %d", name, got, len(page.Charts))
	}
	browsertest.Check(t, tab, name)
	for what, expression := range findings {
		if got := browsertest.Evaluate(t, tab, expression); got != "" {
			t.Errorf("%s: %s: %s", name, what, got)
		}
	}
}
