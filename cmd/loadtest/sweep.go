package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
	"distmsg/loadtest/sweep"
)

// sweepOptions is the values of the flags of sweep.
type sweepOptions struct {
	load   loadFlags
	out    outputFlags
	stream streamFlags
	judges judgeFlags
	of     string
	steps  []float64
	first  float64
	most   float64
	refine int
	p99    time.Duration
	failed float64
	behind float64
	// replaced says which values of the scenario do not count. Empty: all do.
	replaced string
}

// newSweep builds the command that finds out how much load is too much.
func newSweep(code *loadtest.ExitCode) *cobra.Command {
	return withScenario(&cobra.Command{
		Use:   "sweep",
		Short: "Find the knee: the highest load at which p99 and outcomes hold",
		Long: `Find the knee: the highest load at which p99 and outcomes hold.

It makes one run for each step. A step holds if its ledger is clean, no condition of --fail-if holds, its p99 is at most
--max-p99, at most --max-failed of the messages end other than acked, and, with --of rate, the rate is what was asked,
but for --max-behind. What differs from step to step takes the place of what --scenario says about it. Without --steps,
it doubles the load from --first on until a step does not hold, and then looks for the knee in between.
Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 ledger fault, 4 not even the lowest step held, 130 interrupted.`,
		Args: cobra.NoArgs,
	}, code, func() options { return new(sweepOptions) })
}

func (o *sweepOptions) addTo(f *pflag.FlagSet) {
	o.load.addTo(f)
	o.out.addTo(f)
	o.stream.addTo(f)
	f.StringVar(&o.of, "of", "rate", "what differs from step to step: rate, window or conns")
	f.Float64SliceVar(&o.steps, "steps", nil, "its values, such as 1000,2000,5000 (default: found by doubling and halving)")
	f.Float64Var(&o.first, "first", 0, "first value without --steps (default: 1000 for rate, 1 for window, 10 for conns)")
	f.Float64Var(&o.most, "most", 0, "highest value without --steps (default: 10,000 times the first)")
	f.IntVar(&o.refine, "refine", 3, "steps between the last that held and the first that did not")
	f.DurationVar(&o.p99, "max-p99", 0, "highest p99 of a step that holds (default: ten times that of the first step, at least 1ms, unless --fail-if is about p99)")
	f.StringArrayVar(&o.judges.failIf, "fail-if", nil, "a step does not hold if this `condition` does, such as 'p99>2ms' or 'server_rss>1GiB'; may be repeated")
	f.Float64Var(&o.failed, "max-failed", 0.001, "largest share of messages that end other than acked, or are not sent in time")
	f.Float64Var(&o.behind, "max-behind", 0.02, "largest share by which the rate may stay behind what was asked")
}

func (o *sweepOptions) run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error) {
	if err := o.check(flags, cmd.Flags()); err != nil {
		return loadtest.ExitUsage, err
	}
	pages, err := o.out.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	streams, err := o.stream.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer streams.close()
	ctx, stop := interruptible()
	defer stop()
	found, code, failed := o.measure(ctx, cmd.ErrOrStderr(), flags, streams)
	if found == nil || len(found.Steps) == 0 && failed != nil {
		return code, failed
	}
	err = errors.Join(found.WriteText(o.out.unlessQuiet(cmd.OutOrStdout())), pages.write(found, report.OfSweep(found)), streams.err())
	switch {
	case failed != nil:
		return code, errors.Join(failed, err)
	case err != nil:
		return loadtest.ExitFailure, err
	}
	return sweepVerdict(found)
}

