package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"distmsg/loadtest"
)

// What a cluster refuses, it refuses before it starts anything.
func TestClusterRefusals(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--faults=10s kil-node 2"}, `--faults: character 5: there is no verb "kil-node"`},
		{[]string{"--faults=10s kill-node 4"}, `--faults: character 15: there is no node "4"`},
		{[]string{"--cluster-nodes=2"}, "character 47: there is no node \"3\""}, // of the default
		{[]string{"--cluster-nodes=101"}, "--cluster-nodes 101"},
		{[]string{"--nodes=127.0.0.1:1"}, "--nodes is not for a cluster"},
		{[]string{"--no-ack"}, "--no-ack is not for a cluster"},
		{[]string{"--duration=forever"}, "--duration is not forever"},
		{[]string{"--fail-if=kill: missing>0"}, "missing is not known of a single episode"},
		{[]string{"--window=4", "--rate=5"}, "exclude each other"},
	} {
		var stderr bytes.Buffer
		code := run(append([]string{"cluster"}, c.args...), io.Discard, &stderr)
		if code != loadtest.ExitUsage || !strings.Contains(stderr.String(), c.says) || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q: exit code %d, %q, want %q", c.args, code, stderr.String(), c.says)
		}
	}
}
