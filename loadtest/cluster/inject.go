package cluster

import (
	"context"
	"fmt"
	"slices"
	"time"

	"distmsg/internal/localcluster"
	"distmsg/internal/proc"
	"distmsg/loadtest/faultscript"
)

// injector carries out a script. All of it belongs to the goroutine of run until ended is closed.
type injector struct {
	cluster *localcluster.Cluster
	say     func(line string)
	ended   chan struct{}
	// Set before run: how to mark a moment in the report, and when messages began to flow.
	mark  func(name string, fault bool) time.Duration
	begun time.Time

	ahead   time.Duration     // of the report's clock, which begins before messages do
	err     error             // why the script could not go on
	trouble map[string]uint64 // what should not happen, and how often
}

// event is the beginning or the end of a fault.
type event struct {
	at   time.Duration
	step *faultscript.Step
	ends bool
}

// events returns what happens when. At one moment, ends come first.
func events(steps []faultscript.Step) (all []event) {
	for i := range steps {
		s := &steps[i]
		all = append(all, event{s.At, s, false})
		if s.Ends() {
			all = append(all, event{s.End(), s, true})
		}
	}
	slices.SortStableFunc(all, func(a, b event) int {
		if a.at == b.at && a.ends != b.ends {
			if a.ends {
				return -1
			}
			return 1
		}
		return int(a.at - b.at)
	})
	return all
}

// run carries out the script. What takes time delays the faults after it. If ctx ends, run mends
// what is stopped or cut, so that messages in flight get their outcomes.
func (in *injector) run(ctx context.Context, steps []faultscript.Step) {
	for _, e := range events(steps) {
		if !in.sleep(ctx, e.at) {
			in.cluster.Mend()
			return
		}
		do, name := in.begin, e.step.Text
		if e.ends {
			do, name = in.end, "end of "+e.step.Text
		} else {
			in.note(name, true)
		}
		if err := do(ctx, e.step); err != nil {
			in.cluster.Mend()
			if ctx.Err() == nil {
				in.err = fmt.Errorf("%s: %w", name, err)
			}
			return
		}
		if e.ends || !e.step.Ends() {
			in.note("end of "+e.step.Text, false)
		}
	}
}

// sleep waits until a moment of the script. It returns false if ctx ends first.
func (in *injector) sleep(ctx context.Context, at time.Duration) bool {
	timer := time.NewTimer(time.Until(in.begun.Add(at)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// note marks a moment in the run, and tells the user.
func (in *injector) note(name string, fault bool) {
	text := name
	if fault {
		text = "FAULT " + name
	}
	moment := in.mark(name, fault)
	in.ahead = moment - time.Since(in.begun)
	in.say(at(moment, text))
}

// now returns the moment on the clock of the report, once a moment was marked.
func (in *injector) now() time.Duration { return in.ahead + time.Since(in.begun) }

// begin breaks something.
func (in *injector) begin(ctx context.Context, s *faultscript.Step) error {
	switch s.Verb {
	case faultscript.Kill:
		in.cluster.Process(s.Target).Kill()
		return nil
	case faultscript.Stop:
		return in.cluster.Process(s.Target).Pause()
	case faultscript.Partition:
		in.cluster.Cut(s.Sides...)
		return nil
	case faultscript.Drain:
		return in.node(s.Target).Order(ctx, "drain")
	case faultscript.Restart:
		return in.restart(ctx, s.Target)
	}
	for i := range in.cluster.Nodes { // upgrade
		name := localcluster.NodeName(i + 1)
		in.say(at(in.now(), name+" restarts"))
		if err := in.restart(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// end mends it.
func (in *injector) end(ctx context.Context, s *faultscript.Step) error {
	switch s.Verb {
	case faultscript.Kill:
		return in.cluster.Process(s.Target).Restart(ctx)
	case faultscript.Stop:
		return in.cluster.Process(s.Target).Resume()
	case faultscript.Partition:
		in.cluster.Heal()
		return nil
	}
	return in.node(s.Target).Order(ctx, "undrain")
}

// node returns the node with a name, which the parser of scripts has checked.
func (in *injector) node(name string) *proc.Relay {
	p := in.cluster.Process(name)
	return in.cluster.Nodes[slices.IndexFunc(in.cluster.Nodes, func(r *proc.Relay) bool { return r.Process == p })]
}

// restart drains a node by SIGTERM, starts it again, and waits until all nodes have links.
func (in *injector) restart(ctx context.Context, name string) error {
	node := in.cluster.Process(name)
	if err := node.Stop(); err != nil {
		return err
	}
	if code := node.Wait(); code != 0 {
		if in.trouble == nil {
			in.trouble = make(map[string]uint64)
		}
		in.trouble[fmt.Sprintf("%s ended with exit code %d", name, code)]++
	}
	if err := node.Restart(ctx); err != nil {
		return err
	}
	return in.cluster.WaitLinked(ctx)
}
