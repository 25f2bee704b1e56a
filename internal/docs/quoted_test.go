package docs

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/loadtest/result"
)

// cost returns the CPU in seconds that a server of compare.json needs for a message of a load.
func cost(t *testing.T, s *result.Standing, load, server string) result.Seconds {
	t.Helper()
	for i := range s.Shapes {
		for j := range s.Shapes[i].Entries {
			if e := &s.Shapes[i].Entries[j]; s.Shapes[i].Name == load && e.Server == server && e.ServerCPU != nil {
				return *e.ServerCPU
			}
		}
	}
	t.Fatalf("compare.json has no CPU of %s for the load %s", server, load)
	return 0
}

// quoted returns, for each document, what it has to say about the figures of compare.json.
func quoted(t *testing.T, s *result.Standing) map[string][]string {
	of := func(load, server string) float64 { return float64(cost(t, s, load, server)) }
	row := func(title, load string) string {
		cells := []string{title}
		for _, server := range []string{"floor", "node", "redis", "nats"} {
			cells = append(cells, result.ServerCPU.Figure(cost(t, s, load, server)))
		}
		return "| " + strings.Join(cells, " | ") + " |"
	}
	busy := of("acked-50", "node")
	between := of("nodes-acked-50", "node, two of them") / of("nodes-acked-50", "node")
	tls := of("tls-acked-50", "node, TLS") / of("tls-acked-50", "node")
	aSecond := func(cost float64) string { return fmt.Sprintf("%.0f0,000", 1e-4/cost) }
	figure := result.ServerCPU.Figure
	return map[string][]string{
		"README.md": {
			row("acked, 1 in flight", "acked-1"), row("without ack, 50 in flight", "send-50"), row("acked, 50 in flight", "acked-50"),
		},
		"docs/guide.md": {
			fmt.Sprintf("It took %.2f of the server's CPU acked with 1 in flight, %.2f without acks and %.2f acked with 50 in flight",
				of("acked-1", "node")/of("acked-1", "nats"), of("send-50", "node")/of("send-50", "nats"), busy/of("acked-50", "nats")),
			fmt.Sprintf("A second node on the path costs %.1f times the CPU of one node", between),
		},
		"docs/operations.md": {
			fmt.Sprintf("%s acked messages a second on a busy node (%s µs each), and %s if all pass between nodes. On an idle node, each costs about %.0f times as much",
				aSecond(busy), figure(result.Seconds(busy)), aSecond(busy*between), of("acked-1", "node")/busy),
		},
		"docs/capacity.md": {
			fmt.Sprintf("costs [%.2f times](benchmarks.md#against-the-floor-redis-and-nats-server) as much: `--cost-message %s`",
				tls, figure(result.Seconds(busy*tls))),
			fmt.Sprintf("%.1f times the CPU of a message more", between-1),
			fmt.Sprintf("what a message alone costs (%.0f µs)", of("acked-1", "node")*1e6),
		},
	}
}

// TestQuotedFigures compares the figures that other documents quote from benchmarks.md with what
// loadtest compare measured. Tests of the capacity calculator cover the costs that it multiplies.
func TestQuotedFigures(t *testing.T) {
	for name, sentences := range quoted(t, measured(t)) {
		text := strings.Join(strings.Fields(read(t, filepath.Join(root, name))), " ")
		for _, sentence := range sentences {
			if !strings.Contains(text, sentence) {
				t.Errorf("%s does not say %q, which follows from docs/figures/compare.json", name, sentence)
			}
		}
	}
}
