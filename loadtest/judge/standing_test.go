package judge

import (
	"strings"
	"testing"

	"distmsg/loadtest/result"
)

func entry(name string, median result.Seconds, rounds ...result.Seconds) *result.Entry {
	e := &result.Entry{Server: name, All: rounds}
	if median > 0 {
		e.ServerCPU = &median
	}
	return e
}

func TestRatio(t *testing.T) {
	const µs = 1e-6
	for _, c := range []struct {
		name     string
		node     *result.Entry
		floor    *result.Entry
		aim      float64
		ratio    string // value, low, high
		verdict  string
		exitCode result.ExitCode
	}{
		{"reached", entry("node", 6*µs, 5*µs, 6*µs, 7*µs), entry("floor", 4*µs, 4*µs, 4*µs, 4*µs), 1.8, "1.50 1.25–1.75", "reached", result.ExitOK},
		{"missed", entry("node", 6*µs, 5*µs, 6*µs, 7*µs), entry("floor", 4*µs, 4*µs, 4*µs, 4*µs), 1.2, "1.50 1.25–1.75", "missed", result.ExitThreshold},
		{"within the noise, above", entry("node", 6*µs, 5*µs, 6*µs, 7*µs), entry("floor", 4*µs, 4*µs, 4*µs, 4*µs), 1.4, "1.50 1.25–1.75", "cannot tell", result.ExitOK},
		{"within the noise, below", entry("node", 6*µs, 5*µs, 6*µs, 7*µs), entry("floor", 4*µs, 4*µs, 4*µs, 4*µs), 1.6, "1.50 1.25–1.75", "cannot tell", result.ExitOK},
		{"one round", entry("node", 6*µs, 6*µs), entry("floor", 4*µs, 4*µs), 1.4, "1.50 1.50–1.50", "cannot tell", result.ExitOK},
		{"rounds at different speeds", entry("node", 6*µs, 3*µs, 6*µs, 9*µs), entry("floor", 4*µs, 2*µs, 4*µs, 6*µs), 2, "1.50 1.50–1.50", "reached", result.ExitOK},
		{"no aim", entry("node", 8*µs, 8*µs), entry("floor", 4*µs, 4*µs), 0, "2.00 2.00–2.00", "–", result.ExitOK},
		{"a round without figures", entry("node", 8*µs, 0, 8*µs, 8*µs, 8*µs), entry("floor", 4*µs, 4*µs, 4*µs, 4*µs, 4*µs), 2, "2.00 2.00–2.00", "reached", result.ExitOK},
		{"nothing measured", entry("node", 0, 0), entry("floor", 4*µs, 4*µs), 2, "– –", "missed", result.ExitThreshold},
		{"no floor", entry("node", 8*µs, 8*µs), entry("floor", 0), 2, "– –", "missed", result.ExitThreshold},
	} {
		r := Ratio(result.ServerCPU, c.node, c.floor, c.aim)
		value, spread, _, verdict := r.Judgement()
		if got := value + " " + spread; got != c.ratio || verdict != c.verdict {
			t.Errorf("%s: %s %s, want %s %s", c.name, got, verdict, c.ratio, c.verdict)
		}
		s := result.Standing{Shapes: []result.Shape{{Name: "x", Ratios: []result.Ratio{r}}}}
		if code, why := s.Verdict(); code != c.exitCode {
			t.Errorf("%s: exit code %d (%s), want %d", c.name, code, why, c.exitCode)
		}
		s.Faults = map[string]uint64{"redis": 1}
		if code, why := s.Verdict(); code != c.exitCode || !strings.Contains(s.Note(), "redis 1") {
			t.Errorf("%s, with faults of others: exit code %d (%s), note %q", c.name, code, why, s.Note())
		}
		s.Faults["node, TLS"] = 2
		if code, why := s.Verdict(); code != result.ExitLedger || why != "the ledger has faults: node, TLS 2" {
			t.Errorf("%s, with faults: exit code %d (%s)", c.name, code, why)
		}
	}
}

func TestRatioOfP99(t *testing.T) {
	node, redis := entry("node", 1e-6), entry("redis", 2e-6)
	node.P99, redis.P99 = new(result.Seconds(0.002)), new(result.Seconds(0.001))
	if r := Ratio(result.P99, node, redis, 0); r.Value != 2 {
		t.Errorf("the ratio of 2 ms to 1 ms is %g", r.Value)
	}
}

// TestMedianBounds compares the bounds with tables of the binomial distribution.
func TestMedianBounds(t *testing.T) {
	for n, cut := range map[int]int{1: 0, 3: 0, 5: 0, 6: 0, 8: 0, 9: 1, 11: 1, 12: 2, 20: 5, 100: 39} {
		values := make([]float64, n)
		for i := range values {
			values[i] = float64((i*7 + 3) % n) // 7 is prime to each n: all numbers from 0 on
		}
		if low, high := medianBounds(values); low != float64(cut) || high != float64(n-1-cut) {
			t.Errorf("of %d values: %g to %g, want %d cut off at each end", n, low, high, cut)
		}
	}
}

// TestOneOutlier has one bad round of twelve, which does not make the aim unknown.
func TestOneOutlier(t *testing.T) {
	node, floor := entry("node", 6e-6), entry("floor", 4e-6)
	for i := range 12 {
		cpu := result.Seconds(6e-6)
		if i == 3 {
			cpu *= 10
		}
		node.All, floor.All = append(node.All, cpu), append(floor.All, 4e-6)
	}
	if r := Ratio(result.ServerCPU, node, floor, 1.6); r.Verdict != result.Reached || r.High < 14 {
		t.Errorf("one round of twelve is bad: %+v", r)
	}
}
