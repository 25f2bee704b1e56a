package main

import (
	"strings"
	"syscall"
	"testing"

	"distmsg/internal/cli"
)

// healthcheck says whether the node accepts clients, and finds it like the node itself.
func TestHealthcheck(t *testing.T) {
	p := start(t, nil)
	_, admin := p.addresses()
	addr := strings.TrimPrefix(admin, "http://")
	for _, args := range [][]string{{"--admin-listen", addr}, {"--live", "--admin-listen", addr}} {
		if code, stdout, stderr := run(t, append([]string{"healthcheck"}, args...)...); code != cli.ExitOK || stdout != "ok\n" {
			t.Errorf("%v: exit code %d, %q, %s", args, code, stdout, stderr)
		}
	}
	cmd := command(t, []string{"DISTMSG_ADMIN_LISTEN=" + addr}, "healthcheck")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("with the address in the environment: %v: %s", err, out)
	}
	p.signal(syscall.SIGTERM)
	p.exit()
	code, _, stderr := run(t, "healthcheck", "--admin-listen", addr)
	if code != cli.ExitFailure || !strings.Contains(stderr, "the node does not answer") {
		t.Errorf("after the node's end: exit code %d: %s", code, stderr)
	}
}

func TestProbeURL(t *testing.T) {
	for _, tc := range []struct {
		listen string
		live   bool
		want   string // a URL, or a part of the error
	}{
		{"127.0.0.1:7401", false, "http://127.0.0.1:7401/readyz"},
		{"0.0.0.0:7401", true, "http://localhost:7401/healthz"},
		{":7401", false, "http://localhost:7401/readyz"},
		{"[::]:7401", false, "http://localhost:7401/readyz"},
		{"[fd00::5]:7401", false, "http://[fd00::5]:7401/readyz"},
		{"none", false, "without its admin port"},
		{"7401", false, "is not host:port"},
		{"127.0.0.1:0", false, "picks a free port"},
	} {
		got, err := probeURL(tc.listen, tc.live)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want && !(err != nil && strings.Contains(got, tc.want)) {
			t.Errorf("%s: %q, want %q", tc.listen, got, tc.want)
		}
	}
}
