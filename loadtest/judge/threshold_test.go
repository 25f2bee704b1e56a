package judge

import (
	"strings"
	"testing"

	"distmsg/loadtest/result"
)

// measured is a report with something of everything.
func measured() *result.Report {
	return &result.Report{
		Rate: new(100_000.0), Latency: &result.Latency{P50: 0.0005, P90: 0.001, P99: 0.002, P999: 0.004, Max: 0.1},
		Sent: 1000, Delivered: 990, Outcomes: map[string]uint64{"acked": 990, "no_route": 10}, ServerRSS: new(uint64(64 << 20)),
	}
}

func TestConditions(t *testing.T) {
	for text, missed := range map[string]bool{
		"p99>2ms":             false,
		"p99>=2ms":            true,
		"p99 > 1999us":        true,
		"p99.9<1s":            true,
		"max>0.1s":            false,
		"max>1m":              false,
		"p50==500µs":          true,
		"rate<100000":         false,
		"rate<100001":         true,
		"rate<100k":           false,
		"rate<0.2M/s":         true,
		"missing>0":           false,
		"faults!=0":           false,
		"no_route>9":          true,
		"no_route>1%":         false,
		"no_route>0.99%":      true,
		"acked<99%":           false,
		"timeout>0":           false,
		"server_rss>64MiB":    false,
		"server_rss>60MiB":    true,
		"server_cpu>1us":      true, // not measured
		"lost_connections>=0": true,
	} {
		c, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Judge(measured()); got.Missed != missed || got.Found == "" || got.FailIf != text {
			t.Errorf("%s: %+v, want missed %v", text, got, missed)
		}
	}
	c, err := Parse("acked<1%")
	if err != nil || !c.Judge(new(result.Report)).Missed {
		t.Errorf("%v: a share of nothing is not missed", err)
	}
}

func TestBadConditions(t *testing.T) {
	for text, says := range map[string]string{
		"":              "no condition",
		"p99":           "such as p99>2ms",
		"p95>2ms":       `no metric "p95"`,
		"route>0":       "misrouted, no_route",
		"p99>2":         "needs a unit",
		"p99>2parsecs":  `no unit "parsecs"`,
		"p99>":          "no number",
		"p99>ms":        "no number",
		"p99=2ms":       `"=" is no operator`,
		"rate<10ms":     `no unit "ms"`,
		"rate<fast":     "no number",
		"moves>1%":      `no unit "%"`,
		">2ms":          "no metric",
		"p99>2ms>3ms":   "no number",
		"server_rss>1x": "such as 64MiB",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", text, err, says)
		}
	}
}

// Every outcome and every fault can be a threshold.
func TestNames(t *testing.T) {
	names := strings.Join(Names(), " ")
	for _, want := range []string{"acked", "no_route", "timeout", "lost", "missing", "false_no_route", "p99.9", "rate"} {
		if !strings.Contains(" "+names+" ", " "+want+" ") {
			t.Errorf("no %s in %s", want, names)
		}
	}
}

// TestEpisodes judges parts of a run with faults.
func TestEpisodes(t *testing.T) {
	r := measured()
	r.Episodes = []result.Episode{
		{Name: "before any fault", Rate: 900, Latency: &result.Latency{P99: 0.001}, Outcomes: map[string]uint64{"acked": 900}},
		{Name: "kill-node 2", Fault: true, Rate: 700, Latency: &result.Latency{P99: 0.2}, Outcomes: map[string]uint64{"acked": 90, "lost": 10},
			FailedReceivers: 3, Recovery: new(result.Seconds(1.5))},
		{Name: "end of kill-node 2", Rate: 900, Outcomes: map[string]uint64{"acked": 90}},
		{Name: "kill redis", Fault: true, Rate: 800, Outcomes: map[string]uint64{"acked": 90}, Recovery: new(result.Seconds(0))},
	}
	for text, missed := range map[string]bool{
		"recovery>1s":                  true,
		"recovery>2s":                  false,
		"kill-node 2: recovery>1s":     true,
		"kill redis:recovery>1s":       false,
		"kill: recovery>1s":            true,
		"kill-node 2: lost>9%":         true,
		"kill-node 2: lost>10%":        false,
		"before any fault: p99>1ms":    false,
		"before: rate<1000":            true,
		"end of kill-node 2: p99>1s":   true, // not measured
		"end of kill-node 2: rate<900": false,
		"stop: rate<1":                 true, // there is none
	} {
		c, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Judge(r); got.Missed != missed || got.FailIf != text {
			t.Errorf("%s: %+v, want missed %v", text, got, missed)
		}
	}
	r.Episodes[1].MissingReceivers = 1
	if c, err := Parse("recovery>60m"); err != nil || !c.Judge(r).Missed {
		t.Errorf("%v: receivers are missing, and the threshold is kept", err)
	}
	if _, err := Parse("kill: missing>0"); err == nil || !strings.Contains(err.Error(), "single episode") {
		t.Errorf("missing of an episode: %v", err)
	}
}
