package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"distmsg/internal/cli"
	"distmsg/internal/cpus"
	"distmsg/loadtest"
	"distmsg/loadtest/agents"
)

// loadFlags say what to send where. All commands that make load have them.
type loadFlags struct {
	loadtest.Config
	driver    string
	discovery string
	authFile  string
	cross     float64
	tls       tlsFlags
	scenario  string
	span      span
	stages    string
	arrivals  string
	payloads  string
	agents    agentsFlags
	fleet     agents.Config // what agents says
}

// authVariable is the environment variable that holds ZooKeeper's credentials where no file is
// given.
const authVariable = "DISTMSG_DISCOVERY_AUTH"

func (o *loadFlags) addTo(f *pflag.FlagSet) {
	f.StringSliceVar(&o.Nodes, "nodes", nil, "addresses of running nodes, host:port[,host:port...] (default: a node in this process)")
	f.StringVar(&o.discovery, "discovery", "", "find the nodes in ZooKeeper, zk://host:port[,host:port...]/path, or by DNS: dns://name:port with the port for\n"+
		"clients, or dns://name of SRV records")
	f.StringVar(&o.authFile, "discovery-auth-file", "", "`file` with ZooKeeper's user:password (default: the environment variable "+authVariable+")")
	o.tls.addTo(f)
	f.StringVar(&o.CredentialsFile, "credentials-file", "", "`file` with what the nodes ask for, such as a token; it is read before each login (drivers relay and sdk)")
	f.Float64Var(&o.cross, "cross", 0, "share of messages whose receiver is at another node, 0 to 1 (default: not controlled)")
	f.IntVar(&o.Loops, "loops", 1, "event loops of the node in this process")
	f.StringVar(&o.driver, "driver", "relay", "how to talk to the nodes: relay or sdk; or, to compare, to other servers: nats, redis or floor")
	f.IntVar(&o.Attach, "attach", 1, "nodes that each session is attached to at once, -1: all (driver sdk)")
	f.StringVar(&o.Strategy, "strategy", "random", "how a session chooses among them for a message: random, round-robin or pair-hash")
	f.IntVar(&o.Conns, "conns", 200, "connections")
	f.IntVar(&o.IDsPerConn, "ids-per-conn", 1, "IDs that each connection binds")
	f.IntVar(&o.Window, "window", 1, "messages in flight on each connection (closed loop)")
	f.Float64Var(&o.Rate, "rate", 0, "messages a second in total, whether or not earlier ones have ended (open loop; 0: closed loop)")
	f.IntVar(&o.Payload, "payload", 128, "bytes of a message, at least 36")
	f.IntVar(&o.Fanout, "fanout", 1, "make each message a multicast to that many IDs; --window and --rate count multicasts (with the drivers nats, redis and floor: to all other connections, without ack)")
	f.BoolVar(&o.NoAck, "no-ack", false, "send without ack, with a report of failures only")
	o.span = span(10 * time.Second)
	f.Var(&o.span, "duration", "measured time; forever: until Ctrl-C, which then is no interruption")
	f.DurationVar(&o.Warmup, "warmup", time.Second, "time before the measured time: in the ledger, but not in the figures")
	f.Uint64Var(&o.Seed, "seed", 0, "seed that makes the choice of receivers repeatable (0: random)")
	f.IntVar(&o.ServerPID, "server-pid", 0, "process whose CPU and memory to report (0: none)")
	f.StringSliceVar(&o.Metrics, "metrics", nil, "`URLs` of the servers' metrics, such as http://10.0.0.1:7401/metrics: their version, and without --server-pid CPU and memory")
	o.agents.addTo(f)
	o.addShape(f)
}

// addShape adds the flags that are about the shape of the load.
func (o *loadFlags) addShape(f *pflag.FlagSet) {
	f.StringVar(&o.scenario, "scenario", "", "YAML `file` with values for flags; the keys are the names of the flags, and flags on the command line win")
	f.StringVar(&o.stages, "stages", "", "rates that differ in time, in place of --rate: RATE:TIME or FROM..TO:TIME, such as '1000:10s,1000..5000:30s'")
	f.StringVar(&o.arrivals, "arrivals", "even", "when messages of an open loop start: even, or poisson, as independent users do")
	f.StringVar(&o.payloads, "payloads", "", "sizes of messages with weights, in place of --payload, such as '64:9,4096:1'")
	f.Float64Var(&o.Zipf, "zipf", 0, "make some receivers more popular, by this exponent of Zipf's law, more than 1 (0: all alike)")
	f.Float64Var(&o.Offline, "offline", 0, "share of messages to IDs that nobody has bound, 0 to 1; their outcome must be no_route")
	f.DurationVar(&o.AckDelay, "ack-delay", 0, "how long receivers wait before they ack (driver relay)")
	f.Float64Var(&o.Churn.Binds, "churn-binds", 0, "IDs that are bound again each second (driver relay)")
	f.Float64Var(&o.Churn.Moves, "churn-moves", 0, "sessions that move to another connection each second, at another node if there is one (driver relay)")
	f.Float64Var(&o.Churn.Reconnects, "churn-reconnects", 0, "connections that are cut each second (driver relay)")
}

