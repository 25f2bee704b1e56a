package loadtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/loadtest/internal/ledger"
)

// quick is the configuration of a short run.
var quick = Config{Conns: 8, Window: 4, Warmup: -1, Duration: time.Second}

// runUntil makes a run that ends when its snapshot allows it, however long a busy machine takes.
func runUntil(t *testing.T, cfg Config, over func(s Snapshot) bool) *Report {
	t.Helper()
	until := make(chan struct{})
	cfg.Duration, cfg.Until = time.Hour, until
	var watch sync.WaitGroup
	cfg.Started = func(snapshot func() Snapshot) {
		watch.Go(func() {
			defer close(until)
			poll := time.NewTicker(5 * time.Millisecond)
			defer poll.Stop()
			for deadline := time.After(time.Minute); !over(snapshot()); {
				select {
				case <-poll.C:
				case <-deadline:
					t.Errorf("the run is not over after a minute: %+v", snapshot())
					return
				}
			}
		})
	}
	report := mustRun(t, cfg)
	watch.Wait()
	return report
}

// checkClean checks that a run has no fault and no failure, and that something happened in it.
func checkClean(t *testing.T, r *Report) {
	t.Helper()
	if code, why := r.Verdict(); code != ExitOK || r.Delivered == 0 || *r.Rate == 0 {
		t.Errorf("exit code %d (%s): %+v", code, why, r)
	}
}

// TestRunIsClean covers every way to send, through nodes in this process.
func TestRunIsClean(t *testing.T) {
	long(t)
	for name, change := range map[string]func(*Config){
		"acked":              func(*Config) {},
		"two loops":          func(c *Config) { c.Loops = 2 },
		"no ack":             func(c *Config) { c.NoAck = true },
		"no ack, two loops":  func(c *Config) { c.NoAck, c.Loops = true, 2 },
		"open loop":          func(c *Config) { c.Window, c.Rate = 0, 2000 },
		"open loop, no ack":  func(c *Config) { c.Window, c.Rate, c.NoAck = 0, 2000, true },
		"many IDs":           func(c *Config) { c.IDsPerConn = 1500 }, // more than one bind frame
		"one connection":     func(c *Config) { c.Conns = 1 },
		"smallest payload":   func(c *Config) { c.Payload = ledger.StampLen },
		"large payload":      func(c *Config) { c.Payload = 100_000 },
		"warm-up":            func(c *Config) { c.Warmup = 100 * time.Millisecond },
		"fanout":             func(c *Config) { c.Fanout = 5 },
		"fanout, all IDs":    func(c *Config) { c.Fanout, c.IDsPerConn, c.Loops = 7*3, 3, 2 },
		"fanout, no ack":     func(c *Config) { c.Fanout, c.NoAck = 5, true },
		"fanout, open loop":  func(c *Config) { c.Fanout, c.Window, c.Rate = 5, 0, 500 },
		"sdk, fanout":        func(c *Config) { c.Driver, c.Fanout, c.IDsPerConn = DriverSDK, 12, 3 },
		"sdk, fanout posts":  func(c *Config) { c.Driver, c.Fanout, c.NoAck = DriverSDK, 5, true },
		"sdk":                func(c *Config) { c.Driver = DriverSDK },
		"sdk, no ack":        func(c *Config) { c.Driver, c.NoAck = DriverSDK, true },
		"sdk, open loop":     func(c *Config) { c.Driver, c.Window, c.Rate = DriverSDK, 0, 2000 },
		"sdk, many IDs":      func(c *Config) { c.Driver, c.IDsPerConn = DriverSDK, 1500 },
		"sdk, large payload": func(c *Config) { c.Driver, c.Payload = DriverSDK, 20_000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := quick
			change(&cfg)
			r := mustRun(t, cfg)
			checkClean(t, r)
			if r.Sent != r.Delivered {
				t.Errorf("%d sent, %d delivered", r.Sent, r.Delivered)
			}
			if fanout := uint64(max(cfg.Fanout, 1)); r.Sent%fanout != 0 || r.Config.Fanout != int(fanout) {
				t.Errorf("%d copies sent, fanout %d", r.Sent, r.Config.Fanout)
			}
			if want := r.Sent; !cfg.NoAck && (r.Acked != want || r.Outcomes["acked"] != want) {
				t.Errorf("%d sent, %d acked, outcomes %v", want, r.Acked, r.Outcomes)
			}
			if cfg.NoAck && len(r.Outcomes) > 0 {
				t.Errorf("outcomes without ack: %v", r.Outcomes)
			}
			if r.Moves > 0 {
				t.Errorf("%d sessions moved, but there is one node and no churn", r.Moves)
			}
			if l := r.Latency; l.P50 <= 0 || l.P50 > l.P99 || l.P99 > l.Max {
				t.Errorf("latency %+v", l)
			}
		})
	}
}

