package loadtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"distmsg/discovery"
	"distmsg/loadtest/internal/drive"
	"distmsg/loadtest/internal/scrape"
	"distmsg/loadtest/internal/traffic"
)

const (
	connectTimeout = 30 * time.Second
	minPace        = 250 * time.Microsecond // the open loop wakes no more often than this
	maxPace        = 100 * time.Millisecond // and looks whether it should end at least this often
)

// Run sends messages as cfg says. It ends when its time is over, when cfg.Until is closed, or when
// ctx ends. If ctx ends it, the report is partial. If ctx has ended before the start, Run does
// nothing and returns an error that wraps the error of ctx. Other errors are ErrUsage, or mean that
// the run was not possible. The report says what the run found wrong: see Report.Verdict.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	return RunWhenReady(ctx, cfg, func(context.Context) error { return nil })
}

// RunWhenReady is Run for one of several processes that begin together. It calls ready when all
// connections are up and before the first message. Messages begin to flow when ready returns. An
// error of ready ends the run.
func RunWhenReady(ctx context.Context, cfg Config, ready func(ctx context.Context) error) (*Report, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("the run did not start: %w", err)
	}
	inProcess := len(cfg.Nodes) == 0 && cfg.Membership == nil
	if !inProcess {
		r, err := newRun(ctx, cfg)
		if err != nil {
			return nil, err
		}
		return r.do(ctx, ready)
	}
	node, err := startNode(cfg.Loops)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	cfg.Nodes = []string{node.addr}
	r, err := newRun(ctx, cfg)
	var report *Report
	if err == nil {
		r.inProcess = true
		report, err = r.do(ctx, ready)
	}
	drainErr := node.stop()
	if report != nil && drainErr != nil {
		report.DrainCut = drainErr.Error()
	}
	return report, err
}

// run is one run. Its methods are the phases.
type run struct {
	cfg       Config
	id        uint64
	t         *traffic.Traffic
	kind      drive.Kind
	d         drive.Driver
	from, to  usage // at both ends of the measured time
	partial   bool
	silent    []string // nodes of the membership that did not answer when the run began
	inProcess bool     // the node runs in this process
	samples   *sampler
	server    error          // why the server's CPU and memory are unknown
	greeting  string         // the version that the servers say they have; empty: they do not say
	build     scrape.Process // what the first server's metrics said when the run began

	helpers   sync.WaitGroup
	landing   time.Duration // from the end of sending until nothing was in flight
	impatient bool          // outcomes still came in when the patience was over

	mu    sync.Mutex
	over  bool     // guarded by mu: the driver has closed
	final Snapshot // guarded by mu: the last snapshot
	began bool     // all connections were up
}

// newRun finds the nodes and makes the driver.
func newRun(ctx context.Context, cfg Config) (*run, error) {
	r := &run{cfg: cfg, id: rand.Uint64()}
	if r.cfg.Membership == nil {
		static, err := discovery.Static(cfg.Nodes...)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUsage, err)
		}
		r.cfg.Membership = static
	}
	r.kind, _ = drive.KindOf(string(cfg.Driver)) // the Config was validated
	how := drive.Config{Nodes: cfg.Nodes, Membership: r.cfg.Membership, TLS: cfg.TLS, CredentialsFile: cfg.CredentialsFile,
		Attach: cfg.Attach, Strategy: cfg.Strategy}
	silent, err := r.kind.Reach(ctx, &how, cfg.Progress)
	if err != nil {
		return nil, err
	}
	r.cfg.Nodes, r.silent = how.Nodes, silent
	r.t = traffic.New(r.cfg.traffic(r.id))
	r.d = r.kind.New(r.t, &how)
	return r, nil
}

func (r *run) do(ctx context.Context, ready func(ctx context.Context) error) (*Report, error) {
	defer r.finish()
	if _, err := r.usage(); err != nil {
		return nil, fmt.Errorf("server-pid: %w", err)
	}
	if err := r.reachMetrics(); err != nil {
		return nil, err
	}
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	if err := ready(ctx); err != nil {
		return nil, err
	}
	if r.cfg.Ready != nil {
		r.cfg.Ready(r.known())
	}
	quit := make(chan struct{})
	r.samples = newSampler(r)
	r.helpers.Go(func() { r.samples.run(quit) })
	r.load(ctx)
	if r.cfg.Churn.any() {
		r.rest(ctx)
	}
	r.land(ctx)
	close(quit)
	r.helpers.Wait()
	var report *Report
	r.d.Do(func() {
		r.t.Ledger.Close(r.t.Up, r.impatient)
		report = r.report()
	})
	return report, nil
}

// finish keeps the last snapshot and closes the driver.
func (r *run) finish() {
	r.mu.Lock()
	if !r.over && r.began {
		r.d.Do(func() { r.final = snapshotOf(r.t) })
	}
	r.over = true
	r.mu.Unlock()
	r.d.Close()
}

// snapshot returns the counts so far. Config.Started gets this function.
func (r *run) snapshot() (s Snapshot) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return r.final
	}
	r.d.Do(func() {
		r.t.Tick()
		s = snapshotOf(r.t)
	})
	return s
}

