package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// TestSoakKilled kills a soak in the middle. What it had found is in its file, and is judged.
func TestSoakKilled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "soak.jsonl")
	p := start(t, "soak --conns 4 --warmup 0 --every 1s --out "+file)
	p.line()
	p.line() // the sample of the first second has been written before that of the next
	p.signal(os.Kill)
	p.wait()
	var stdout, stderr bytes.Buffer
	found, page := filepath.Join(dir, "soak.json"), filepath.Join(dir, "soak.html")
	code := run([]string{"soak", "--report", file, "--json", found, "--html", page}, &stdout, &stderr)
	if code != loadtest.ExitFailure || !strings.Contains(stderr.String(), "ended without a last line: the tool was killed") || !strings.Contains(stdout.String(), "this process's memory") {
		t.Errorf("exit code %d, %q\n%s", code, &stderr, &stdout)
	}
	var s result.Soak
	data, err := os.ReadFile(found)
	if err != nil || json.Unmarshal(data, &s) != nil || len(s.Samples) == 0 || len(s.Trends) != 6 || s.End != nil {
		t.Errorf("%v: %s", err, data)
	}
	if html, err := os.ReadFile(page); err != nil || !bytes.Contains(html, []byte("Trends")) {
		t.Errorf("%v: %s", err, html)
	}
}

// TestSoakInterrupted ends a soak with Ctrl-C. Its file is complete, and is not overwritten.
func TestSoakInterrupted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "soak.jsonl")
	p := start(t, "soak --conns 4 --warmup 0 --every 1s --fail-if missing>0 --out "+file)
	p.line()
	p.signal(os.Interrupt)
	if code, why := p.wait(); code != loadtest.ExitInterrupted || !strings.Contains(p.stdout.String(), "verdict") {
		t.Errorf("exit code %d, %q\n%s", code, why, &p.stdout)
	}
	var stdout, stderr bytes.Buffer
	if code := run([]string{"soak", "--report", file}, &stdout, &stderr); code != loadtest.ExitInterrupted || !strings.Contains(stdout.String(), "ledger       clean") {
		t.Errorf("its report: exit code %d, %q\n%s", code, &stderr, &stdout)
	}
	stderr.Reset()
	if code := run([]string{"soak", "--out", file}, io.Discard, &stderr); code != loadtest.ExitUsage || !strings.Contains(stderr.String(), file+" exists") {
		t.Errorf("a second soak with the same file: exit code %d, %q", code, &stderr)
	}
}

// TestSoakUsage gives a soak flags that it cannot have.
func TestSoakUsage(t *testing.T) {
	for args, says := range map[string]string{
		"":                                     "needs --out, or --report",
		"--out a --report b":                   "give one of them",
		"--out a --every 100ms":                "want at least 1s",
		"--out a --max-growth -1":              "want at least 0",
		"--out a --metrics localhost:1":        "want a URL",
		"--out a --agents a:1":                 "--agents is not for a soak",
		"--out a --fail-if speed>1":            "there is no metric",
		"--report a --fail-if missing>0":       "--fail-if is for the run",
		"--report a --rate 100":                "--rate is for the run",
		"--report no-such-file":                "no such file",
		"--report main.go":                     "main.go: line 1 is not that of a soak",
		"--out no-such-folder/a":               "--out: ",
		"--out soak-is-not-here --payload 35":  "--payload is 35 bytes",
		"--out soak-is-not-here --server-pid=": "--server-pid",
	} {
		var stderr bytes.Buffer
		code := run(append([]string{"soak"}, strings.Fields(args)...), io.Discard, &stderr)
		if code != loadtest.ExitUsage || !strings.Contains(stderr.String(), says) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("loadtest soak %s: exit code %d, %q, want %q", args, code, &stderr, says)
		}
	}
	if _, err := os.Stat("soak-is-not-here"); !os.IsNotExist(err) {
		t.Errorf("a soak that did not begin left its file: %v", err)
	}
}
