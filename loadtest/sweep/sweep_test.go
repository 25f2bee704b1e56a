package sweep

import (
	"context"
	"errors"
	"strings"
	"testing"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// system is a server that takes so many messages a second, and whose latency grows before that.
type system struct {
	capacity float64
	asked    []float64
	fails    error
}

func (s *system) run(_ context.Context, cfg loadtest.Config) (*loadtest.Report, error) {
	load := cfg.Rate + float64(cfg.Window*100) + float64(cfg.Conns)
	s.asked = append(s.asked, load)
	if s.fails != nil {
		return nil, s.fails
	}
	p99 := result.Seconds(0.001)
	if load > s.capacity {
		p99 = 1
	}
	return &loadtest.Report{Rate: new(min(load, s.capacity)), Latency: &result.Latency{P50: p99 / 2, P90: p99, P99: p99, P999: p99, Max: p99},
		Sent: 1000, Outcomes: map[string]uint64{"acked": 1000}}, nil
}

func TestLadder(t *testing.T) {
	s := &system{capacity: 350}
	found, err := Run(t.Context(), Config{Of: Window, Steps: []float64{4, 1, 2, 3}, Run: s.run})
	if err != nil || len(found.Steps) != 4 || found.Knee == nil || *found.Knee != 3 || found.Steps[3].Held || found.Limits.P99 != 0.01 {
		t.Errorf("%v: %+v", err, found)
	}
	if why := found.Steps[3].Why; !strings.Contains(why, "p99 is 1.00s") {
		t.Errorf("why: %q", why)
	}
}

// Without steps, the sweep doubles the rate, and then comes close to the knee.
func TestSearch(t *testing.T) {
	s := &system{capacity: 5300}
	found, err := Run(t.Context(), Config{Of: Rate, First: 1000, Most: 1e6, Refine: 4, Run: s.run})
	if err != nil || found.Knee == nil || *found.Knee > 5300 || *found.Knee < 5000 {
		t.Fatalf("%v: %+v, asked %v", err, found, s.asked)
	}
	for i := 1; i < len(found.Steps); i++ {
		if found.Steps[i].Value <= found.Steps[i-1].Value {
			t.Errorf("the steps are not in order: %+v", found.Steps)
		}
	}
	if found, err = Run(t.Context(), Config{Of: Rate, First: 1000, Most: 4000, Refine: 4, Run: s.run}); err != nil || *found.Knee != 4000 ||
		!strings.Contains(found.Summary(), "the knee is higher") {
		t.Errorf("%v: %s", err, found.Summary())
	}
	if found, err = Run(t.Context(), Config{Of: Rate, First: 8000, Most: 1e6, Limits: result.Limits{P99: 0.5}, Run: s.run}); err != nil || found.Knee != nil ||
		found.Summary() != "No step held." {
		t.Errorf("%v: %s", err, found.Summary())
	}
}

// A step that cannot run ends the sweep with its error. An interruption keeps the steps before.
func TestSweepEnds(t *testing.T) {
	broken := errors.New("no node")
	if _, err := Run(t.Context(), Config{Of: Conns, Steps: []float64{1}, Run: (&system{fails: broken}).run}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &system{capacity: 1e6}
	found, err := Run(ctx, Config{Of: Rate, First: 1, Most: 1e6, Run: s.run, Done: func(step *result.Step) {
		if step.Value == 4 {
			cancel()
		}
	}})
	if err != nil || !found.Partial || len(found.Steps) != 3 || *found.Knee != 4 {
		t.Errorf("%v: %+v", err, found)
	}
}
