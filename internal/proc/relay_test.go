package proc

import (
	"context"
	"strings"
	"testing"
)

func TestRelay(t *testing.T) {
	t.Parallel()
	host := newNetwork(t, 1).Hosts[0]
	for _, options := range []RelayOptions{
		{Flags: []string{"--node-id", "{peer-addr}"}},
		{Flags: []string{"--node-id={peer-addr}"}, Host: host},
	} {
		relay, err := StartRelay(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		defer relay.Close()
		// a log waits for nobody, and nobody for it
		eventually(t, "its log says its name", func(context.Context) bool {
			return strings.Contains(relay.Output(), "node="+relay.PeerAddr)
		})
		conn := dialFrom(t, nil, relay.Addr)
		connections := func(n float64) func(context.Context) bool {
			return func(ctx context.Context) bool {
				got, err := relay.Metric(ctx, "distmsg_connections")
				return err == nil && got == n
			}
		}
		eventually(t, "it counts the connection", connections(1))
		if options.Host != nil {
			if err := host.Partition(); err != nil {
				t.Fatal(err)
			}
		}
		if stall, err := relay.Metric(t.Context(), "distmsg_loop_stall_longest_seconds"); err != nil || stall < 0 {
			t.Errorf("the longest stall is %v, %v", stall, err)
		}
		if options.Host != nil {
			if err := host.Heal(); err != nil {
				t.Fatal(err)
			}
		}
		relay.Kill()
		conn.Close()
		if err := relay.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it starts anew", connections(0))
		dialFrom(t, nil, relay.Addr).Close()
		if err := relay.Stop(); err != nil {
			t.Error(err)
		}
		if code := relay.Wait(); code != 0 {
			t.Errorf("stopped: exit code %d", code)
		}
	}
	_, err := StartRelay(t.Context(), RelayOptions{Flags: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("a flag that does not exist: %v", err)
	}
}

func TestMetric(t *testing.T) {
	t.Parallel()
	const text = `# HELP a_total What is counted.
# TYPE a_total counter
a_total{kind="x y"} 2
a_total{kind="z"} 0.5
a_total_more 7
b 1.5e+09
`
	for name, want := range map[string]float64{`a_total`: 2.5, `a_total{kind="x y"}`: 2, `a_total{kind="z"}`: 0.5, `b`: 1.5e9} {
		if got, err := sumOf(text, name); err != nil || got != want {
			t.Errorf("%s is %v (%v), want %v", name, got, err, want)
		}
	}
	for _, name := range []string{"a", "a_total{}", "c", "#"} {
		if got, err := sumOf(text, name); err == nil {
			t.Errorf("%s, which is not there, is %v", name, got)
		}
	}
}
