package agents

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"distmsg/loadtest"
	"distmsg/loadtest/result"
)

// Config says which agents make a run.
type Config struct {
	Agents []string // their addresses, host:port
	Token  string   // what they want to see; empty: nothing
	// TLS is for the connections to agents. Without a ServerName, an agent must prove that it is
	// the host of its address. Default: nil, no TLS.
	TLS       *tls.Config
	Discovery string // where each agent finds the nodes; empty: they are named
}

// startIn is how long after the last agent is ready all of them start. The order to start has to
// reach each of them before.
const startIn = 300 * time.Millisecond

// fleet is one run of several agents. All but the links belongs to the goroutine of Run.
type fleet struct {
	cfg    *Config
	load   *loadtest.Config
	links  []*link
	clock  clock
	run    string
	begun  time.Time // when the first connection could be made
	merger *merger
	events chan arrival
	server *server

	ready   int
	started bool             // all agents have the order to start
	reports []*result.Report // by agent; nil: it has not come
	late    []time.Duration
	lost    []error // by agent: why there will be no report; nil: there is one, or it may come
	missing int     // agents that have neither
}

// arrival is an event of an agent, or the end of its stream.
type arrival struct {
	agent int
	event *event
	err   error
}

// Run is loadtest.Run with the agents in place of this process. load is the load of all of them
// together: they share its connections, and their rates and their churn in proportion. They use
// their own TLS and credentials. Its errors name the agent. If an agent dies while messages flow,
// the others end the run, and the report has what they found.
func Run(ctx context.Context, cfg Config, load loadtest.Config) (report *loadtest.Report, err error) {
	if err := cfg.validate(&load); err != nil {
		return nil, err
	}
	if load.Progress == nil {
		load.Progress = io.Discard
	}
	if load.Seed == 0 {
		load.Seed = rand.Uint64()
	}
	f := &fleet{cfg: &cfg, load: &load, clock: newClock(), run: fmt.Sprintf("%016x", rand.Uint64()), events: make(chan arrival),
		reports: make([]*result.Report, len(cfg.Agents)), late: make([]time.Duration, len(cfg.Agents)),
		lost: make([]error, len(cfg.Agents)), missing: len(cfg.Agents)}
	for _, addr := range cfg.Agents {
		l := newLink(addr, cfg.Token, cfg.TLS, f.clock)
		defer l.close()
		f.links = append(f.links, l)
	}
	if f.server, err = newServer(&load); err != nil {
		return nil, err
	}
	if err := f.each(func(_ int, l *link) error { return l.meet(ctx) }); err != nil {
		return nil, err
	}
	return f.make(ctx)
}

// validate rejects what needs no agent to be found wrong.
func (c *Config) validate(load *loadtest.Config) error {
	usage := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{loadtest.ErrUsage}, args...)...)
	}
	seen := make(map[string]bool)
	for _, addr := range c.Agents {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return usage("agents has %q, which is not host:port", addr)
		}
		if seen[addr] {
			return usage("agents has %s twice: an agent serves one run at a time", addr)
		}
		seen[addr] = true
	}
	switch n := len(c.Agents); {
	case n == 0:
		return usage("agents is empty")
	case len(load.Nodes) == 0 && c.Discovery == "":
		return usage("agents needs running nodes: give --nodes or --discovery")
	case load.TLS != nil || load.CredentialsFile != "":
		return usage("agents excludes --tls and --credentials-file here: give them to loadtest agent, where the connections begin")
	case load.Conns < n:
		return usage("conns is %d, want at least one for each of the %d agents", load.Conns, n)
	}
	return nil
}

// each calls f for all links at the same time, and returns the first error.
func (f *fleet) each(do func(i int, l *link) error) error {
	found := make([]error, len(f.links))
	var all sync.WaitGroup
	for i, l := range f.links {
		all.Go(func() { found[i] = do(i, l) })
	}
	all.Wait()
	for _, err := range found {
		if err != nil {
			return err
		}
	}
	return nil
}

// make makes the run. When it returns, no agent works for it any more, or each will notice soon.
func (f *fleet) make(ctx context.Context) (*loadtest.Report, error) {
	// an interruption reaches the agents as an order, so that they make their reports
	links, cancel := context.WithCancel(context.WithoutCancel(ctx))
	print, end := loadtest.Printer(f.load.Progress)
	defer end()
	f.begun = time.Now()
	f.merger = newMerger(len(f.links), f.load.Observe, print)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel()
	for i, l := range f.links {
		j := &job{Version: version, Run: f.run, Discovery: f.cfg.Discovery, Load: load{Config: share(f.load, i, len(f.links))}}
		streams.Go(func() { f.listen(links, i, l, j) })
	}
	over, until := ctx.Done(), f.load.Until
	for f.missing > 0 {
		var err error
		select {
		case a := <-f.events:
			err = f.handle(links, &a)
		case <-over:
			if f.ready < len(f.links) {
				return nil, fmt.Errorf("the run did not start: %w", context.Cause(ctx))
			}
			over, until = nil, nil
			f.stop(links, true)
		case <-until:
			until = nil
			f.stop(links, false)
		case <-f.server.due:
			f.server.mark()
		}
		if err != nil {
			return nil, err
		}
	}
	if err := f.allLost(); err != nil {
		return nil, err
	}
	f.merger.flush()
	_ = f.each(func(_ int, l *link) error { l.part(links); return nil })
	return f.report(), nil
}

