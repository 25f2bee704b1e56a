// Package sweep finds out how much load a system takes: it runs a load test for each step of a
// ladder of rates, windows or connections, and finds the knee, the highest step that holds.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// Of is what differs from step to step.
type Of string

// What may differ.
const (
	Rate   Of = "rate"
	Window Of = "window"
	Conns  Of = "conns"
)

// Config says what to sweep.
type Config struct {
	// Load is the load of each step, but for the value that differs.
	Load loadtest.Config
	Of   Of
	// Steps are the values. Empty: the sweep doubles the value from First on until a step does not
	// hold, and then tries Refine values between the last that held and the first that did not.
	Steps  []float64
	First  float64
	Refine int
	// Most is the highest value that a sweep without Steps tries.
	Most   float64
	Limits result.Limits
	// AnyP99 says that Limits.P99 has no default: 0 is no limit.
	AnyP99 bool
	// Run makes one run; loadtest.Run, or a function that observes it. It also judges the run by
	// Limits.FailIf.
	Run func(context.Context, loadtest.Config) (*loadtest.Report, error)
	// Done hears of each step after its run. Default: nobody.
	Done func(*result.Step)
}

// factorP99 is how much higher than at the first step the p99 may rise if the user sets no limit.
const factorP99 = 10

// Run runs the sweep. If ctx ends, or a step cannot run, it returns the steps so far and, in the
// latter case, the error.
func Run(ctx context.Context, cfg Config) (*result.Sweep, error) {
	s := &sweep{cfg: cfg, found: &result.Sweep{Schema: result.SchemaSweep, Of: string(cfg.Of), Limits: cfg.Limits}}
	var err error
	if len(cfg.Steps) > 0 {
		err = s.ladder(ctx)
	} else {
		err = s.search(ctx)
	}
	slices.SortFunc(s.found.Steps, func(a, b result.Step) int { return int(math.Copysign(1, a.Value-b.Value)) })
	for i := range s.found.Steps {
		if !s.found.Steps[i].Held {
			break
		}
		s.found.Knee = &s.found.Steps[i].Value
	}
	if errors.Is(err, errInterrupted) {
		s.found.Partial, err = true, nil
	}
	return s.found, err
}

var errInterrupted = errors.New("interrupted")

type sweep struct {
	cfg   Config
	found *result.Sweep
}

// ladder runs all steps that the user named.
func (s *sweep) ladder(ctx context.Context) error {
	for _, v := range slices.Sorted(slices.Values(s.cfg.Steps)) {
		if _, err := s.step(ctx, v); err != nil {
			return err
		}
	}
	return nil
}

// search doubles the load until it does not hold, and then halves the distance to the knee.
func (s *sweep) search(ctx context.Context) error {
	good, bad := 0.0, 0.0
	for v := s.cfg.First; v <= s.cfg.Most; v *= 2 {
		held, err := s.step(ctx, v)
		if err != nil {
			return err
		}
		if !held {
			bad = v
			break
		}
		good = v
	}
	if good == 0 || bad == 0 {
		return nil
	}
	for range s.cfg.Refine {
		v := s.round((good + bad) / 2)
		if v <= good || v >= bad {
			return nil
		}
		held, err := s.step(ctx, v)
		if err != nil {
			return err
		}
		if held {
			good = v
		} else {
			bad = v
		}
	}
	return nil
}

// round makes a whole number of a value, with three digits if it is a rate.
func (s *sweep) round(v float64) float64 {
	if s.cfg.Of != Rate {
		return math.Floor(v)
	}
	digit := math.Pow(10, max(0, math.Floor(math.Log10(v))-2))
	return math.Round(v/digit) * digit
}

// step runs one step.
func (s *sweep) step(ctx context.Context, v float64) (held bool, err error) {
	cfg := s.cfg.Load
	switch s.cfg.Of {
	case Rate:
		cfg.Rate, cfg.Window = v, 0
	case Window:
		cfg.Rate, cfg.Window = 0, int(v)
	case Conns:
		cfg.Conns = int(v)
	}
	r, err := s.cfg.Run(ctx, cfg)
	if ctx.Err() != nil {
		return false, errInterrupted
	}
	if err != nil {
		return false, fmt.Errorf("%s %g: %w", s.cfg.Of, v, err)
	}
	if lost := r.LostAgents(); lost != "" {
		return false, fmt.Errorf("%s %g: %s", s.cfg.Of, v, lost)
	}
	f := s.found
	if len(f.Steps) == 0 {
		f.Config, f.Machine, f.Versions = r.Config, r.Machine, r.Versions
		if f.Limits.P99 == 0 && !s.cfg.AnyP99 && r.Latency != nil {
			f.Limits.P99 = max(factorP99*r.Latency.P99, leastP99)
		}
	}
	step := result.Step{Value: v, Round: r.Round(), Outcomes: r.Outcomes}
	step.Why = f.Limits.Why(r)
	step.Held = step.Why == ""
	f.Faults += step.Faults
	f.Steps = append(f.Steps, step)
	if s.cfg.Done != nil {
		s.cfg.Done(&step)
	}
	return step.Held, nil
}

// leastP99 is the least limit for the p99 that a sweep sets itself.
const leastP99 result.Seconds = 0.001
