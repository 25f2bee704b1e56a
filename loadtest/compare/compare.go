package compare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"

	"distmsg/internal/proc"
	"distmsg/loadtest"
	"distmsg/loadtest/judge"
	"distmsg/loadtest/result"
)

// Config says what to compare.
type Config struct {
	// Shapes are names of loads, groups of them, or All. Default: DefaultShapes.
	Shapes []string
	// Peers are the kinds of servers. Default: Peers.
	Peers []string
	// Rounds is how often each load goes to each server, for Duration after Warmup. Defaults: 5,
	// 5 s and 1 s; a negative Warmup: none.
	Rounds   int
	Duration time.Duration
	Warmup   time.Duration
	// Programs are the files of the servers.
	Programs Programs
	// Pin moves the servers to one CPU and this process to another, if there are two.
	Pin bool
	// Conns, if not 0, is the number of connections in place of that of the shapes. The aims do not
	// count then.
	Conns int
	// Progress receives one line for each run. Default: none.
	Progress io.Writer
}

func (c Config) withDefaults() Config {
	if len(c.Shapes) == 0 {
		c.Shapes = DefaultShapes()
	}
	if len(c.Peers) == 0 {
		c.Peers = Peers()
	}
	setDefault(&c.Rounds, 5)
	setDefault(&c.Duration, 5*time.Second)
	setDefault(&c.Warmup, time.Second)
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// contest is one comparison.
type contest struct {
	cfg    Config
	shapes []shape
	stable stable
	runs   [][][]*loadtest.Report // by shape, server, and round
	faults map[string]uint64
	begun  time.Time
	pinned string
}

// Run makes the comparison. If ctx ends, the result is partial, or there is none if no round was
// complete. Other errors are loadtest.ErrUsage, or say which server, program or run failed.
func Run(ctx context.Context, cfg Config) (*result.Standing, error) {
	c := &contest{cfg: cfg.withDefaults(), faults: make(map[string]uint64), begun: time.Now().Round(time.Second)}
	var err error
	if c.shapes, err = choose(c.cfg.Shapes, c.cfg.Peers); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "distmsg-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := c.prepare(ctx, dir); err != nil {
		return nil, err
	}
	c.runs = make([][][]*loadtest.Report, len(c.shapes))
	for i := range c.shapes {
		c.runs[i] = make([][]*loadtest.Report, len(c.shapes[i].servers))
	}
	complete := 0
	for round := range c.cfg.Rounds {
		if err := c.round(ctx, round); err != nil && ctx.Err() == nil {
			return nil, err
		}
		if ctx.Err() != nil {
			break
		}
		complete++
	}
	if complete == 0 {
		return nil, fmt.Errorf("interrupted in the first round: %w", context.Cause(ctx))
	}
	return c.standing(complete), nil
}

// prepare finds the programs, and then moves this process to its CPU, so that it may use all of
// them to build.
func (c *contest) prepare(ctx context.Context, dir string) (err error) {
	c.stable = stable{programs: c.cfg.Programs, dir: dir}
	if err := c.stable.programs.find(ctx, c.shapes, dir, c.say); err != nil {
		return err
	}
	if c.stable.tls, err = certify(c.stable.file("cert"), c.stable.file("key")); err != nil || !c.cfg.Pin {
		return err
	}
	all, err := proc.OwnCPUs()
	if err != nil {
		return err
	}
	if len(all) < 2 {
		c.say("there is only one CPU for the servers and the driver together: the figures say little")
		return nil
	}
	c.stable.cpus = all[:1]
	if err := all[1:2].Stay(); err != nil {
		return err
	}
	c.pinned = fmt.Sprintf("servers on CPU %d, driver on CPU %d", all[0], all[1])
	// the event loop of the driver, and one more, see docs/decisions/0006-one-p-more-than-loops.md
	runtime.GOMAXPROCS(2)
	return nil
}

func (c *contest) say(format string, args ...any) {
	_, _ = fmt.Fprintf(c.cfg.Progress, format+"\n", args...)
}

