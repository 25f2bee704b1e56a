package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
	"distmsg/loadtest/soak"
)

// newSoak builds the command that runs for hours.
func newSoak(code *loadtest.ExitCode) *cobra.Command {
	return withScenario(&cobra.Command{
		Use:   "soak (--out FILE | --report FILE)",
		Short: "Run for hours, and say whether memory, open files, goroutines or latency grow",
		Long: `Run for hours, and say whether memory, open files, goroutines or latency grow.

It adds a line to --out for each interval while it runs, so what it has found survives a crash of the tool and of its
machine. --report reads such a file, also while the soak still runs. Memory and files of the server come from
--server-pid or --metrics, its goroutines from --metrics. Something grows if the lower bound of its slope is above
--max-growth of its level an hour, and above a few MiB, files or goroutines.
Exit codes: 0 ok: nothing is known to grow, 1 runtime failure, or the file has no last line, 2 usage, 3 ledger fault,
4 something grows, or a threshold was missed, 130 interrupted (what was found until then is complete).`,
		Args: cobra.NoArgs,
	}, code, func() options { return new(soakOptions) })
}

// soakOptions is the values of the flags of soak.
type soakOptions struct {
	load    loadFlags
	outputs outputFlags
	stream  streamFlags
	judges  judgeFlags
	out     string
	report  string
	every   time.Duration
	growth  float64
}

func (o *soakOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.out, "out", "", "the `file` for what it finds; it must not exist")
	f.StringVar(&o.report, "report", "", "make no run, and judge what this `file` has")
	f.DurationVar(&o.every, "every", 30*time.Second, "length of an interval, at least 1s")
	f.Float64Var(&o.growth, "max-growth", 0.05, "share of its level by which something may grow in an hour")
	o.judges.addTo(f)
	o.outputs.addTo(f)
	o.stream.addTo(f)
	o.load.addTo(f)
	setDefault(f, "duration", "1h")
	notOfSoak().hide(f)
}

func notOfSoak() foreign {
	return foreign{to: "a soak, which makes its load itself", names: agentsFlagNames()}
}

func (o *soakOptions) run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error) {
	if err := o.check(flags); err != nil {
		return loadtest.ExitUsage, err
	}
	pages, err := o.outputs.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	file := o.report
	var failed error // the run was made, but a file of it is not complete
	if file == "" {
		file = o.out
		code, err := o.measure(cmd, flags)
		if err != nil && code != loadtest.ExitOK {
			return code, err
		}
		failed = err
	}
	var share *float64
	if flags.Changed("max-growth") {
		share = &o.growth
	}
	found, err := readSoak(file, share)
	if err != nil {
		return loadtest.ExitUsage, errors.Join(failed, err)
	}
	text := o.outputs.unlessQuiet(cmd.OutOrStdout())
	if err := errors.Join(failed, found.WriteText(text), pages.write(found, report.OfSoak(found))); err != nil {
		return loadtest.ExitFailure, err
	}
	code, why := found.Verdict()
	if code != loadtest.ExitOK {
		return code, errors.New(why)
	}
	return code, nil
}

// check rejects invalid flags, and reads the thresholds.
func (o *soakOptions) check(flags *pflag.FlagSet) error {
	if err := notOfSoak().refuse(flags); err != nil {
		return err
	}
	if err := o.checkReport(flags); err != nil {
		return err
	}
	if err := o.load.check(flags); err != nil {
		return err
	}
	switch {
	case (o.out == "") == (o.report == ""):
		return errors.New("a soak needs --out, or --report for what it has written: give one of them")
	case o.every < time.Second:
		return fmt.Errorf("--every is %v, want at least 1s", o.every)
	case o.growth < 0:
		return fmt.Errorf("--max-growth is %g, want at least 0", o.growth)
	case len(o.load.Metrics) > 1:
		return fmt.Errorf("--metrics has %d URLs, but a soak watches one server", len(o.load.Metrics))
	}
	return o.judges.parse()
}

// checkReport rejects flags of the run if none is made.
func (o *soakOptions) checkReport(flags *pflag.FlagSet) (err error) {
	if o.report == "" {
		return nil
	}
	flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "report", "out", "max-growth", "json", "html", "quiet", "scenario":
		default:
			err = fmt.Errorf("--%s is for the run: --report judges what its file has", f.Name)
		}
	})
	return err
}

// measure makes the run. Without an exit code, its error is about files alone.
func (o *soakOptions) measure(cmd *cobra.Command, flags *pflag.FlagSet) (code loadtest.ExitCode, err error) {
	streams, err := o.stream.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer streams.close()
	cfg := soak.Config{Out: o.out, Every: o.every, MaxShare: o.growth, ServerPID: o.load.ServerPID, Metrics: strings.Join(o.load.Metrics, "")}
	recorder, err := soak.NewRecorder(cfg)
	if err != nil {
		return loadtest.ExitUsage, fmt.Errorf("--out: %w", err)
	}
	defer func() { err = errors.Join(err, recorder.Close()) }()
	ctx, stop := interruptible()
	defer stop()
	report, code, err := o.runOnce(ctx, o.outputs.unlessQuiet(cmd.ErrOrStderr()), flags, recorder, streams)
	if err != nil {
		return code, err
	}
	o.judges.judge(report)
	recorder.End(report)
	return loadtest.ExitOK, streams.err()
}

func (o *soakOptions) runOnce(ctx context.Context, stderr io.Writer, flags *pflag.FlagSet, recorder *soak.Recorder, streams *streams) (*loadtest.Report, loadtest.ExitCode, error) {
	cfg, end, code, err := o.load.config(ctx, flags)
	defer end()
	if err != nil {
		return nil, code, err
	}
	view := newView(stderr, 1, length(cfg))
	defer view.close()
	cfg.Progress, cfg.Ready = view.lines, recorder.Begin
	cfg.Observe = func(s *loadtest.Sample) {
		recorder.Observe(s)
		streams.observe(s, 1)
		view.observe(s, 1)
	}
	return o.load.once(ctx, flags, cfg)
}

// readSoak reads and judges the file of a soak.
func readSoak(path string, maxShare *float64) (*result.Soak, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	found, err := soak.Read(file, maxShare)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return found, nil
}