// listen passes what an agent says to the goroutine of Run.
func (f *fleet) listen(ctx context.Context, i int, l *link, j *job) {
	pass := func(a arrival) {
		select {
		case f.events <- a:
		case <-ctx.Done():
		}
	}
	if err := l.follow(ctx, j, func(e *event) { pass(arrival{agent: i, event: e}) }); err != nil {
		pass(arrival{agent: i, err: err})
	}
}

// handle handles what an agent said. An error ends the run.
func (f *fleet) handle(ctx context.Context, a *arrival) error {
	if f.lost[a.agent] != nil {
		return nil // it was given up before
	}
	err := f.hear(ctx, a)
	if err != nil && f.started {
		f.lose(ctx, a.agent, err)
		return nil
	}
	return err
}

// hear takes in what an agent said. An error means that the agent makes no report.
func (f *fleet) hear(ctx context.Context, a *arrival) error {
	l := f.links[a.agent]
	switch e := a.event; {
	case a.err != nil:
		return a.err
	case e.Usage:
		return fmt.Errorf("%w: %s (agent %s)", loadtest.ErrUsage, e.Failed, l.addr)
	case e.Failed != "":
		return fmt.Errorf("agent %s: %s", l.addr, e.Failed)
	case e.Ready:
		if f.ready++; f.ready == len(f.links) {
			return f.start(ctx)
		}
	case e.Sample != nil:
		if err := f.merger.add(a.agent, e.Sample); err != nil {
			return fmt.Errorf("agent %s: %w", l.addr, err)
		}
	case e.Report != nil:
		f.reports[a.agent], f.late[a.agent] = e.Report, time.Duration(e.Late)
		f.missing--
		f.merger.finish(a.agent)
	}
	return nil
}

// lose gives an agent up, and ends the run of the others: it is not the load any more that was
// asked for.
func (f *fleet) lose(ctx context.Context, agent int, why error) {
	f.lost[agent] = why
	f.missing--
	f.merger.lose(agent)
	f.stop(ctx, true)
}

// allLost returns an error if no agent made a report.
func (f *fleet) allLost() error {
	for i := range f.links {
		if f.lost[i] == nil {
			return nil
		}
	}
	return f.lost[0]
}

// start orders all agents to start at the same moment.
func (f *fleet) start(ctx context.Context) error {
	at := f.clock.now().Add(startIn)
	f.merger.begin = result.Of(at.Sub(f.begun))
	f.server.start(at.Sub(f.clock.now()))
	err := f.each(func(_ int, l *link) error {
		return l.order(ctx, pathStart, order{Run: f.run, At: at.Add(l.first.offset).UnixNano()})
	})
	f.started = err == nil
	return err
}

// stop orders all agents to end the measured time now. One that cannot be reached is lost.
func (f *fleet) stop(ctx context.Context, interrupt bool) {
	f.server.end()
	unreached := make([]error, len(f.links))
	_ = f.each(func(i int, l *link) error {
		if f.reports[i] != nil || f.lost[i] != nil {
			return nil
		}
		err := l.order(ctx, pathStop, order{Run: f.run, Interrupt: interrupt})
		if no := (*refusal)(nil); !errors.As(err, &no) { // a refusal: its run has just ended
			unreached[i] = err
		}
		return nil
	})
	for i, err := range unreached {
		if err != nil && f.lost[i] == nil {
			f.lose(ctx, i, err)
		}
	}
}

// share returns the load of one of n agents. Connections begin at the nodes in turn, over all
// agents. What is per second is shared by the connections.
func share(load *loadtest.Config, i, n int) loadtest.Config {
	cfg := *load
	first := load.Conns * i / n
	cfg.Conns = load.Conns*(i+1)/n - first
	part := float64(cfg.Conns) / float64(load.Conns)
	cfg.Rate *= part
	cfg.Stages = nil
	for _, s := range load.Stages {
		s.From, s.To = s.From*part, s.To*part
		cfg.Stages = append(cfg.Stages, s)
	}
	cfg.Churn.Binds, cfg.Churn.Moves, cfg.Churn.Reconnects = load.Churn.Binds*part, load.Churn.Moves*part, load.Churn.Reconnects*part
	if cfg.Seed += uint64(i); cfg.Seed < load.Seed {
		cfg.Seed++ // 0 would be random
	}
	if k := len(load.Nodes); k > 0 {
		at := first % k
		cfg.Nodes = append(append([]string(nil), load.Nodes[at:]...), load.Nodes[:at]...)
	}
	return cfg
}
