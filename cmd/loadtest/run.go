package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/judge"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
)

// newRun builds the command that runs a load test; the root command is the same.
func newRun(code *loadtest.ExitCode) *cobra.Command {
	return withScenario(&cobra.Command{
		Use:   "run",
		Short: "Send messages through relay nodes and account for every one of them",
		Args:  cobra.NoArgs,
	}, code, func() options { return new(runOptions) })
}

func (o *runOptions) addTo(f *pflag.FlagSet) {
	o.load.addTo(f)
	f.IntVar(&o.rounds, "rounds", 1, "runs, one after the other; rate, latency and CPU are medians, and diff knows the noise")
	o.judges.addTo(f)
	o.out.addTo(f)
	f.StringVar(&o.csv, "csv", "", "write a line for each second to this `file`, as CSV, while the run goes on")
	f.StringVar(&o.hdr, "hdr", "", "write the latencies of each second to this `file`, in the log format of HdrHistogram, while the run goes on")
	f.StringVar(&o.prometheus, "prometheus", "", "serve metrics at http://`address`/metrics while the run goes on")
}

// runOptions is the values of the flags of run.
type runOptions struct {
	load       loadFlags
	out        outputFlags
	rounds     int
	judges     judgeFlags
	csv, hdr   string
	prometheus string
}

func (o *runOptions) run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error) {
	if err := o.check(flags); err != nil {
		return loadtest.ExitUsage, err
	}
	pages, err := o.out.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	streams, err := openStreams(o.csv, o.hdr)
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer streams.close()
	ctx, stop := interruptible()
	defer stop()
	r, code, err := o.measure(ctx, cmd.ErrOrStderr(), flags, streams)
	if err != nil {
		return code, err
	}
	if code, err = finish(cmd, r, &o.judges, &o.out, pages); streams.err() != nil {
		return loadtest.ExitFailure, streams.err()
	}
	return code, err
}

// judgeFlags say what is not good enough.
type judgeFlags struct {
	failIf     []string
	conditions []judge.Condition
}

func (o *judgeFlags) addTo(f *pflag.FlagSet) {
	f.StringArrayVar(&o.failIf, "fail-if", nil, "exit code 4 if this `condition` holds, such as 'p99>2ms', 'no_route>1%' or 'rate<100k'; may be repeated")
}

func (o *judgeFlags) parse() error {
	for _, text := range o.failIf {
		c, err := judge.Parse(text)
		if err != nil {
			return fmt.Errorf("--fail-if %w", err)
		}
		o.conditions = append(o.conditions, c)
	}
	return nil
}

// judge adds the thresholds to a report.
func (o *judgeFlags) judge(r *loadtest.Report) {
	for _, c := range o.conditions {
		r.Thresholds = append(r.Thresholds, c.Judge(r))
	}
}

// finish judges a run, writes its report, and returns the exit code.
func finish(cmd *cobra.Command, r *loadtest.Report, judges *judgeFlags, out *outputFlags, pages *pages) (loadtest.ExitCode, error) {
	judges.judge(r)
	if err := errors.Join(r.WriteText(out.unlessQuiet(cmd.OutOrStdout())), pages.write(r, report.OfRun(r))); err != nil {
		return loadtest.ExitFailure, err
	}
	code, why := r.Verdict()
	if code != loadtest.ExitOK {
		return code, errors.New(why)
	}
	return code, nil
}

// check rejects invalid flags and reads the thresholds.
func (o *runOptions) check(flags *pflag.FlagSet) error {
	if err := o.load.check(flags); err != nil {
		return err
	}
	if o.rounds < 1 {
		return fmt.Errorf("--rounds is %d, want at least 1", o.rounds)
	}
	return o.judges.parse()
}

// measure makes all rounds.
func (o *runOptions) measure(ctx context.Context, stderr io.Writer, flags *pflag.FlagSet, streams *streams) (*loadtest.Report, loadtest.ExitCode, error) {
	cfg, end, code, err := o.load.config(ctx, flags)
	defer end()
	if err != nil {
		return nil, code, err
	}
	metrics, err := serveMetrics(o.prometheus)
	if err != nil {
		return nil, loadtest.ExitUsage, fmt.Errorf("--prometheus: %w", err)
	}
	defer metrics.close()
	view := newView(o.out.unlessQuiet(stderr), o.rounds, length(cfg))
	defer view.close()
	cfg.Progress = view.lines
	var all []*loadtest.Report
	for round := 1; round <= o.rounds; round++ {
		if o.rounds > 1 {
			say(cfg.Progress, "round %d of %d\n", round, o.rounds)
		}
		cfg.Observe = func(p *loadtest.Sample) {
			streams.observe(p, round)
			metrics.observe(p)
			view.observe(p, round)
		}
		r, code, err := o.load.once(ctx, flags, cfg)
		if err != nil {
			return nil, code, err
		}
		all = append(all, r)
		if r.Partial || ctx.Err() != nil {
			break
		}
	}
	if len(all) == 1 {
		return all[0], loadtest.ExitOK, nil
	}
	return result.Merge(all...), loadtest.ExitOK, nil
}

// length returns how long a run takes, or 0 if nobody knows.
func length(cfg loadtest.Config) time.Duration {
	if cfg.Duration < 0 {
		return 0
	}
	return max(cfg.Warmup, 0) + cfg.Duration
}

// say prints progress. Whoever reads it may have gone.
func say(w io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }

// interruptible returns a context that the first Ctrl-C or SIGTERM ends. A second one ends the
// program at once.
func interruptible() (ctx context.Context, stop func()) {
	ctx, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
