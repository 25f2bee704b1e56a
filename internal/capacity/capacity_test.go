package capacity

import (
	"math"
	"os"
	"strings"
	"testing"
)

// A plan carries its load when one of its nodes has failed, and would not with one node less.
func TestPlan(t *testing.T) {
	for _, ids := range []float64{1e4, 1e6, 3e7, 1e8} {
		for _, rate := range []float64{0, 0.1, 2} {
			w := Typical(ids)
			w.MessageRate = rate
			c, m := Measured(), Common()
			p, err := Estimate(w, c, m)
			if err != nil {
				t.Fatal(err)
			}
			if _, uses := estimate(w, c, m, p.Nodes-1); uses[0].Share > 1 {
				t.Errorf("%v IDs, %v messages/s: %d nodes do not carry it: %v", ids, rate, p.Nodes-1, uses)
			}
			if p.Nodes > 2 {
				if _, uses := estimate(w, c, m, p.Nodes-2); uses[0].Share <= 1 || uses[0].What != p.Limit {
					t.Errorf("%v IDs, %v messages/s: %d nodes would carry it, or %q is not what they lack: %v", ids, rate, p.Nodes-2, p.Limit, uses)
				}
			}
			for _, u := range p.Next {
				if u.Share > 1 || math.IsNaN(u.Share) {
					t.Errorf("%v IDs, %v messages/s: %d nodes use %v", ids, rate, p.Nodes, p.Next)
				}
			}
		}
	}
}

func TestTooMuch(t *testing.T) {
	w := Typical(1e12)
	if p, err := Estimate(w, Measured(), Common()); err == nil {
		t.Errorf("%d nodes for %v IDs", p.Nodes, w.IDs)
	}
}

// The costs are those of docs/benchmarks.md.
func TestCosts(t *testing.T) {
	text, err := os.ReadFile("../../docs/benchmarks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, figure := range []string{"| acked, 50 in flight | 1.02 | 1.69 |", "| acked, 50 in flight | 1.56 | 3.31 | 2.13 |", "take 2.4 KiB of RSS each", "57.5 bytes", "14 to 24 µs", "144,000 to 170,000 IDs/s", "76 bytes"} {
		if !strings.Contains(string(text), figure) {
			t.Errorf("docs/benchmarks.md does not say %q any more: change Measured and docs/capacity.md", figure)
		}
	}
}

func TestNumbers(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 0.25: "0.2", 1.44: "1.4", 24: "24", 999: "999", 1100: "1,100", 1960: "2,000",
		83_300: "83,000", 909_090: "909,000", 1e6: "1 million", 12.3e6: "12 million", 3e9: "3 billion"} {
		if got := count(n); got != want {
			t.Errorf("%v is %q, want %q", n, got, want)
		}
	}
	if got := size(2.1 * (1 << 30)); got != "2.1 GiB" {
		t.Errorf("got %q", got)
	}
}
