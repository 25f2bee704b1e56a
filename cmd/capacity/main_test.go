package main

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"distmsg/internal/cli"
)

var update = flag.Bool("update", false, "write what the commands in docs/capacity.md print into it")

// run returns what capacity writes.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	code = cli.Execute(cmd, args, &errOut)
	return code, out.String(), errOut.String()
}

// example is a command in the document, and what it prints there.
var example = regexp.MustCompile("```sh\ngo run ./cmd/capacity(.*)\n```\n\n```text\n((?s:.*?))```\n")

// The tables in the document are what its commands print.
func TestDocument(t *testing.T) {
	const name = "../../docs/capacity.md"
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	fresh := example.ReplaceAllStringFunc(string(page), func(block string) string {
		found++
		m := example.FindStringSubmatch(block)
		code, out, stderr := run(t, strings.Fields(m[1])...)
		if code != cli.ExitOK {
			t.Errorf("capacity%s: exit code %d, %s", m[1], code, stderr)
		}
		return strings.TrimSuffix(block, m[2]+"```\n") + out + "```\n"
	})
	if found < 3 {
		t.Errorf("the document has %d examples, want 3", found)
	}
	if *update {
		if err := os.WriteFile(name, []byte(fresh), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if fresh != string(page) {
		t.Errorf("docs/capacity.md is not what its commands print: go test ./cmd/capacity -update")
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--ids 0", "--ids 0"},
		{"--ids x", "ids"},
		{"--cores 0", "--cores 0 must be over 0"},
		{"--rate -1", "--rate -1"},
		{"--used 2", "--used 2: want a share"},
		{"more", "more"},
	} {
		code, _, stderr := run(t, strings.Fields(tc.args)...)
		if code != cli.ExitUsage || !strings.Contains(stderr, tc.want) {
			t.Errorf("%s: exit code %d, %q, want %q", tc.args, code, stderr, tc.want)
		}
	}
	if code, _, stderr := run(t, "--ids", "1e12"); code != cli.ExitFailure || !strings.Contains(stderr, "more than 1024 nodes") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
}
