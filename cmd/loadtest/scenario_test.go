package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/loadtest"
)

// TestScenario reads a file with values for flags. The command line wins.
func TestScenario(t *testing.T) {
	dir := t.TempDir()
	file, out := filepath.Join(dir, "evening.yaml"), filepath.Join(dir, "out.json")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("conns: 5\nids-per-conn: 2\nstages: 200:1s\narrivals: poisson\npayloads: 64:9,512:1\noffline: 0.1\nwarmup: 0s\nduration: 1h\n" +
		"fail-if: [faults>0, unexpected_no_route>0]\n")
	var stdout, stderr bytes.Buffer
	if code := run([]string{"--scenario", file, "--duration", "500ms", "--conns", "4", "--json", out, "--quiet"}, &stdout, &stderr); code != loadtest.ExitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	r, err := readReport(out)
	if err != nil {
		t.Fatal(err)
	}
	if c := &r.Config; c.Conns != 4 || c.IDsPerConn != 2 || c.Stages != "200:1s" || c.Arrivals != "poisson" || c.Payloads != "64:9,512:1" || len(r.Thresholds) != 2 {
		t.Errorf("%+v, thresholds %v", c, r.Thresholds)
	}

	for text, says := range map[string]string{
		"cons: 5\n":                     `unknown key "cons"`,
		"conns: many\n":                 "evening.yaml:1",
		"\nstages: fast\n":              "evening.yaml:2",
		"\n\nfail-if: p98>1ms\n":        "evening.yaml:3",
		"duration: -1s\n":               "evening.yaml:1",
		"scenario: other\n":             "a file cannot name another one",
		"offline: 2\n":                  "--offline is 2",
		"arrivals: sometimes":           "--arrivals",
		"churn-moves: 1\ndriver: sdk\n": "--churn-moves needs driver relay",
	} {
		write(text)
		stderr.Reset()
		if code := run([]string{"--scenario", file}, &stdout, &stderr); code != loadtest.ExitUsage || !strings.Contains(stderr.String(), says) {
			t.Errorf("%q: exit code %d, %q, want %q", text, code, &stderr, says)
		}
	}
	write("rate: 5\npayloads: 64:1\nnodes: a:1\n")
	stderr.Reset()
	run([]string{"--scenario", file, "--window", "2", "--payload", "100", "--discovery", "http://a"}, &stdout, &stderr)
	if text := stderr.String(); strings.Contains(text, "exclude") || !strings.Contains(text, "http://a") {
		t.Errorf("flags on the command line do not take the place of those that exclude them: %q", text)
	}
	if code := run([]string{"--scenario", file + "-missing"}, &stdout, &stderr); code != loadtest.ExitUsage {
		t.Errorf("without the file: exit code %d", code)
	}
}
