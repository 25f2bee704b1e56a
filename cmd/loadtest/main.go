// Command loadtest sends messages through relay nodes. It reports how fast they were and whether
// every single one is accounted for. Package distmsg/loadtest does the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/discovery/zookeeper"
	"distmsg/internal/cli"
	"distmsg/loadtest"
)

func main() {
	cli.EndWithGoRun()
	os.Exit(int(run(os.Args[1:], os.Stdout, os.Stderr)))
}

// run executes the command line. If it fails, it prints one line on stderr that says why.
func run(args []string, stdout, stderr io.Writer) loadtest.ExitCode {
	code := loadtest.ExitOK
	root := newRoot(&code)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.Execute(); err != nil {
		line := strings.ReplaceAll(err.Error(), "\n", "; ")
		if code == loadtest.ExitOK { // cobra refused a flag or an argument
			code = loadtest.ExitUsage
			line += " (see: loadtest --help)"
		}
		fmt.Fprintln(stderr, "loadtest:", line)
	}
	return code
}

// newRoot builds the command line. The commands store their exit code in code.
func newRoot(code *loadtest.ExitCode) *cobra.Command {
	root := newRun(code)
	root.Use = "loadtest"
	root.Long = root.Short + `.

Without --nodes and --discovery it starts a node in its own process. Exit codes: 0 ok, 1 runtime failure, 2 usage,
3 ledger fault, 4 threshold missed, 5 drain cut something off, 130 interrupted (a report of the time until then is written).`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddCommand(newRun(code))
	return root
}

// newRun builds the command that runs a load test; the root command is the same.
func newRun(code *loadtest.ExitCode) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Send messages through relay nodes and account for every one of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			*code, err = o.run(cmd)
			return err
		},
	}
	o.addFlags(cmd)
	return cmd
}

// options is the values of the flags.
type options struct {
	loadtest.Config
	driver    string
	jsonFile  string
	discovery string
	authFile  string
	cross     float64
	tls       tlsFlags
}

// authVariable is the environment variable that holds ZooKeeper's credentials where no file is
// given.
const authVariable = "DISTMSG_DISCOVERY_AUTH"

func (o *options) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringSliceVar(&o.Nodes, "nodes", nil, "addresses of running nodes, host:port[,host:port...] (default: a node in this process)")
	f.StringVar(&o.discovery, "discovery", "", "find the nodes in ZooKeeper: zk://host:port[,host:port...]/path")
	f.StringVar(&o.authFile, "discovery-auth-file", "", "`file` with ZooKeeper's user:password (default: the environment variable "+authVariable+")")
	o.tls.addTo(f)
	f.StringVar(&o.CredentialsFile, "credentials-file", "", "`file` with what the nodes ask for, such as a token; it is read before each login (drivers relay and sdk)")
	f.Float64Var(&o.cross, "cross", 0, "share of messages whose receiver is at another node, 0 to 1 (default: not controlled)")
	f.IntVar(&o.Loops, "loops", 1, "event loops of the node in this process")
	f.StringVar(&o.driver, "driver", "relay", "how to talk to the nodes: relay, sdk or nats")
	f.IntVar(&o.Attach, "attach", 1, "nodes that each session is attached to at once, -1: all (driver sdk)")
	f.StringVar(&o.Strategy, "strategy", "random", "how a session chooses among them for a message: random, round-robin or pair-hash")
	f.IntVar(&o.Conns, "conns", 200, "connections")
	f.IntVar(&o.IDsPerConn, "ids-per-conn", 1, "IDs that each connection binds")
	f.IntVar(&o.Window, "window", 1, "messages in flight on each connection (closed loop)")
	f.Float64Var(&o.Rate, "rate", 0, "messages a second in total, whether or not earlier ones have ended (open loop; 0: closed loop)")
	f.IntVar(&o.Payload, "payload", 128, "bytes of a message, at least 36")
	f.IntVar(&o.Fanout, "fanout", 1, "make each message a multicast to that many IDs; --window and --rate count multicasts (drivers relay and sdk)")
	f.BoolVar(&o.NoAck, "no-ack", false, "send without ack, with a report of failures only")
	f.DurationVar(&o.Duration, "duration", 10*time.Second, "measured time")
	f.DurationVar(&o.Warmup, "warmup", time.Second, "time before the measured time: in the ledger, but not in the figures")
	f.Uint64Var(&o.Seed, "seed", 0, "seed that makes the choice of receivers repeatable (0: random)")
	f.IntVar(&o.ServerPID, "server-pid", 0, "process whose CPU and memory to report (0: none)")
	f.StringVar(&o.jsonFile, "json", "", "also write the report to this `file`, as JSON")
}

