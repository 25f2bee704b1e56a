package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/loadtest"
	"distmsg/loadtest/judge"
	"distmsg/loadtest/result"
)

// measuredStanding writes what compare --json writes. The node needed 1.5 times as much as the
// floor.
func measuredStanding(t *testing.T, aim float64, faults map[string]uint64) (file string) {
	t.Helper()
	node := result.Entry{Server: "node", ServerCPU: new(result.Seconds(6e-6)), All: []result.Seconds{6e-6, 6.2e-6, 6e-6}}
	floor := result.Entry{Server: "floor", ServerCPU: new(result.Seconds(4e-6)), All: []result.Seconds{4e-6, 4e-6, 4e-6}}
	s := result.Standing{Schema: result.SchemaStanding, Rounds: 3, Faults: faults, Shapes: []result.Shape{{
		Name: "acked-1", Title: "acked", Metric: result.ServerCPU, Entries: []result.Entry{floor, node},
		Ratios: []result.Ratio{judge.Ratio(result.ServerCPU, &node, &floor, aim)}}}}
	data, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "standing.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestCompareVerdicts(t *testing.T) {
	for _, c := range []struct {
		aim    float64
		faults map[string]uint64
		want   loadtest.ExitCode
		say    string
	}{
		{1.6, nil, loadtest.ExitOK, "all aims (1) are reached"},
		{1.52, nil, loadtest.ExitOK, "no aim is known to be missed, 0 of 1 are reached; nobody can tell of acked-1 (node to floor: 1.50, at most 1.52)"},
		{1.4, nil, loadtest.ExitThreshold, "aims missed: acked-1 (node to floor: 1.50, at most 1.40)"},
		{0, nil, loadtest.ExitOK, "no load of these has an aim"},
		{1.4, map[string]uint64{"node": 2}, loadtest.ExitLedger, "the ledger has faults: node 2"},
	} {
		var stdout, stderr bytes.Buffer
		code := run([]string{"compare", "--from", measuredStanding(t, c.aim, c.faults)}, &stdout, &stderr)
		if code != c.want || !strings.Contains(stdout.String(), c.say) {
			t.Errorf("aim %g, faults %v: exit code %d, want %d\n%s%s", c.aim, c.faults, code, c.want, &stdout, &stderr)
		}
	}
}

// TestCompareOutputs makes all files from what was measured.
func TestCompareOutputs(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	file := measuredStanding(t, 1.6, nil)
	var stdout, stderr bytes.Buffer
	code := run([]string{"compare", "--from", file, "--markdown", "--html", in("a.html"), "--svg", in("a.svg"), "--json", in("a.json")}, &stdout, &stderr)
	if want := "| acked | 4.00 | 6.00 | 1.50 | 1.50–1.55 | 1.60 | reached |"; code != loadtest.ExitOK || !strings.Contains(stdout.String(), want) {
		t.Errorf("exit code %d, want a line %s:\n%s%s", code, want, &stdout, &stderr)
	}
	for name, want := range map[string]string{"a.html": "against other servers", "a.svg": ">1.50</text>", "a.json": result.SchemaStanding} {
		if data, err := os.ReadFile(in(name)); err != nil || !bytes.Contains(data, []byte(want)) {
			t.Errorf("%s lacks %q (%v): %.1000s", name, want, err, data)
		}
	}
}

func TestCompareUsage(t *testing.T) {
	for _, args := range []string{"--rounds 0", "--seconds 0", "--seconds -1", "--conns 1", "--peers kafka", "--peers=", "--shapes fast", "--tls --shapes all",
		"--from no-such-file", "--from compare.go", "--svg no-such-folder/a.svg", "--json .", "walk"} {
		var stdout, stderr bytes.Buffer
		if code := run(append([]string{"compare"}, strings.Fields(args)...), &stdout, &stderr); code != loadtest.ExitUsage || stdout.Len() > 0 {
			t.Errorf("compare %s: exit code %d, %s%s", args, code, &stdout, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"floor", "--listen", "nowhere"}, &stdout, &stderr); code != loadtest.ExitUsage {
		t.Errorf("floor --listen nowhere: exit code %d, %s", code, &stderr)
	}
}