// TestCreditIsNeverExceeded has a window larger than the credit. The node closes a connection that
// exceeds its credit.
func TestCreditIsNeverExceeded(t *testing.T) {
	long(t)
	t.Parallel()
	node := startEngine(t, engine.Config{Loops: 1, Credit: 140_000, MaxPayload: 1000, MaxIDs: 16})
	for _, driver := range []Driver{DriverRelay, DriverSDK} {
		cfg := quick
		cfg.Nodes, cfg.Driver, cfg.NoAck, cfg.Window, cfg.Payload = []string{node}, driver, true, 500, 1000
		r := runUntil(t, cfg, func(s Snapshot) bool { return s.Delivered > 5000 })
		checkClean(t, r)
		if r.LostConnections != 0 || r.Sent < 100 {
			t.Errorf("%s: %+v", driver, r)
		}
	}
}

// TestFailuresAreOutcomes overloads receivers. The node may refuse messages, but it must report
// each refusal.
func TestFailuresAreOutcomes(t *testing.T) {
	long(t)
	t.Parallel()
	node := startEngine(t, engine.Config{Loops: 1, MaxInFlight: 2})
	cfg := quick
	cfg.Nodes, cfg.Window, cfg.Rate, cfg.Conns = []string{node}, 0, 50_000, 2
	r := mustRun(t, cfg)
	checkClean(t, r)

	cfg.Rate, cfg.Window = 0, 3
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "in flight") {
		t.Errorf("a window over the node's limit: %v", err)
	}
	cfg.Window, cfg.Payload = 1, 2<<20
	if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "payload") {
		t.Errorf("a payload over the node's limit: %v", err)
	}
}

// TestLostConnection cuts connections in the middle of a run. The driver must come back and resume
// its sessions, and the ledger must stay clean.
func TestLostConnection(t *testing.T) {
	long(t)
	node := startEngine(t, engine.Config{Loops: 2, DefaultTTL: time.Second})
	for name, cfg := range map[string]Config{
		"relay":                 {Driver: DriverRelay},
		"relay, no ack":         {Driver: DriverRelay, NoAck: true},
		"sdk":                   {Driver: DriverSDK},
		"sdk, no ack":           {Driver: DriverSDK, NoAck: true},
		"relay, fanout":         {Driver: DriverRelay, Fanout: 5},
		"relay, fanout, no ack": {Driver: DriverRelay, Fanout: 5, NoAck: true},
		"sdk, fanout":           {Driver: DriverSDK, Fanout: 5},
		"sdk, fanout, no ack":   {Driver: DriverSDK, Fanout: 5, NoAck: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			delivers := 0
			p := startProxy(t, node, func(p *proxy, conn int, _ bool, kind codec.Kind, frame []byte) [][]byte {
				if kind == codec.KindDeliver || kind == codec.KindDeliverMany {
					if delivers++; delivers%100 == 0 && delivers <= 300 {
						p.cut(conn)
					}
				}
				return [][]byte{frame}
			})
			cfg.Nodes, cfg.Conns, cfg.Window, cfg.Warmup = []string{p.addr}, 8, 4, -1
			// behind all cuts
			r := runUntil(t, cfg, func(s Snapshot) bool { return s.Delivered > 5000 && s.DownConnections == 0 })
			checkClean(t, r)
			if r.LostConnections == 0 || r.DownConnections != 0 {
				t.Errorf("%d connections lost, %d down", r.LostConnections, r.DownConnections)
			}
		})
	}
}

// TestNodeRestart replaces the node by one that knows nothing. The sessions are new, but the epochs
// are kept.
func TestNodeRestart(t *testing.T) {
	long(t)
	t.Parallel()
	first := startEngine(t, engine.Config{Loops: 1})
	second := startEngine(t, engine.Config{Loops: 1})
	delivers := 0
	p := startProxy(t, first, func(p *proxy, _ int, _ bool, kind codec.Kind, frame []byte) [][]byte {
		if kind == codec.KindDeliver {
			if delivers++; delivers == 200 {
				p.node = second
				for i := range p.links {
					p.cut(i)
				}
			}
		}
		return [][]byte{frame}
	})
	cfg := quick
	cfg.Nodes = []string{p.addr}
	r := runUntil(t, cfg, func(s Snapshot) bool { return s.Delivered > 2000 && s.DownConnections == 0 })
	checkClean(t, r)
	if want := uint64(cfg.Conns); r.LostConnections < want {
		t.Errorf("%d connections lost, want %d", r.LostConnections, want)
	}
}

// TestNodeGone ends the only node and does not start it again.
func TestNodeGone(t *testing.T) {
	long(t)
	t.Parallel()
	node := startEngine(t, engine.Config{Loops: 1})
	delivers := 0
	p := startProxy(t, node, func(p *proxy, _ int, _ bool, kind codec.Kind, frame []byte) [][]byte {
		if kind == codec.KindDeliver {
			if delivers++; delivers == 200 {
				p.node = "127.0.0.1:1"
				for i := range p.links {
					p.cut(i)
				}
			}
		}
		return [][]byte{frame}
	})
	cfg := quick
	cfg.Nodes = []string{p.addr}
	r := runUntil(t, cfg, func(s Snapshot) bool { return s.DownConnections == cfg.Conns })
	if code, why := r.Verdict(); code != ExitFailure || r.DownConnections != uint64(cfg.Conns) {
		t.Errorf("exit code %d (%s), %d connections down", code, why, r.DownConnections)
	}
}

