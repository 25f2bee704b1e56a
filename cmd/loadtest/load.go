package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/discovery/zookeeper"
	"distmsg/internal/cli"
	"distmsg/loadtest"
)

// loadFlags say what to send where. All commands that make load have them.
type loadFlags struct {
	loadtest.Config
	driver    string
	discovery string
	authFile  string
	cross     float64
	tls       tlsFlags
}

// authVariable is the environment variable that holds ZooKeeper's credentials where no file is
// given.
const authVariable = "DISTMSG_DISCOVERY_AUTH"

func (o *loadFlags) addTo(f *pflag.FlagSet) {
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
}

// check rejects invalid flags. Package loadtest checks the rest.
func (o *loadFlags) check(flags *pflag.FlagSet) error {
	if err := cli.RefuseEmpty(flags, "rate", "warmup", "seed", "server-pid", "cross", "min-change"); err != nil {
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

// config returns the configuration of a run. The caller calls end after its last run.
func (o *loadFlags) config(ctx context.Context, cmd *cobra.Command) (cfg loadtest.Config, end func(), code loadtest.ExitCode, err error) {
	cfg, end = o.Config, func() {}
	cfg.Driver = loadtest.Driver(o.driver)
	if cfg.Rate != 0 {
		cfg.Window = 0
	}
	if cfg.Warmup == 0 {
		cfg.Warmup = -1 // in a Config, 0 is the default
	}
	if cmd.Flags().Changed("cross") {
		cfg.Cross = &o.cross
	}
	if cfg.TLS, err = o.tls.config(); err != nil {
		return cfg, end, loadtest.ExitUsage, err
	}
	if cmd.Flags().Changed("discovery") {
		membership, code, err := o.openDiscovery(ctx)
		if err != nil {
			return cfg, end, code, err
		}
		cfg.Membership, end = membership, func() { membership.Close() }
	}
	cli.SpareP(eventLoops(cfg))
	return cfg, end, loadtest.ExitOK, nil
}

// once makes one run. Its errors name flags.
func once(ctx context.Context, cmd *cobra.Command, cfg loadtest.Config) (*loadtest.Report, loadtest.ExitCode, error) {
	report, err := loadtest.Run(ctx, cfg)
	switch {
	case errors.Is(err, loadtest.ErrUsage):
		return nil, loadtest.ExitUsage, nameFlags(cmd.Flags(), err)
	case err != nil && ctx.Err() != nil:
		return nil, loadtest.ExitInterrupted, errors.New("interrupted before the first message was sent")
	}
	return report, loadtest.ExitFailure, err
}

// openDiscovery reads from ZooKeeper, and changes nothing there.
func (o *loadFlags) openDiscovery(ctx context.Context) (*zookeeper.Membership, loadtest.ExitCode, error) {
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
