package result

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSeconds(t *testing.T) {
	for v, want := range map[Seconds]string{0: "0s", 1.5e-9: "1.50ns", 12.34e-6: "12.3µs", 0.123456: "123ms", 1.5: "1.50s", 59.5: "59.5s", 3600: "1h0m0s"} {
		if got := v.String(); got != want {
			t.Errorf("%v is %q, want %q", float64(v), got, want)
		}
	}
	if d := Of(1234 * time.Microsecond).Duration(); d != 1234*time.Microsecond {
		t.Errorf("%v", d)
	}
}

// round is a report of a run with this rate.
func round(rate float64, begun time.Time) *Report {
	return &Report{Schema: Schema, Begun: begun, Measured: 10, Rate: &rate, Latency: &Latency{P50: Seconds(rate), P90: 1, P99: 1, P999: 1, Max: 1},
		Sent: 100, Delivered: 99, Acked: 98, Outcomes: map[string]uint64{"acked": 98, "timeout": 2}, Slowest: map[string]Seconds{"acked": Seconds(rate)},
		Distribution: []Bar{{0.1, 5}, {Seconds(rate), 3}}, Timeline: []Point{{At: 0, Length: 1, Round: 1}, {At: 1, Length: 1, Round: 1}},
		Faults: Faults{Missing: 1}}
}

func TestMerge(t *testing.T) {
	begin := time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC)
	a, b, c := round(30, begin), round(10, begin.Add(time.Minute)), round(20, begin.Add(2*time.Minute))
	before, _ := json.Marshal(a)
	m := Merge(a, b, c)
	if after, _ := json.Marshal(a); string(after) != string(before) {
		t.Error("Merge changes a report")
	}
	if *m.Rate != 20 || m.Latency.P50 != 20 || m.Sent != 300 || m.Outcomes["timeout"] != 6 || m.Faults.Missing != 3 || m.Slowest["acked"] != 30 || m.Measured != 30 {
		t.Errorf("%+v", m)
	}
	if want := []Bar{{0.1, 15}, {10, 3}, {20, 3}, {30, 3}}; !reflect.DeepEqual(m.Distribution, want) {
		t.Errorf("distribution %v", m.Distribution)
	}
	if n := len(m.Timeline); n != 6 || m.Timeline[5].At != 121 || m.Timeline[5].Round != 3 || len(m.Rounds) != 3 || *m.Rounds[1].Rate != 10 {
		t.Errorf("timeline %v, rounds %v", m.Timeline, m.Rounds)
	}
	if code, _ := m.Verdict(); code != ExitLedger {
		t.Errorf("exit code %d", code)
	}
}

// Every count of a report is in the merged one: a field that Merge forgets would be that of the
// first round only.
func TestMergeAddsAllFaults(t *testing.T) {
	r := new(Report)
	v := reflect.ValueOf(&r.Faults).Elem()
	for i := range v.NumField() {
		v.Field(i).SetUint(1)
	}
	m := Merge(r, r)
	if m.Faults.Total() != 2*uint64(v.NumField()) || len(m.Faults.ByName()) != v.NumField() {
		t.Errorf("%+v", m.Faults)
	}
}

// A missed threshold fails the run, but a fault of the ledger wins.
func TestThresholdVerdict(t *testing.T) {
	r := &Report{Rate: new(1.0), Thresholds: []Threshold{{FailIf: "p99>1ms", Missed: true, Found: "p99 is 2ms"}, {FailIf: "missing>0"}}}
	if code, why := r.Verdict(); code != ExitThreshold || !strings.Contains(why, "p99>1ms (p99 is 2ms)") || strings.Contains(why, "missing") {
		t.Errorf("%d, %s", code, why)
	}
	r.Faults.Missing = 1
	if code, _ := r.Verdict(); code != ExitLedger {
		t.Errorf("%d", code)
	}
}

// TestAgentDrift wants what an agent's line says about its clock.
func TestAgentDrift(t *testing.T) {
	for want, a := range map[string]Agent{
		"it did not answer at the end": {},
		"drifted by 3.00ms at most":    {ClockDrift: new(Seconds(-0.001)), ClockDriftBound: 0.002},
		"by 50.0ms (±3.00ms), it":      {ClockDrift: new(Seconds(-0.05)), ClockDriftBound: 0.003},
		"in the wrong second":          {ClockDrift: new(Seconds(3)), ClockDriftBound: 0.003},
	} {
		if text := a.String(); !strings.Contains(text, want) {
			t.Errorf("%s\nwant %q", text, want)
		}
	}
}

// TestLostAgent has an agent that died. Nothing but a fault of the ledger is worse, also if the
// dead one had found it.
func TestLostAgent(t *testing.T) {
	r := &Report{Partial: true, Rate: new(1.0), Agents: []Agent{{Address: "a:1"}, {Address: "b:1", Failed: "agent b:1 has died"}},
		Thresholds: []Threshold{{FailIf: "rate<2", Missed: true, Found: "rate is 1/s"}}}
	if code, why := r.Verdict(); code != ExitFailure || !strings.HasPrefix(why, "agent b:1 has died;") {
		t.Errorf("exit code %d, %q", code, why)
	}
	r.Agents[1].Faults = 3
	if code, why := r.Verdict(); code != ExitLedger || why != "the ledger has faults: of b:1 until it died 3" {
		t.Errorf("exit code %d, %q", code, why)
	}
	merged := Merge(&Report{Agents: []Agent{{Address: "a:1"}, {Address: "b:1"}}}, r)
	if merged.LostAgents() != "agent b:1 has died" {
		t.Errorf("with rounds: %q", merged.LostAgents())
	}
}

// TestBehind has loads of which only a part can complete, and loads with chance in them.
func TestBehind(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Settings
		rate   float64
		held   bool
	}{
		{"all", Settings{Rate: 1000}, 1000, true},
		{"a little less", Settings{Rate: 1000}, 985, true},
		{"too few", Settings{Rate: 1000}, 970, false},
		{"a part has no receiver", Settings{Rate: 1000, Offline: 0.1}, 900, true},
		{"a part has no receiver, and there are too few", Settings{Rate: 1000, Offline: 0.1}, 840, false},
		{"by chance", Settings{Rate: 1000, Arrivals: "poisson"}, 960, true},
		{"too few for chance", Settings{Rate: 1000, Arrivals: "poisson"}, 940, false},
		{"copies", Settings{Rate: 100, Fanout: 10}, 900, false},
		{"closed loop", Settings{Window: 1}, 1, true},
	} {
		l := Limits{Failed: 0.001, Behind: 0.02}
		r := &Report{Config: c.config, Measured: 10, Rate: &c.rate, Latency: new(Latency), Sent: 10_000}
		if why := l.Why(r); (why == "") != c.held {
			t.Errorf("%s: %q", c.name, why)
		}
	}
}