func (o *options) run(cmd *cobra.Command) (loadtest.ExitCode, error) {
	if err := o.check(cmd.Flags()); err != nil {
		return loadtest.ExitUsage, err
	}
	out, err := openJSON(o.jsonFile)
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer out.close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	report, code, err := o.load(ctx, cmd)
	if err != nil && ctx.Err() != nil {
		return loadtest.ExitInterrupted, errors.New("interrupted before the first message was sent")
	}
	if err != nil {
		return code, err
	}
	if err := errors.Join(report.WriteText(cmd.OutOrStdout()), out.write(report)); err != nil {
		return loadtest.ExitFailure, err
	}
	code, why := report.Verdict()
	if code != loadtest.ExitOK {
		return code, errors.New(why)
	}
	return code, nil
}

// check rejects invalid flags. Package loadtest checks the rest.
func (o *options) check(flags *pflag.FlagSet) error {
	if err := cli.RefuseEmpty(flags, "rate", "warmup", "seed", "server-pid", "cross"); err != nil {
		return err
	}
	switch discover := flags.Changed("discovery"); {
	case flags.Changed("rate") && flags.Changed("window"):
		return errors.New("--rate and --window exclude each other: give one of them")
	case o.Warmup < 0:
		return fmt.Errorf("--warmup is %v, want 0 or more", o.Warmup)
	case discover && len(o.Nodes) > 0:
		return errors.New("--nodes and --discovery exclude each other: give one of them")
	case o.authFile != "" && !discover:
		return errors.New("--discovery-auth-file needs --discovery")
	}
	return o.tls.check()
}

// load runs the load test.
func (o *options) load(ctx context.Context, cmd *cobra.Command) (*loadtest.Report, loadtest.ExitCode, error) {
	cfg := o.Config
	cfg.Driver = loadtest.Driver(o.driver)
	cfg.Progress = cmd.ErrOrStderr()
	if cfg.Rate != 0 {
		cfg.Window = 0
	}
	if cfg.Warmup == 0 {
		cfg.Warmup = -1 // in a Config, 0 is the default
	}
	if cmd.Flags().Changed("cross") {
		cfg.Cross = &o.cross
	}
	var err error
	if cfg.TLS, err = o.tls.config(); err != nil {
		return nil, loadtest.ExitUsage, err
	}
	if cmd.Flags().Changed("discovery") {
		membership, code, err := o.openDiscovery(ctx)
		if err != nil {
			return nil, code, err
		}
		defer membership.Close()
		cfg.Membership = membership
	}
	cli.SpareP(eventLoops(cfg))
	report, err := loadtest.Run(ctx, cfg)
	if errors.Is(err, loadtest.ErrUsage) {
		return nil, loadtest.ExitUsage, nameFlags(cmd.Flags(), err)
	}
	return report, loadtest.ExitFailure, err
}

// openDiscovery reads from ZooKeeper, and changes nothing there.
func (o *options) openDiscovery(ctx context.Context) (*zookeeper.Membership, loadtest.ExitCode, error) {
	auth := os.Getenv(authVariable)
	if o.authFile != "" {
		data, err := os.ReadFile(o.authFile)
		if err != nil {
			return nil, loadtest.ExitUsage, fmt.Errorf("--discovery-auth-file: %w", err)
		}
		auth = strings.TrimRight(string(data), "\r\n")
	}
	m, err := zookeeper.Open(ctx, zookeeper.Config{URL: o.discovery, Auth: auth, ReadOnly: true, Logger: slog.New(slog.DiscardHandler)})
	code := loadtest.ExitFailure
	// Open has already said why it rejects such a URL
	if !strings.HasPrefix(o.discovery, "zk://") || strings.Contains(o.discovery, "@") {
		code = loadtest.ExitUsage
	}
	return m, code, err
}

// eventLoops counts those of this process: the driver's, and those of a node in it.
func eventLoops(cfg loadtest.Config) int {
	if len(cfg.Nodes) == 0 && cfg.Membership == nil {
		return 1 + cfg.Loops
	}
	return 1
}

// nameFlags rewrites an error about loadtest's configuration, in which each line begins with the
// name of a field, as an error about flags.
func nameFlags(flags *pflag.FlagSet, err error) error {
	var lines []string
	for line := range strings.Lines(err.Error()) {
		line = strings.TrimPrefix(strings.TrimSpace(line), loadtest.ErrUsage.Error()+": ")
		if name, _, _ := strings.Cut(line, " "); flags.Lookup(name) != nil {
			line = "--" + line
		}
		lines = append(lines, line)
	}
	return errors.New(strings.Join(lines, "; "))
}
