package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/internal/localcluster"
	"distmsg/loadtest"
	"distmsg/loadtest/faultscript"
	"distmsg/loadtest/result"
)

// script reads a script for three nodes.
func script(t *testing.T, text string) []faultscript.Step {
	t.Helper()
	steps, err := faultscript.Parse(text, 3)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func names(report *loadtest.Report) (list []string) {
	for i := range report.Episodes {
		list = append(list, report.Episodes[i].Name)
	}
	return list
}

// TestCluster runs loads on one real cluster: with all kinds of faults, with a fault of the ledger,
// and one that is interrupted.
func TestCluster(t *testing.T) {
	c, err := localcluster.Start(t.Context(), localcluster.Options{Nodes: 3, Cuttable: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.WaitLinked(t.Context()); err != nil {
		t.Fatal(err)
	}
	cfg := func(text string, length time.Duration) *Config {
		return &Config{Nodes: 3, Steps: script(t, text), Script: text, Run: loadtest.Run, Say: func(line string) { t.Log(line) },
			Load: loadtest.Config{Conns: 12, IDsPerConn: 2, Rate: 300, Warmup: -1, Duration: length, Churn: loadtest.Churn{Moves: 5}}}
	}
	t.Run("faults", func(t *testing.T) { everyFault(t, c, cfg) })
	t.Run("ledger", func(t *testing.T) { ledgerFault(t, c, cfg) })
	t.Run("interrupted", func(t *testing.T) { interrupted(t, c, cfg) })
}

// everyFault runs a script like the one in the issue, in small. The ledger is clean.
func everyFault(t *testing.T, c *localcluster.Cluster, cfg func(string, time.Duration) *Config) {
	report, err := load(t.Context(), cfg("100ms kill-node 2 200ms; 600ms stop redis 200ms; 1s drain 3; 1200ms undrain 3; 1300ms partition 1|2,3 200ms", 1700*time.Millisecond), c)
	if err != nil {
		t.Fatal(err)
	}
	if report.Faults.Total() > 0 || report.Partial || report.DownConnections > 0 || len(report.Errors) > 0 || report.Acked == 0 {
		_, why := report.Verdict()
		t.Errorf("%s: %+v", why, report)
	}
	want := []string{"before any fault", "kill-node 2 200ms", "end of kill-node 2 200ms", "stop redis 200ms", "end of stop redis 200ms",
		"drain 3", "end of drain 3", "partition 1|2,3 200ms", "end of partition 1|2,3 200ms"}
	if got := names(report); !slices.Equal(got, want) {
		t.Errorf("the episodes are %q, want %q", got, want)
	}
	var outcomes uint64
	for i := range report.Episodes {
		e := &report.Episodes[i]
		for _, n := range e.Outcomes {
			outcomes += n
		}
		if e.Fault != (i%2 == 1) || e.Fault != (e.Recovery != nil) || e.Length <= 0 {
			t.Errorf("%+v", e)
		}
	}
	if outcomes != report.Sent {
		t.Errorf("the episodes have %d messages of %d", outcomes, report.Sent)
	}
}

// ledgerFault lets a receiver get a message twice.
func ledgerFault(t *testing.T, c *localcluster.Cluster, cfg func(string, time.Duration) *Config) {
	run := cfg("1ms drain 3 50ms", 200*time.Millisecond)
	run.Run = func(ctx context.Context, cfg loadtest.Config) (*loadtest.Report, error) {
		cfg.Nodes = []string{twice(t, cfg.Nodes[0])}
		return loadtest.Run(ctx, cfg)
	}
	report, err := load(t.Context(), run, c)
	if err != nil {
		t.Fatal(err)
	}
	if code, why := report.Verdict(); code != result.ExitLedger || report.Faults.Duplicated == 0 {
		t.Errorf("code %d, %s", code, why)
	}
}

// interrupted is a run whose user does not wait for the end of a fault. What is stopped goes on, so
// that each message gets its outcome.
func interrupted(t *testing.T, c *localcluster.Cluster, cfg func(string, time.Duration) *Config) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := cfg("0s stop node 1 1h; 1ms partition 1|2,3 1h; 50ms stop redis 1h", time.Hour)
	run.Say = func(line string) {
		if strings.Contains(line, "stop redis") {
			cancel()
		}
	}
	report, err := load(ctx, run, c)
	if err != nil {
		t.Fatal(err)
	}
	if code, why := report.Verdict(); code != result.ExitInterrupted {
		t.Errorf("code %d, %s", code, why)
	}
	if _, err := c.Redis.Do(t.Context(), "PING"); err != nil {
		t.Errorf("redis is stopped still: %v", err)
	}
}

func TestEvents(t *testing.T) {
	var got []string
	for _, e := range events(script(t, "1s stop redis 2s; 2s drain 1; 3s kill redis 1s; 3s drain 2 1s; 3s undrain 1; 9s upgrade")) {
		got = append(got, fmt.Sprintf("%v %s %v", e.at, e.step.Text, e.ends))
	}
	want := []string{"1s stop redis 2s false", "2s drain 1 false", "3s stop redis 2s true", "3s drain 1 true",
		"3s kill redis 1s false", "3s drain 2 1s false", "4s kill redis 1s true", "4s drain 2 1s true", "9s upgrade false"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOneClock wants lines in the order of their moments, whether or not they are marks in the
// report.
func TestOneClock(t *testing.T) {
	in := injector{begun: time.Now(), say: func(string) {}, mark: func(string, bool) time.Duration { return time.Hour }}
	in.note("upgrade", true)
	if now := in.now(); now < time.Hour {
		t.Errorf("after a mark at 1h it is %v", now)
	}
}

// TestPermitted judges outcomes that a fault permits, and others.
func TestPermitted(t *testing.T) {
	cfg := &Config{Steps: script(t, "1s kill-node 1; 7s stop zookeeper; 13s partition 1,redis|2")}
	report := &loadtest.Report{Episodes: []result.Episode{
		{Outcomes: map[string]uint64{"acked": 9, "lost": 1}},
		{Name: "kill-node 1", Fault: true, Outcomes: map[string]uint64{"acked": 9, "lost": 1, "timeout": 2}},
		{Name: "end of kill-node 1", Outcomes: map[string]uint64{"unreachable": 1, "denied": 1}},
		{Name: "stop zookeeper", Fault: true, Outcomes: map[string]uint64{"lost": 1}},
		{Name: "partition 1,redis|2", Fault: true, Outcomes: map[string]uint64{"lost": 1, "registry_unavailable": 1}, FailedReceivers: 2, MissingReceivers: 1},
	}}
	judge(report, cfg)
	want := []string{"map[lost:1]", "map[timeout:2]", "map[denied:1]", "map[lost:1]", "map[]"}
	for i := range want {
		if got := fmt.Sprint(report.Episodes[i].Unexpected); got != want[i] {
			t.Errorf("%s: unexpected %s, want %s", report.Episodes[i].Name, got, want[i])
		}
	}
	code, why := report.Verdict()
	if code != result.ExitThreshold || !strings.Contains(why, "kill-node 1: timeout 2, which it does not permit") || !strings.Contains(why, "1 receivers could not be reached again") {
		t.Errorf("code %d, %s", code, why)
	}
	report.Faults.Missing = 1
	if code, _ := report.Verdict(); code != result.ExitLedger {
		t.Errorf("a fault of the ledger does not win: %d", code)
	}
}
