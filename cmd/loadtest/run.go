package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
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
	o.stream.addTo(f)
}

// runOptions is the values of the flags of run.
type runOptions struct {
	load   loadFlags
	out    outputFlags
	stream streamFlags
	rounds int
	judges judgeFlags
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
	streams, err := o.stream.open()
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
	return finish(cmd, r, &o.judges, &o.out, pages, streams)
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

// about reports whether a condition is about this metric of the whole run.
func (o *judgeFlags) about(metric string) bool {
	return slices.ContainsFunc(o.conditions, func(c judge.Condition) bool { return c.About(metric) })
}

// judge adds the thresholds to a report.
func (o *judgeFlags) judge(r *loadtest.Report) {
	for _, c := range o.conditions {
		r.Thresholds = append(r.Thresholds, c.Judge(r))
	}
}

// finish judges a run, writes its report, and returns the exit code.
func finish(cmd *cobra.Command, r *loadtest.Report, judges *judgeFlags, out *outputFlags, pages *pages, streams *streams) (loadtest.ExitCode, error) {
	judges.judge(r)
	if err := errors.Join(r.WriteText(out.unlessQuiet(cmd.OutOrStdout())), pages.write(r, report.OfRun(r)), streams.err()); err != nil {
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
			view.observe(p, round)
		}
		r, code, err := o.load.once(ctx, flags, cfg)
		if err != nil {
			return nil, code, err
		}
		all = append(all, r)
		if r.Partial || r.LostAgents() != "" || ctx.Err() != nil {
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

// interruptible returns a context that the first Ctrl-C or SIGTERM ends, or the end of the
// terminal. A second one ends the program at once, but for that of the terminal: shells and the
// kernel both say that it has gone. Under nohup, the terminal does not matter.
func interruptible() (ctx context.Context, stop func()) {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, cancel)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, cancel
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	go func() {
		select {
		case <-hangup:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(hangup)
		cancel()
	}
}