// check rejects invalid flags. Package loadtest checks the rest.
func (o *loadFlags) check(flags *pflag.FlagSet) error {
	if err := cli.RefuseEmpty(flags, mayBe0()...); err != nil {
		return err
	}
	if err := refuseSameFile(flags); err != nil {
		return err
	}
	if err := o.checkShape(flags); err != nil {
		return err
	}
	switch discover := flags.Changed("discovery"); {
	case flags.Changed("rate") && flags.Changed("window"):
		return errors.New("--rate and --window exclude each other: give one of them")
	case o.Warmup < 0:
		return fmt.Errorf("--warmup is %v, want 0 or more", o.Warmup)
	case discover && len(o.Nodes) > 0:
		return errors.New("--nodes and --discovery exclude each other: give one of them")
	case flags.Changed("loops") && (discover || len(o.Nodes) > 0):
		return errors.New("--loops is about the node in this process: leave it out, or --nodes and --discovery")
	case flags.Changed("strategy") && o.driver != string(loadtest.DriverSDK):
		return errors.New("--strategy needs --driver sdk")
	case o.authFile != "" && !discover:
		return errors.New("--discovery-auth-file needs --discovery")
	case o.authFile != "" && o.agents.on():
		return errors.New("--discovery-auth-file excludes --agents: give it to loadtest agent")
	}
	if err := o.agents.check(); err != nil {
		return err
	}
	return o.tls.check()
}

// checkShape rejects invalid flags about the shape of the load, and reads those with a form of
// their own.
func (o *loadFlags) checkShape(flags *pflag.FlagSet) (err error) {
	if flags.Changed("stages") {
		if o.Stages, err = loadtest.ParseStages(o.stages); err != nil {
			return fmt.Errorf("--stages: %w", err)
		}
	}
	if flags.Changed("payloads") {
		if o.Payloads, err = loadtest.ParseSizes(o.payloads); err != nil {
			return fmt.Errorf("--payloads: %w", err)
		}
	}
	switch {
	case o.arrivals != "even" && o.arrivals != "poisson":
		return fmt.Errorf("--arrivals is %q, want even or poisson", o.arrivals)
	case flags.Changed("stages") && (flags.Changed("rate") || flags.Changed("window")):
		return errors.New("--stages excludes --rate and --window")
	case flags.Changed("payloads") && flags.Changed("payload"):
		return errors.New("--payloads and --payload exclude each other: give one of them")
	}
	return nil
}

// config returns the configuration of a run. The caller calls end after its last run.
func (o *loadFlags) config(ctx context.Context, flags *pflag.FlagSet) (cfg loadtest.Config, end func(), code loadtest.ExitCode, err error) {
	cfg, end = o.Config, func() {}
	cfg.Driver, cfg.Duration, cfg.Poisson = loadtest.Driver(o.driver), time.Duration(o.span), o.arrivals == "poisson"
	if cfg.Rate != 0 || len(cfg.Stages) > 0 {
		cfg.Window = 0
	}
	if len(cfg.Payloads) > 0 {
		cfg.Payload = 0
	}
	if cfg.Warmup == 0 {
		cfg.Warmup = -1 // in a Config, 0 is the default
	}
	if flags.Changed("cross") {
		cfg.Cross = &o.cross
	}
	if cfg.TLS, err = o.tls.config(); err != nil {
		return cfg, end, loadtest.ExitUsage, err
	}
	if o.agents.on() {
		if o.fleet, err = o.agents.config(o.discovery); err != nil {
			return cfg, end, loadtest.ExitUsage, err
		}
		return cfg, end, loadtest.ExitOK, nil
	}
	if flags.Changed("discovery") {
		membership, code, err := openDiscovery(ctx, o.discovery, o.authFile)
		if err != nil {
			return cfg, end, code, err
		}
		cfg.Membership, end = membership, membership.Close
	}
	cpus.Spare(eventLoops(cfg))
	return cfg, end, loadtest.ExitOK, nil
}

// once makes one run, in this process or with agents. Its errors name flags.
func (o *loadFlags) once(ctx context.Context, flags *pflag.FlagSet, cfg loadtest.Config) (report *loadtest.Report, code loadtest.ExitCode, err error) {
	if o.agents.on() {
		report, err = agents.Run(ctx, o.fleet, cfg)
	} else {
		report, err = loadtest.Run(ctx, cfg)
	}
	switch {
	case errors.Is(err, loadtest.ErrUsage):
		return nil, loadtest.ExitUsage, nameFlags(flags, err)
	case err != nil && ctx.Err() != nil:
		return nil, loadtest.ExitInterrupted, errors.New("interrupted before the first message was sent")
	}
	return report, loadtest.ExitFailure, err
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

// setDefault changes the default value of a flag.
func setDefault(f *pflag.FlagSet, name, value string) {
	flag := f.Lookup(name)
	if err := flag.Value.Set(value); err != nil {
		panic(err) // the values stand in this package
	}
	flag.DefValue = value
}

// foreign names flags of run that make no sense to another command with the same load.
type foreign struct {
	to    string // which command, and why
	names []string
}

// hide leaves the flags out of the help.
func (x foreign) hide(f *pflag.FlagSet) {
	for _, name := range x.names {
		f.Lookup(name).Hidden = true
	}
}

// refuse returns an error if one of the flags was given.
func (x foreign) refuse(flags *pflag.FlagSet) error {
	for _, name := range x.names {
		if flags.Changed(name) {
			return fmt.Errorf("--%s is not for %s", name, x.to)
		}
	}
	return nil
}
