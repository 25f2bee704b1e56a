// Command conformance plays a node for those who write a client: it does what nodes do seldom, and
// says what the client did wrong. docs/conformance.md says what the client's program has to do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"distmsg/internal/certs"
	"distmsg/internal/cli"
	"distmsg/internal/conformance"
)

func main() { os.Exit(cli.Execute(newCommand(), os.Args[1:], os.Stderr)) }

// options are the flags.
type options struct {
	list     bool
	run      []string
	exec     string
	listen   string
	wait     time.Duration
	tls      certs.Files
	parallel int
	jsonFile string
}

func newCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "conformance",
		Short: "Plays a test node that also does what nodes rarely do, and reports what a client does wrong",
		Long: `Plays a test node that also does what nodes rarely do, and reports what a client does wrong.
docs/conformance.md says what the client's program has to do.

With --exec it runs that program once for each scenario. Without, it waits for a client at --listen, one scenario
after the other. Exit codes: 0 all passed or were skipped, 1 runtime failure, 2 usage, 6 the client broke a rule,
130 interrupted.`,
		Version: cli.Version(),
		Args:    cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := cli.RefuseEmpty(cmd.Flags()); err != nil {
				return err
			}
			return o.do(ctx, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.list, "list", false, "list the scenarios, and what the client must do in each")
	f.StringSliceVar(&o.run, "run", nil, "play these scenarios only: `name`,name…")
	f.StringVar(&o.exec, "exec", "", "a `command` line for sh that runs the client's program; it finds the address in $"+conformance.NodeVariable+
		" and the scenario in $"+conformance.ScenarioVariable)
	f.StringVar(&o.listen, "listen", "", "listen at this `address`, one scenario at a time (127.0.0.1:7400; with --exec: free ports of 127.0.0.1)")
	f.StringVar(&o.tls.Cert, "tls-cert", "", "PEM `file` with the certificate of the nodes, which then use TLS")
	f.StringVar(&o.tls.Key, "tls-key", "", "PEM `file` with its key")
	f.StringVar(&o.tls.CA, "tls-client-ca", "", "PEM `file`: who signs the clients' certificates; clients without one are refused")
	f.DurationVar(&o.wait, "wait", 0, "how long a client may take to connect (1m; with --exec: 30s)")
	f.IntVar(&o.parallel, "parallel", 8, "with --exec and without --listen, play this `many` scenarios at once")
	f.StringVar(&o.jsonFile, "json", "", "also write the verdicts to this `file`, as JSON")
	return cmd
}

// do lists the scenarios, or plays them.
func (o *options) do(ctx context.Context, stdout, stderr io.Writer) error {
	scenarios, err := chosen(o.run)
	if err != nil {
		return err
	}
	if o.list {
		for _, s := range scenarios {
			fmt.Fprintf(stdout, "%-22s %s\n", s.Name, s.About)
		}
		return nil
	}
	cfg, err := o.config(stdout, stderr)
	if err != nil {
		return err
	}
	save, err := o.openJSON()
	if err != nil {
		return err
	}
	verdicts := conformance.Run(ctx, cfg, scenarios)
	if err := save(verdicts); err != nil {
		return err
	}
	return judge(ctx, verdicts, stdout)
}

// config makes of the flags what Run needs.
func (o *options) config(stdout, stderr io.Writer) (conformance.Config, error) {
	cfg := conformance.Config{
		Listen: o.listen, Arrival: o.wait, Parallel: o.parallel,
		Ended: func(v *conformance.Verdict) { _ = v.Write(stdout) },
	}
	switch {
	case o.wait < 0:
		return cfg, cli.Usagef("--wait %v: want more than 0", o.wait)
	case o.parallel < 0:
		return cfg, cli.Usagef("--parallel %d: want 1 or more", o.parallel)
	case (o.tls.Cert == "") != (o.tls.Key == ""):
		return cfg, cli.Usagef("--tls-cert and --tls-key go together: give both, or neither")
	case o.tls.Cert == "" && o.tls.CA != "":
		return cfg, cli.Usagef("--tls-client-ca needs --tls-cert and --tls-key")
	case o.exec != "":
		cfg.Client = conformance.Exec(o.exec)
	}
	if o.tls.Cert != "" {
		files, err := certs.Open(certs.Config{Files: o.tls})
		if err != nil {
			return cfg, cli.Usagef("%w", err)
		}
		cfg.TLS = files.Server()
	}
	if o.listen != "" || o.exec == "" {
		cfg.Parallel = 1
	}
	if o.exec != "" && cfg.Arrival == 0 {
		cfg.Arrival = 30 * time.Second
	}
	if o.exec == "" {
		if cfg.Listen == "" {
			cfg.Listen = "127.0.0.1:7400"
		}
		if cfg.Arrival == 0 {
			cfg.Arrival = time.Minute
		}
		cfg.Started = func(s *conformance.Scenario, node string) {
			fmt.Fprintf(stderr, "%s: waiting for a client at %s\n", s.Name, node)
		}
	}
	return cfg, nil
}

// chosen returns the scenarios of these names, all of them without any.
func chosen(names []string) ([]conformance.Scenario, error) {
	all := conformance.Scenarios()
	if len(names) == 0 {
		return all, nil
	}
	var some []conformance.Scenario
	for _, name := range names {
		i := slices.IndexFunc(all, func(s conformance.Scenario) bool { return s.Name == name })
		if i < 0 {
			return nil, cli.Usagef("--run %s: there is no scenario of this name; --list names them", name)
		}
		some = append(some, all[i])
	}
	return some, nil
}

// openJSON opens the file before anything is played. The function that it returns writes the
// verdicts.
func (o *options) openJSON() (save func([]conformance.Verdict) error, err error) {
	if o.jsonFile == "" {
		return func([]conformance.Verdict) error { return nil }, nil
	}
	f, err := os.Create(o.jsonFile)
	if err != nil {
		return nil, cli.Usagef("--json: %w", err)
	}
	return func(verdicts []conformance.Verdict) error {
		data, err := json.MarshalIndent(verdicts, "", "  ")
		if err != nil {
			return err
		}
		if _, err := f.Write(append(data, '\n')); err != nil {
			return err
		}
		return f.Close()
	}, nil
}

// judge sums up.
func judge(ctx context.Context, verdicts []conformance.Verdict, stdout io.Writer) error {
	var failed []string
	for _, v := range verdicts {
		if v.Result == conformance.Fail {
			failed = append(failed, v.Scenario)
		}
	}
	errs := conformance.Count(verdicts, conformance.Err)
	fmt.Fprintf(stdout, "%d passed, %d failed, %d skipped", conformance.Count(verdicts, conformance.Pass), len(failed), conformance.Count(verdicts, conformance.Skip))
	if errs > 0 {
		fmt.Fprintf(stdout, ", %d could not be played", errs)
	}
	fmt.Fprintln(stdout)
	switch {
	case ctx.Err() != nil:
		return cli.WithCode(cli.ExitInterrupted, errors.New("interrupted"))
	case len(failed) > 0:
		return cli.WithCode(cli.ExitClientFault, fmt.Errorf("the client broke a rule in %s", strings.Join(failed, ", ")))
	case errs > 0:
		return fmt.Errorf("scenarios that could not be played: %d", errs)
	}
	return nil
}
