// Package cluster runs a load test on a cluster of its own, injects faults by a script, and judges
// each part of the run between them.
//
// [Run] starts redis-server, ZooKeeper and nodes ([distmsg/internal/localcluster]), as an ordinary
// user. inject.go carries out the script, and permitted.go knows which outcomes a fault permits.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"distmsg/internal/localcluster"
	"distmsg/loadtest"
	"distmsg/loadtest/faultscript"
	"distmsg/loadtest/result"
)

// Config says what to run. It has no defaults.
type Config struct {
	// Load is sent to the cluster. Nodes, Divide and Until are set here. Load.Duration is the
	// measured time. If faults still go on then, the run lasts until their end. Zero: until Tail
	// after the last fault.
	Load   loadtest.Config
	Nodes  int
	Steps  []faultscript.Step
	Script string        // what Steps were read from
	Tail   time.Duration // how long messages flow after the last fault
	Relay  string        // the program of the nodes; empty: compiled from this module
	Flags  []string      // more flags of each node

	// Run makes the run: loadtest.Run, or something around it.
	Run func(context.Context, loadtest.Config) (*loadtest.Report, error)
	// Say receives what happens, each time one line.
	Say func(line string)
}

// Length returns how long messages flow if nothing is late.
func (c *Config) Length() time.Duration {
	var last time.Duration
	for i := range c.Steps {
		last = max(last, c.Steps[i].End())
	}
	if c.Load.Duration > 0 {
		return max(last, max(c.Load.Warmup, 0)+c.Load.Duration)
	}
	return last + c.Tail
}

// Run starts the cluster, makes the run, and ends the cluster. If ctx ends during the run, the
// report is partial.
func Run(ctx context.Context, cfg Config) (*loadtest.Report, error) {
	cfg.Say(fmt.Sprintf("starting redis-server, ZooKeeper and %d nodes", cfg.Nodes))
	c, err := localcluster.Start(ctx, localcluster.Options{
		Nodes: cfg.Nodes, Program: cfg.Relay, Flags: cfg.Flags, Cuttable: cuttable(cfg.Steps),
	})
	if err != nil {
		return nil, startError(ctx, err)
	}
	defer c.Close()
	if err := c.WaitLinked(ctx); err != nil {
		return nil, startError(ctx, err)
	}
	return load(ctx, &cfg, c)
}

// startError names the process that did not start.
func startError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted while the cluster was starting: %w", context.Cause(ctx))
	}
	if failed, ok := errors.AsType[*localcluster.StartError](err); ok {
		return fmt.Errorf("%s: %w", failed.Process, err)
	}
	return err
}

// cuttable reports whether the script has partitions. Without, nodes reach each other directly.
func cuttable(steps []faultscript.Step) bool {
	for i := range steps {
		if steps[i].Verb == faultscript.Partition {
			return true
		}
	}
	return false
}

// load makes the run with its faults.
func load(ctx context.Context, cfg *Config, c *localcluster.Cluster) (*loadtest.Report, error) {
	length := cfg.Length()
	until := make(chan struct{})
	in := &injector{cluster: c, say: cfg.Say, ended: make(chan struct{})}
	run := cfg.Load
	// The script may be late, so only Until ends the run.
	run.Nodes, run.Until, run.Duration = c.Addrs(), until, -1
	run.Divide = func(mark func(name string, fault bool) time.Duration) {
		in.mark, in.begun = mark, time.Now()
		go func() {
			in.run(ctx, cfg.Steps)
			if in.err == nil {
				in.sleep(ctx, length)
			}
			close(until)
			close(in.ended)
		}()
	}
	// the programs of the nodes are all the same
	program, goVersion := loadtest.ProgramVersion(c.Process(localcluster.NodeName(1)).PID())
	report, err := cfg.Run(ctx, run)
	if in.mark != nil {
		<-in.ended
	}
	if err = errors.Join(err, in.err); err != nil {
		return nil, err
	}
	report.Partial = ctx.Err() != nil
	report.Versions.Server, report.Versions.ServerGo = program, goVersion
	report.Config.Script, report.Config.Duration = cfg.Script, report.Measured
	for what, n := range in.trouble {
		if report.Errors == nil {
			report.Errors = make(map[string]uint64)
		}
		report.Errors[what] += n
	}
	judge(report, cfg)
	return report, nil
}

// judge says which outcomes each episode permits, and how long it lasted.
func judge(report *loadtest.Report, cfg *Config) {
	always := permittedAlways(&cfg.Load)
	permitted := always
	fault := 0
	for i := range report.Episodes {
		e := &report.Episodes[i]
		if i == 0 {
			e.Name = "before any fault"
		}
		if e.Fault {
			permitted = append(append([]string{}, always...), permittedBy(&cfg.Steps[fault])...)
			fault++
		}
		e.Judge(permitted)
	}
}

// at returns the text for a moment of the run.
func at(moment time.Duration, text string) string {
	return fmt.Sprintf("%5.1f s  %s", float64(result.Of(moment)), text)
}
