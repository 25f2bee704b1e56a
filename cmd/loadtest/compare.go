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

	"distmsg/internal/cli"
	"distmsg/loadtest"
	"distmsg/loadtest/compare"
	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
)

// compareOptions is the values of the flags of compare.
type compareOptions struct {
	cfg      compare.Config
	seconds  float64
	secure   bool
	from     string
	out      outputFlags
	svg      string
	markdown bool
}

// newCompare builds the command that compares our node with other servers.
func newCompare(code *loadtest.ExitCode) *cobra.Command {
	o := new(compareOptions)
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Compare our node with nats-server, Redis, and a relay without features",
		Long: `Compare our node with nats-server, Redis, and a relay without features, the floor.

It starts the servers itself, one after the other, on free ports: our node and nats-server are built from this
repository, redis-server comes from PATH. The servers have one CPU and the driver another. In each round, each load goes
to each server once. An aim is reached or missed if all rounds say so; else nobody can tell. Exit codes: 0 no aim is known to
be missed, 1 runtime failure, 2 usage, 3 ledger fault of our node, 4 an aim was missed, 130 interrupted.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			*code, err = o.run(cmd)
			return err
		},
	}
	o.addTo(cmd.Flags())
	return cmd
}

func (o *compareOptions) addTo(f *pflag.FlagSet) {
	f.IntVar(&o.cfg.Rounds, "rounds", 5, "how often each load goes to each server")
	f.Float64Var(&o.seconds, "seconds", 5, "measured time of each run, after a warm-up of at most a second")
	f.StringSliceVar(&o.cfg.Shapes, "shapes", compare.DefaultShapes(), "loads, by name or group: "+strings.Join(compare.ShapeNames(), ", "))
	f.StringSliceVar(&o.cfg.Peers, "peers", compare.Peers(), "servers")
	f.BoolVar(&o.secure, "tls", false, "what TLS costs: the same as --shapes tls")
	f.IntVar(&o.cfg.Conns, "conns", 0, "connections in place of those of the loads; no aim counts then (0: theirs)")
	f.BoolVar(&o.cfg.Pin, "pin", true, "give the servers one CPU and the driver another")
	f.StringVar(&o.cfg.Programs.Relay, "relay", "", "`program` of our node (default: built from this repository)")
	f.StringVar(&o.cfg.Programs.NATS, "nats-server", "", "`program` of NATS (default: built in the version of tools/go.mod)")
	f.StringVar(&o.cfg.Programs.Redis, "redis-server", "", "`program` of Redis (default: redis-server in PATH)")
	f.StringVar(&o.from, "from", "", "measure nothing: show what --json wrote to this `file`")
	o.out.addTo(f)
	f.StringVar(&o.svg, "svg", "", "also draw the ratios to this `file`")
	f.BoolVar(&o.markdown, "markdown", false, "print the tables as Markdown, with all figures")
}

func (o *compareOptions) run(cmd *cobra.Command) (loadtest.ExitCode, error) {
	if err := o.check(cmd.Flags()); err != nil {
		return loadtest.ExitUsage, err
	}
	pages, err := o.out.open()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer pages.close()
	svg, err := openOut("svg", o.svg)
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer svg.close()
	s, code, err := o.standing(cmd)
	if err != nil {
		return code, err
	}
	write := s.WriteText
	if o.markdown {
		write = s.WriteMarkdown
	}
	err = errors.Join(write(o.out.unlessQuiet(cmd.OutOrStdout())), pages.write(s, report.OfStanding(s)),
		svg.write(func(w io.Writer) error { return report.WriteSVG(w, s) }))
	if err != nil {
		return loadtest.ExitFailure, err
	}
	code, why := s.Verdict()
	if code != loadtest.ExitOK {
		return code, errors.New(why)
	}
	return code, nil
}

func (o *compareOptions) check(flags *pflag.FlagSet) error {
	if err := errors.Join(cli.RefuseEmpty(flags, "conns"), refuseSameFile(flags)); err != nil {
		return err
	}
	switch {
	case o.cfg.Rounds < 1:
		return fmt.Errorf("--rounds is %d, want at least 1", o.cfg.Rounds)
	case o.seconds <= 0 || o.seconds > 3600:
		return fmt.Errorf("--seconds is %g, want more than 0, 3600 at most", o.seconds)
	case o.cfg.Conns < 0 || o.cfg.Conns == 1:
		return fmt.Errorf("--conns is %d, want at least 2", o.cfg.Conns)
	case o.secure && flags.Changed("shapes"):
		return errors.New("--tls excludes --shapes")
	case o.secure:
		o.cfg.Shapes = []string{"tls"}
	}
	o.cfg.Duration = time.Duration(o.seconds * float64(time.Second))
	o.cfg.Warmup = min(o.cfg.Duration, time.Second)
	return nil
}

// standing measures, or reads what was measured.
func (o *compareOptions) standing(cmd *cobra.Command) (*result.Standing, loadtest.ExitCode, error) {
	if o.from != "" {
		s, err := readResult[result.Standing](o.from, "compare", result.SchemaStanding)
		return s, loadtest.ExitUsage, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, loadtest.ExitFailure, err
	}
	o.cfg.Programs.Floor = []string{self, "floor"}
	o.cfg.Progress = o.out.unlessQuiet(cmd.ErrOrStderr())
	ctx, stop := interruptible()
	defer stop()
	s, err := compare.Run(ctx, o.cfg)
	switch {
	case errors.Is(err, loadtest.ErrUsage):
		return nil, loadtest.ExitUsage, nameFlags(cmd.Flags(), err)
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, loadtest.ExitInterrupted, errors.New("interrupted before the first round was complete")
	}
	return s, loadtest.ExitFailure, err
}
