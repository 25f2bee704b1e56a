package judge

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"distmsg/loadtest/result"
)

// rounds is a report whose rounds had these rates, and a p99 that is the same in each.
func rounds(rates ...float64) *result.Report {
	r := &result.Report{Rate: &rates[0]}
	for _, rate := range rates {
		r.Rounds = append(r.Rounds, result.Round{Rate: new(rate), Latency: &result.Latency{P50: 1, P90: 1, P99: 1, P999: 1, Max: 1}})
	}
	return r
}

func TestCompare(t *testing.T) {
	for name, c := range map[string]struct {
		before, after *result.Report
		rate, all     result.Trend
	}{
		"the same":       {rounds(100, 101, 99, 100, 100), rounds(100, 101, 99, 100, 100), result.CannotTell, result.CannotTell},
		"clearly faster": {rounds(100, 101, 99, 100, 100), rounds(120, 121, 119, 120, 120), result.Better, result.Better},
		"clearly slower": {rounds(100, 101, 99, 100, 100), rounds(80, 81, 79, 80, 80), result.Worse, result.Worse},
		"within noise":   {rounds(100, 140, 60, 110, 90), rounds(104, 70, 139, 111, 90), result.CannotTell, result.CannotTell},
		"too few rounds": {rounds(100, 100, 100, 100), rounds(300, 300, 300, 300), result.CannotTell, result.CannotTell},
		"too little":     {rounds(1000, 1000, 1000, 1000, 1000), rounds(1001, 1001, 1001, 1001, 1001), result.CannotTell, result.CannotTell},
	} {
		got := Compare("a", c.before, "b", c.after, 0.01)
		if change := got.Changes[0]; change.Metric != "rate" || change.Trend != c.rate || got.Verdict != c.all || change.Low > change.Ratio || change.Ratio > change.High {
			t.Errorf("%s: %+v, verdict %s, want %s and %s", name, change, got.Verdict, c.rate, c.all)
		}
	}
	slower := rounds(100, 100, 100, 100, 100)
	for i := range slower.Rounds {
		slower.Rounds[i].Latency.P99 = 2
	}
	if got := Compare("a", rounds(100, 100, 100, 100, 100), "b", slower, 0.01); got.Verdict != result.Worse {
		t.Errorf("a p99 that has doubled is %s", got.Verdict)
	}
	faulty := rounds(200, 200, 200)
	faulty.Faults.Missing = 1
	if got := Compare("a", rounds(100, 100, 100), "b", faulty, 0.01); got.Verdict != result.Worse || got.Faults != 1 {
		t.Errorf("a missing message is %s", got.Verdict)
	}
}

// Runs that differ in their load are compared, but the reader hears of it.
func TestCompareWarns(t *testing.T) {
	a, b := rounds(1, 1, 1, 1, 1), rounds(1, 1)
	a.Config.Conns, b.Config.Conns = 200, 100
	a.Machine.Kernel, b.Machine.Kernel = "6.1", "6.2"
	if w := Compare("a", a, "b", b, 0).Warnings; len(w) != 3 {
		t.Errorf("%q", w)
	}
	b = rounds(1, 1, 1, 1, 1)
	b.Machine, b.Config.Conns, b.Config.Stages, b.Config.Cross = a.Machine, 200, "100:1s", new(0.5)
	a.Faults.Missing, b.DownConnections = 2, 20
	want := []string{"a: the ledger has faults: missing 2", "b: 20 connections were lost and did not come back",
		"the list of stages differs: none before, 100:1s after", "the share of messages to another node differs: by chance before, 0.5 after"}
	if w := Compare("a", a, "b", b, 0).Warnings; !slices.Equal(w, want) {
		t.Errorf("%q", w)
	}
}

// TestFalseAlarms compares runs that differ by chance alone. What the bounds promise is so: not
// much more than 5 of 100 are judged to be better or worse. With less rounds, none is.
func TestFalseAlarms(t *testing.T) {
	const pairs = 200
	chance := rand.New(rand.NewPCG(1, 2))
	rate := &figures()[0]
	for _, n := range []int{3, minRounds} {
		draw := func() (rates result.Rounds) {
			for range n {
				rates = append(rates, 1000*math.Exp(0.1*chance.NormFloat64()))
			}
			return rates
		}
		alarms := 0
		for range pairs {
			if rate.compare(draw(), draw(), 0.01).Trend != result.CannotTell {
				alarms++
			}
		}
		if alarms > pairs*7/100 {
			t.Errorf("with %d rounds, %d of %d comparisons of alike runs have a verdict", n, alarms, pairs)
		}
	}
}
