package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"distmsg/internal/cli"
	"distmsg/internal/conformance"
	"distmsg/internal/proc"
)

// execute runs the command line and returns its exit code and what it wrote.
func execute(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	root := newCommand()
	root.SetOut(&out)
	root.SetErr(&errs)
	code = cli.Execute(root, args, &errs)
	return code, out.String(), errs.String()
}

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--help", cli.ExitOK, "--exec"},
		{"--list", cli.ExitOK, "drain-alone"},
		{"--list --run kick", cli.ExitOK, "kicks with lower"},
		{"--run nope", cli.ExitUsage, "--run nope: there is no scenario of this name"},
		{"--run=", cli.ExitUsage, "--run is empty"},
		{"--exec=", cli.ExitUsage, "--exec is empty"},
		{"--wait -1s", cli.ExitUsage, "--wait -1s"},
		{"--parallel 0", cli.ExitUsage, "--parallel is 0"},
		{"--parallel -1", cli.ExitUsage, "--parallel -1"},
		{"--json no-such-folder/out.json", cli.ExitUsage, "no-such-folder"},
		{"--tls-cert f", cli.ExitUsage, "go together"},
		{"--tls-client-ca f", cli.ExitUsage, "needs --tls-cert"},
		{"--tls-cert no-such-file --tls-key f", cli.ExitUsage, "no-such-file"},
		{"extra", cli.ExitUsage, "extra"},
		{"--run kick --listen 127.0.0.1:0 --wait 50ms", cli.ExitFailure, "no client has come to 127.0.0.1:"},
		{"--run kick --listen foo:1:2", cli.ExitFailure, "foo:1:2"},
	} {
		code, stdout, stderr := execute(strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.says) {
			t.Errorf("%s: code %d, want %d and %q:\n%s%s", c.args, code, c.code, c.says, stdout, stderr)
		}
	}
}

// TestExampleClient runs the command of the page, on a scenario that is passed and on one that is
// skipped.
func TestExampleClient(t *testing.T) {
	dir := filepath.Join("..", "..", "docs", "protocol", "example-client")
	if err := proc.InstallNode(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "out.json")
	code, stdout, stderr := execute("--exec", "node "+dir+"/conform.js", "--run", "kick,multicast", "--json", file)
	if code != cli.ExitOK || !strings.Contains(stdout, "1 passed, 0 failed, 1 skipped") {
		t.Fatalf("code %d\n%s%s", code, stdout, stderr)
	}
	var verdicts []conformance.Verdict
	if data, err := os.ReadFile(file); err != nil || json.Unmarshal(data, &verdicts) != nil || len(verdicts) != 2 || verdicts[0].Result != conformance.Pass {
		t.Errorf("%v: %+v", err, verdicts)
	}
}

// TestBadProgram: of a program that says something and ends before it has connected nothing is
// known.
func TestBadProgram(t *testing.T) {
	code, stdout, stderr := execute("--exec", `echo "at $CONFORMANCE_NODE in $CONFORMANCE_SCENARIO"; exit 3`, "--run", "kick")
	if code != cli.ExitFailure || !strings.Contains(stderr, "scenarios that could not be played: 1") {
		t.Errorf("code %d\n%s", code, stderr)
	}
	for _, want := range []string{"error kick", "the program did not connect to 127.0.0.1:", "it ended: exit status 3",
		"client:   at 127.0.0.1:", "in kick\n", "0 passed, 0 failed, 0 skipped, 1 could not be played"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	var out bytes.Buffer
	o := options{run: []string{"kick"}, exec: "sleep 60", parallel: 1}
	err := o.do(ctx, &out, io.Discard)
	root := newCommand()
	root.RunE = cli.RunE(func(*cobra.Command, []string) error { return err })
	if code := cli.Execute(root, nil, io.Discard); code != cli.ExitInterrupted || !strings.Contains(out.String(), "1 could not be played") {
		t.Errorf("code %d, %v\n%s", code, err, out.String())
	}
}