func TestInterrupted(t *testing.T) {
	long(t)
	t.Parallel()
	cfg := quick
	cfg.Duration = time.Hour
	r, err := runInterrupted(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, _ := r.Verdict(); code != ExitInterrupted || r.Faults.Total() > 0 {
		t.Errorf("exit code %d, faults %+v", code, r.Faults)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil || !r.Partial || !strings.Contains(text.String(), "interrupted") {
		t.Errorf("partial %v, %v:\n%s", r.Partial, err, &text)
	}
}

// runInterrupted interrupts a run when it writes its first line of progress.
func runInterrupted(t *testing.T, cfg Config) (*Report, error) {
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Progress = writerFunc(func(p []byte) (int, error) {
		cancel()
		return len(p), nil
	})
	return Run(ctx, cfg)
}

// A run ends and makes its report even if nobody reads its progress.
func TestProgressThatNobodyReads(t *testing.T) {
	long(t)
	unread := make(chan struct{})
	defer close(unread)
	r, err := Run(t.Context(), Config{Conns: 2, Window: 1, Warmup: -1, Duration: 1500 * time.Millisecond,
		Progress: writerFunc(func(p []byte) (int, error) {
			<-unread
			return len(p), nil
		})})
	if err != nil || r.Acked == 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestRunFails(t *testing.T) {
	for name, cfg := range map[string]Config{
		"payload":     {Payload: ledger.StampLen - 1},
		"rate+window": {Rate: 5, Window: 1},
		"rate":        {Rate: -1},
		"window":      {Window: -1},
		"driver":      {Driver: "telnet"},
		"nats":        {Driver: DriverNATS},
		"node":        {Nodes: []string{"localhost"}},
		"conns":       {Conns: -1},
		"ids":         {IDsPerConn: -1},
		"loops":       {Loops: -1},
	} {
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, cfg := range map[string]Config{
		"nobody listens": {Nodes: []string{"127.0.0.1:1"}},
		"no process":     {ServerPID: 1 << 30},
	} {
		if _, err := Run(t.Context(), cfg); err == nil || errors.Is(err, ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReportJSON pins the names that scripts rely on.
func TestReportJSON(t *testing.T) {
	long(t)
	t.Parallel()
	cfg := quick
	cfg.ServerPID = os.Getpid()
	data, err := json.Marshal(mustRun(t, cfg))
	if err != nil {
		t.Fatal(err)
	}
	var report map[string]any
	if err := json.Unmarshal(data, &report); err != nil {
		t.Fatal(err)
	}
	for object, want := range map[string]string{
		"": "acked begun completed_while_measured config cross delivered distribution down_connections drain_cut drains driver_cpu_seconds_per_message episodes errors expected_no_route faults landing_seconds latency_seconds lost_connections machine" +
			" max_silence_at_seconds max_silence_seconds measured_seconds moves outcomes partial rate_per_second rounds schema sent" +
			" server_cpu_seconds_per_message server_error server_rss_bytes silent_nodes slowest_seconds thresholds timeline unanswered unsent versions",
		"faults":          "corrupted double_outcome duplicated false_acked false_denied false_no_route false_undelivered misrouted missing reordered",
		"latency_seconds": "max p50 p90 p99 p99_9",
		"outcomes":        "acked",
	} {
		fields := report
		if object != "" {
			fields = report[object].(map[string]any)
		}
		if got := strings.Join(slices.Sorted(maps.Keys(fields)), " "); got != want {
			t.Errorf("fields of %q:\n%s, want\n%s", object, got, want)
		}
	}
	if rss := report["server_rss_bytes"].(float64); rss < 1<<20 {
		t.Errorf("server_rss_bytes %v", rss)
	}
	if _, ok := report["server_cpu_seconds_per_message"].(float64); !ok {
		t.Error("server_cpu_seconds_per_message is no number")
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		change func(*Report)
		want   ExitCode
	}{
		{func(*Report) {}, ExitOK},
		{func(r *Report) { r.Faults.Reordered = 1; r.Errors = map[string]uint64{"kick": 1} }, ExitLedger},
		{func(r *Report) { r.Errors = map[string]uint64{"kick": 1}; r.DrainCut = "x" }, ExitFailure},
		{func(r *Report) { r.DownConnections = 1 }, ExitFailure},
		{func(r *Report) { r.Rate = new(0.0) }, ExitFailure},
		{func(r *Report) { r.Rate, r.Partial = nil, true }, ExitInterrupted},
		{func(r *Report) { r.Unanswered = 1 }, ExitFailure},
		{func(r *Report) { r.Unanswered, r.Faults.Missing = 1, 1 }, ExitLedger},
		{func(r *Report) { r.DrainCut = "x" }, ExitDrain},
	} {
		r := Report{Rate: new(1.0)}
		c.change(&r)
		if code, why := r.Verdict(); code != c.want || (why == "") != (code == ExitOK) {
			t.Errorf("%+v: exit code %d (%s), want %d", r, code, why, c.want)
		}
	}
}
