package main

import (
	"context"
	"errors"
	"fmt"
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
	of     string
	steps  []float64
	first  float64
	most   float64
	refine int
	p99    time.Duration
	failed float64
	behind float64
}

// newSweep builds the command that finds out how much load is too much.
func newSweep(code *loadtest.ExitCode) *cobra.Command {
	return withScenario(&cobra.Command{
		Use:   "sweep",
		Short: "Find the knee: the highest load at which p99 and outcomes hold",
		Long: `Find the knee: the highest load at which p99 and outcomes hold.

It makes one run for each step. A step holds if its ledger is clean, its p99 is at most --max-p99, at most --max-failed
of the messages end other than acked, and, with --of rate, the rate is what was asked, but for --max-behind. Without
--steps, it doubles the load from --first on until a step does not hold, and then looks for the knee in between.
Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 ledger fault, 4 not even the lowest step held, 130 interrupted.`,
		Args: cobra.NoArgs,
	}, code, func() options { return new(sweepOptions) })
}

func (o *sweepOptions) addTo(f *pflag.FlagSet) {
	o.load.addTo(f)
	o.out.addTo(f)
	f.StringVar(&o.of, "of", "rate", "what differs from step to step: rate, window or conns")
	f.Float64SliceVar(&o.steps, "steps", nil, "its values, such as 1000,2000,5000 (default: found by doubling and halving)")
	f.Float64Var(&o.first, "first", 0, "first value without --steps (default: 1000 for rate, 1 for window, 10 for conns)")
	f.Float64Var(&o.most, "most", 0, "highest value without --steps (default: 10,000 times the first)")
	f.IntVar(&o.refine, "refine", 3, "steps between the last that held and the first that did not")
	f.DurationVar(&o.p99, "max-p99", 0, "highest p99 of a step that holds (default: ten times that of the first step, at least 1ms)")
	f.Float64Var(&o.failed, "max-failed", 0.001, "largest share of messages that end other than acked, or are not sent in time")
	f.Float64Var(&o.behind, "max-behind", 0.02, "largest share by which the rate may stay behind what was asked")
}

func (o *sweepOptions) run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error) {
	if err := o.check(flags); err != nil {
		return loadtest.ExitUsage, err
	}
	pages, err := o.out.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	ctx, stop := interruptible()
	defer stop()
	load, end, code, err := o.load.config(ctx, flags)
	defer end()
	if err != nil {
		return code, err
	}
	failed := loadtest.ExitFailure
	progress := o.out.unlessQuiet(cmd.ErrOrStderr())
	found, err := sweep.Run(ctx, sweep.Config{
		Load: load, Of: sweep.Of(o.of), Steps: o.steps, First: o.first, Most: o.most, Refine: o.refine,
		Limits: result.Limits{P99: result.Of(o.p99), Failed: o.failed, Behind: o.behind},
		Run: func(ctx context.Context, cfg loadtest.Config) (r *loadtest.Report, err error) {
			r, failed, err = o.load.once(ctx, flags, cfg)
			return r, err
		},
		Done: func(s *result.Step) { say(progress, "%s\n", strings.Join(append([]string{o.of}, s.Row()...), "  ")) },
	})
	if err != nil {
		return failed, err
	}
	if err := errors.Join(found.WriteText(o.out.unlessQuiet(cmd.OutOrStdout())), pages.write(found, report.OfSweep(found))); err != nil {
		return loadtest.ExitFailure, err
	}
	return sweepVerdict(found)
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

// check rejects invalid flags and fills in what depends on --of.
func (o *sweepOptions) check(flags *pflag.FlagSet) error {
	if err := o.load.check(flags); err != nil {
		return err
	}
	first, known := map[string]float64{"rate": 1000, "window": 1, "conns": 10}[o.of]
	switch {
	case !known:
		return fmt.Errorf("--of is %q, want rate, window or conns", o.of)
	case flags.Changed(o.of):
		return fmt.Errorf("--%s is what differs: name its values with --steps", o.of)
	case o.of == "window" && flags.Changed("rate"):
		return errors.New("--rate excludes --of window")
	case flags.Changed("stages") || o.load.span == forever:
		return errors.New("a sweep has no --stages, and its --duration is not forever")
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