// round puts each load on each server once.
func (c *contest) round(ctx context.Context, round int) error {
	for i := range c.shapes {
		s := &c.shapes[i]
		for j, server := range s.servers {
			load, err := c.load(s, round)
			if err != nil {
				return err
			}
			r, err := c.run(ctx, server, load)
			if err != nil {
				return fmt.Errorf("%s at %s: %w", s.name, server, err)
			}
			if n := r.Faults.Total(); n > 0 {
				c.faults[server] += n
			}
			c.runs[i][j] = append(c.runs[i][j], r)
			e := entry(server, s.metric, []*loadtest.Report{r})
			c.say("round %d of %d  %-14s %-14s %8.0f/s  server %-8s p99 %s", round+1, c.cfg.Rounds, s.name, server, value(e.Rate), value(e.ServerCPU), value(e.P99))
		}
	}
	return nil
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// load returns the load of a shape in a round.
func (c *contest) load(s *shape, round int) (loadtest.Config, error) {
	load := s.load
	load.Warmup, load.Duration = c.cfg.Warmup, c.cfg.Duration
	if c.cfg.Conns > 0 {
		load.Conns = c.cfg.Conns
		load.Fanout = min(load.Fanout, load.Conns-1)
	}
	if s.half == "" {
		return load, nil
	}
	i := slices.IndexFunc(c.shapes, func(other shape) bool { return other.name == s.half })
	if i >= 0 {
		if j := slices.Index(c.shapes[i].servers, node); j >= 0 {
			load.Rate = value(c.runs[i][j][round].Rate) / 2
		}
	}
	if load.Rate == 0 {
		return load, fmt.Errorf("%w: shapes has %s, which needs %s at the peer %s", loadtest.ErrUsage, s.name, s.half, node)
	}
	return load, nil
}

// run starts a server, puts a load on it, and stops it.
func (c *contest) run(ctx context.Context, name string, load loadtest.Config) (*loadtest.Report, error) {
	server, err := c.stable.start(ctx, name, load)
	if err != nil {
		return nil, err
	}
	defer server.close()
	runtime.GC() // what the run before has left is not the business of this one
	r, err := loadtest.Run(ctx, server.load)
	if err != nil {
		return nil, err
	}
	switch code, why := r.Verdict(); code {
	case loadtest.ExitFailure, loadtest.ExitDrain:
		return nil, errors.New(why)
	case loadtest.ExitInterrupted:
		return nil, context.Cause(ctx)
	}
	return r, nil
}

// standing makes the result of the rounds that are complete.
func (c *contest) standing(rounds int) *result.Standing {
	s := &result.Standing{Schema: result.SchemaStanding, Begun: c.begun, Machine: c.runs[0][0][0].Machine, Pinning: c.pinned,
		Rounds: rounds, Seconds: result.Of(c.cfg.Duration), Faults: c.faults, Partial: rounds < c.cfg.Rounds}
	for i := range c.shapes {
		shape := &c.shapes[i]
		row := result.Shape{Name: shape.name, Title: shape.title, Flags: shape.flags(), Metric: shape.metric}
		entries := make(map[string]*result.Entry)
		for j, server := range shape.servers {
			e := entry(server, row.Metric, c.runs[i][j][:rounds])
			entries[server] = &e
			row.Entries = append(row.Entries, e)
			s.Servers = c.addServer(s.Servers, server)
		}
		for _, r := range shape.ratios {
			aim := r.aim
			if c.cfg.Conns > 0 {
				aim = 0
			}
			row.Ratios = append(row.Ratios, judge.Ratio(row.Metric, entries[r.of], entries[r.to], aim))
		}
		s.Shapes = append(s.Shapes, row)
	}
	return s
}

func (c *contest) addServer(all []result.Server, name string) []result.Server {
	name = kind(name)
	if slices.ContainsFunc(all, func(s result.Server) bool { return s.Name == name }) {
		return all
	}
	return append(all, result.Server{Name: name, Version: c.stable.programs.version(context.Background(), name)})
}

// entry summarizes the rounds of one server.
func entry(server string, m result.Metric, rounds []*loadtest.Report) result.Entry {
	merged := result.Merge(rounds...)
	e := result.Entry{Server: server, Rate: merged.Rate, ServerCPU: merged.ServerCPU, DriverCPU: merged.DriverCPU}
	if l := merged.Latency; l != nil {
		e.P50, e.P99 = &l.P50, &l.P99
	}
	for _, r := range rounds {
		one := result.Entry{ServerCPU: r.ServerCPU}
		if r.Latency != nil {
			one.P99 = &r.Latency.P99
		}
		e.All = append(e.All, one.Median(m))
	}
	return e
}