// measure makes the steps. With an error, it returns those before it.
func (o *sweepOptions) measure(ctx context.Context, stderr io.Writer, flags *pflag.FlagSet, streams *streams) (*result.Sweep, loadtest.ExitCode, error) {
	load, end, code, err := o.load.config(ctx, flags)
	defer end()
	if err != nil {
		return nil, code, err
	}
	failed := loadtest.ExitFailure
	view := newView(o.out.unlessQuiet(stderr), 1, length(load))
	defer view.close()
	if o.replaced != "" {
		view.note(o.replaced)
	}
	steps := 0
	found, err := sweep.Run(ctx, sweep.Config{
		Load: load, Of: sweep.Of(o.of), Steps: o.steps, First: o.first, Most: o.most, Refine: o.refine,
		Limits: result.Limits{P99: result.Of(o.p99), Failed: o.failed, Behind: o.behind, FailIf: o.judges.failIf},
		AnyP99: o.judges.about("p99"),
		Run: func(ctx context.Context, cfg loadtest.Config) (r *loadtest.Report, err error) {
			steps++
			step := steps
			cfg.Observe = func(p *loadtest.Sample) {
				streams.observe(p, step)
				view.observe(p, step)
			}
			if r, failed, err = o.load.once(ctx, flags, cfg); err == nil {
				o.judges.judge(r)
			}
			return r, err
		},
		Done: func(s *result.Step) { view.note(strings.Join(append([]string{o.of}, s.Row()...), "  ")) },
	})
	return found, failed, err
}

// replace removes from the load what differs from step to step, and what excludes it. Only a
// scenario may have it, for other commands.
func (o *sweepOptions) replace(flags, line *pflag.FlagSet) error {
	given, known := map[string][]string{"rate": {"rate", "window", "stages"}, "window": {"window", "rate", "stages"}, "conns": {"conns"}}[o.of]
	if !known {
		return fmt.Errorf("--of is %q, want rate, window or conns", o.of)
	}
	if o.of == "conns" && flags.Changed("stages") {
		return errors.New("a sweep has no --stages: the rate of each step is the same all the time")
	}
	var names []string
	for _, name := range given {
		switch {
		case line.Changed(name) && name == o.of:
			return fmt.Errorf("--%s is what differs: name its values with --steps", name)
		case line.Changed(name):
			return fmt.Errorf("--%s excludes --of %s", name, o.of)
		case flags.Changed(name):
			names = append(names, name)
		}
	}
	if len(names) > 0 {
		o.replaced = fmt.Sprintf("the sweep of %s takes the place of what the scenario says: %s", o.of, strings.Join(names, ", "))
	}
	if o.of != "conns" {
		o.load.Rate, o.load.Stages = 0, nil
	}
	return nil
}

func sweepVerdict(s *result.Sweep) (loadtest.ExitCode, error) {
	switch {
	case s.Faults > 0:
		return loadtest.ExitLedger, errors.New(s.Summary())
	case s.Partial:
		return loadtest.ExitInterrupted, errors.New(s.Summary())
	case s.Knee == nil:
		return loadtest.ExitThreshold, errors.New(s.Summary())
	}
	return loadtest.ExitOK, nil
}

// check rejects invalid flags and fills in what depends on --of. line has those of the command
// line.
func (o *sweepOptions) check(flags, line *pflag.FlagSet) error {
	if err := errors.Join(o.load.check(flags), o.judges.parse()); err != nil {
		return err
	}
	if err := o.replace(flags, line); err != nil {
		return err
	}
	first := map[string]float64{"rate": 1000, "window": 1, "conns": 10}[o.of]
	switch {
	case o.load.span == forever:
		return errors.New("--duration is the time of a step, and not forever")
	case flags.Changed("steps") && (flags.Changed("first") || flags.Changed("most")):
		return errors.New("--steps excludes --first and --most")
	case o.p99 < 0 || o.failed < 0 || o.failed > 1 || o.behind < 0 || o.behind > 1 || o.refine < 0:
		return errors.New("--max-p99 and --refine are at least 0, --max-failed and --max-behind are 0 to 1")
	}
	for _, v := range o.steps {
		if v <= 0 || o.of != "rate" && v != float64(int(v)) {
			return fmt.Errorf("--steps has %g, want numbers above 0, whole ones for window and conns", v)
		}
	}
	if o.first == 0 {
		o.first = first
	}
	if o.most == 0 {
		o.most = o.first * 10_000
	}
	if o.first < 0 || o.most < o.first {
		return fmt.Errorf("--first is %g and --most %g, want 0 < first <= most", o.first, o.most)
	}
	return nil
}