// A Snapshot is what a run has counted so far, warm-up included.
type Snapshot struct {
	Sent, Delivered, Acked uint64
	Outcomes               map[string]uint64 // by word, acked included
	InFlight               int
	DownConnections        int
	// The faults so far. Missing and falsely acked messages may appear only at the end. With the
	// SDK, so may reordered ones.
	Faults  Faults
	Silence time.Duration // since the last delivery at any connection
}

// snapshotOf returns the counts so far. Its callers have the exclusive right.
func snapshotOf(t *traffic.Traffic) Snapshot {
	l := t.Ledger
	return Snapshot{Sent: l.Sent(), Delivered: l.Delivered(), Acked: l.Acked(), Outcomes: l.OutcomeWords(), InFlight: l.InFlight(),
		DownConnections: t.DownConns(), Faults: faults(l), Silence: time.Duration(t.Now - l.Time.LastDelivery())}
}

func (r *run) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, fmt.Errorf("not done within %v", connectTimeout))
	defer cancel()
	if err := r.d.Connect(ctx); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	r.d.Do(func() {
		setDefault(&r.t.TTL, defaultTTL)
		setDefault(&r.cfg.Grace, r.t.TTL+graceAfterTTL)
		setDefault(&r.cfg.Patience, max(defaultPatience, r.cfg.Grace))
		r.greeting = r.t.Server
	})
	r.began = true
	var used int
	r.d.Do(func() { used = r.t.Places.Used() })
	if r.cfg.Cross != nil && used < 2 {
		return fmt.Errorf("cross needs connections at two nodes, all %d are at the same one", r.cfg.Conns)
	}
	if r.cfg.Cross != nil && used < len(r.cfg.Nodes) {
		return fmt.Errorf("cross needs connections at every node: of %d nodes %d have one", len(r.cfg.Nodes), used)
	}
	return nil
}

// load sends messages: first to warm up, then in the measured time. Whatever fails from here on,
// the run makes a report.
func (r *run) load(ctx context.Context) {
	quit := make(chan struct{})
	var helpers sync.WaitGroup
	var from usage // by the metrics
	if r.cfg.Warmup <= 0 {
		r.scraped(&from)
	}
	r.d.Do(func() {
		if r.cfg.Divide != nil {
			r.t.Ledger.Divide()
		}
		r.t.Start()
		// without a warm-up, all that the schedule asks for is measured, from the first message on
		if r.cfg.Warmup <= 0 {
			r.from = r.mark(&r.t.Meter.From)
			r.t.Meter.From = r.t.Begun() // mark is later than the first messages
		}
	})
	if r.cfg.Started != nil {
		r.cfg.Started(r.snapshot)
	}
	if r.cfg.Divide != nil {
		r.cfg.Divide(r.markEpisode)
	}
	paced := make(chan error, 1)
	if r.cfg.openLoop() {
		helpers.Go(func() { paced <- r.pace(quit) })
	}
	if r.cfg.Churn.any() {
		helpers.Go(func() { r.churn(quit) })
	}
	defer func() {
		close(quit)
		helpers.Wait()
		r.d.Do(r.t.Stop)
	}()

	if r.cfg.Warmup > 0 {
		if !r.wait(ctx, r.cfg.Warmup, paced) {
			return
		}
		r.scraped(&from)
		r.d.Do(func() { r.from = r.mark(&r.t.Meter.From) })
	}
	r.wait(ctx, r.cfg.Duration, paced)
	r.d.Do(func() { r.to = r.mark(&r.t.Meter.To) })
	if r.remote() {
		r.from.server = from.server
		r.scraped(&r.to)
	}
}

// mark begins or ends the measured time and returns the usage at that moment. A server that has
// died has none. mark also brings the schedule up to that moment. The goroutine that keeps the
// schedule may be late, and its overdue messages would count neither as sent nor as unsent. Only
// the driver may call mark.
func (r *run) mark(moment *int64) usage {
	if r.cfg.openLoop() {
		r.t.Pace()
	} else {
		r.t.Tick()
	}
	*moment = r.t.Now
	u, err := r.usage()
	if err != nil && r.server == nil {
		r.server = err
	}
	return u
}

// wait waits for d, or, if d is negative, until the caller ends the run. It returns false if the
// run was cut short. The run is then partial.
func (r *run) wait(ctx context.Context, d time.Duration, paced <-chan error) bool {
	var over <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-r.cfg.Until:
	case <-ctx.Done():
		r.partial = d >= 0
	case err := <-paced:
		r.partial = true
		r.d.Do(func() { r.t.Note(err.Error()) })
	}
	return !r.partial
}

// pace sends on the schedule of the open loop.
func (r *run) pace(quit <-chan struct{}) error {
	s, err := newSleeper()
	if err != nil {
		return err
	}
	defer s.close()
	for {
		select {
		case <-quit:
			return nil
		default:
		}
		var next time.Duration
		r.d.Do(func() { next = r.t.Pace() })
		if err := s.sleep(min(max(next, minPace), maxPace)); err != nil {
			return fmt.Errorf("timer: %w", err)
		}
	}
}
