package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/loadtest"
	"distmsg/loadtest/cluster"
	"distmsg/loadtest/faultscript"
)

// newCluster builds the command that breaks things while messages flow.
func newCluster(code *loadtest.ExitCode) *cobra.Command {
	return withScenario(&cobra.Command{
		Use:   "cluster",
		Short: "Start a cluster, break things in it while messages flow, and judge each part of the run",
		Long: `Start a cluster, break things in it while messages flow, and judge each part of the run.

It starts redis-server, ZooKeeper and --nodes relay nodes on free ports of 127.0.0.1, and ends them all when it ends.
It needs the Debian packages redis-server and zookeeper, but not root. --faults is a script of steps: a moment since the
first message, a verb, and how long the fault lasts (5s if nothing says otherwise):

  10s kill-node 2            SIGKILL; a new start 5 s later
  20s stop redis 5s          SIGSTOP for 5 s; or: stop zookeeper, stop node 1
  25s kill zookeeper 3s      or: kill redis, kill node 1
  30s drain 3                the node asks its clients to leave, until a later "undrain 3", or for 5 s
  40s partition 1|2,3 for 5s nodes of different sides do not hear each other, or until "heal"; redis and zookeeper may
                             stand on a side, too
  50s restart-node 1         SIGTERM, which drains, and a new start at once
  60s upgrade                the same with each node, one after the other

Exit codes: 0 ok, 1 runtime failure, 2 usage, 3 ledger fault, 4 a threshold was missed, or messages ended otherwise than
the fault permits, or receivers could not be reached again, 130 interrupted.`,
		Args: cobra.NoArgs,
	}, code, func() options { return new(clusterOptions) })
}

// clusterOptions is the values of the flags of cluster.
type clusterOptions struct {
	load   loadFlags
	out    outputFlags
	stream streamFlags
	judges judgeFlags
	nodes  int
	faults string
	relay  string
	flags  []string
}

// tail is how long messages flow after the last fault.
const tail = 15 * time.Second

func (o *clusterOptions) addTo(f *pflag.FlagSet) {
	f.StringVar(&o.faults, "faults", "10s kill-node 2; 20s stop redis 5s; 30s drain 3; 40s partition 1|2,3", "`script` of faults, see above")
	f.IntVar(&o.nodes, "cluster-nodes", 3, "run `n` relay nodes")
	f.StringVar(&o.relay, "relay", "", "the `program` of the nodes (default: compiled from this module)")
	f.StringArrayVar(&o.flags, "relay-flag", nil, "a `flag` for each node, such as --relay-flag=--resume-window=5s; may be repeated")
	o.judges.addTo(f)
	o.out.addTo(f)
	o.stream.addTo(f)
	o.load.addTo(f)
	// A load that leaves CPU for faults, servers and nodes, on two cores. Sessions move, because
	// otherwise no session would be at a node that was down.
	for name, value := range map[string]string{"conns": "24", "ids-per-conn": "5", "rate": "600", "churn-moves": "2"} {
		setDefault(f, name, value)
	}
	notOfCluster().hide(f)
	f.Lookup("duration").Usage = "measured time (default: until 15s after the last fault)"
}

func notOfCluster() foreign {
	return foreign{to: "a cluster, which has nodes of its own", names: append(agentsFlagNames(),
		"nodes", "discovery", "discovery-auth-file", "loops", "server-pid", "metrics", "no-ack", "credentials-file")}
}

func (o *clusterOptions) run(cmd *cobra.Command, flags *pflag.FlagSet) (loadtest.ExitCode, error) {
	steps, err := o.check(flags)
	if err != nil {
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
	r, code, err := o.measure(ctx, cmd.ErrOrStderr(), flags, steps, streams)
	if err != nil {
		return code, err
	}
	return finish(cmd, r, &o.judges, &o.out, pages, streams)
}

// measure makes the run.
func (o *clusterOptions) measure(ctx context.Context, stderr io.Writer, flags *pflag.FlagSet, steps []faultscript.Step, streams *streams) (*loadtest.Report, loadtest.ExitCode, error) {
	load, end, code, err := o.load.config(ctx, flags)
	defer end()
	if err != nil {
		return nil, code, err
	}
	if !flags.Changed("duration") {
		load.Duration = 0
	}
	failed := loadtest.ExitFailure
	cfg := cluster.Config{Load: load, Nodes: o.nodes, Steps: steps, Script: o.faults, Tail: tail, Relay: o.relay, Flags: o.flags,
		Run: func(ctx context.Context, cfg loadtest.Config) (r *loadtest.Report, err error) {
			r, failed, err = o.load.once(ctx, flags, cfg)
			return r, err
		}}
	view := newView(o.out.unlessQuiet(stderr), 1, cfg.Length())
	defer view.close()
	cfg.Load.Progress, cfg.Say = view.lines, view.note
	cfg.Load.Observe = func(p *loadtest.Sample) {
		streams.observe(p, 1)
		view.observe(p, 1)
	}
	r, err := cluster.Run(ctx, cfg)
	if err != nil && ctx.Err() != nil {
		failed = loadtest.ExitInterrupted
	}
	return r, failed, err
}

// check rejects invalid flags, and reads the script and the thresholds.
func (o *clusterOptions) check(flags *pflag.FlagSet) ([]faultscript.Step, error) {
	if err := notOfCluster().refuse(flags); err != nil {
		return nil, err
	}
	if flags.Changed("window") || flags.Changed("stages") {
		o.load.Rate = 0
	}
	if o.load.driver != string(loadtest.DriverRelay) && !flags.Changed("churn-moves") {
		o.load.Churn.Moves = 0 // the SDK chooses its nodes itself
	}
	if err := o.load.check(flags); err != nil {
		return nil, err
	}
	if err := o.judges.parse(); err != nil {
		return nil, err
	}
	switch {
	case o.nodes < 1 || o.nodes > 100:
		return nil, fmt.Errorf("--cluster-nodes %d: want 1 to 100", o.nodes)
	case o.load.span == forever:
		return nil, errors.New("--duration is not forever: the faults have an end")
	}
	steps, err := faultscript.Parse(o.faults, o.nodes)
	if err != nil {
		return nil, fmt.Errorf("--faults: %w", err)
	}
	return steps, nil
}
