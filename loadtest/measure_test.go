package loadtest

import (
	"math"
	"os/exec"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/loadtest/result"
)

// stallFor makes a proxy hold up everything once, for d. It begins when the run has sent for after.
func stallFor(t *testing.T, after, d time.Duration) (addr string) {
	node := startEngine(t, engine.Config{Loops: 1})
	var begin time.Time
	stalled := false
	return startProxy(t, node, func(_ *proxy, _ int, _ bool, kind codec.Kind, frame []byte) [][]byte {
		if kind == codec.KindSend && begin.IsZero() {
			begin = time.Now()
		}
		if !stalled && !begin.IsZero() && time.Since(begin) > after {
			stalled = true
			<-time.After(d) // in the way of all others, as a stopped node is
		}
		return [][]byte{frame}
	}).addr
}

// TestStallAtTheEnd stops everything from 0.6 s before the end of the measured time until 1.4 s
// after it. The figures must contain the messages that should have left in that time, with their
// full latency.
func TestStallAtTheEnd(t *testing.T) {
	long(t)
	t.Parallel()
	const rate, stall = 1000, 2 * time.Second
	addr := stallFor(t, 1400*time.Millisecond, stall)
	r := mustRun(t, Config{Nodes: []string{addr}, Conns: 4, Rate: rate, Warmup: -1, Duration: 2 * time.Second})
	checkClean(t, r)
	if l := r.Latency; l.P90 < 1 || l.P50 > 1 || l.Max < result.Of(stall-time.Second) {
		t.Errorf("latency %+v: about a third of the messages took from 1.4 s to 2 s", *l)
	}
	checkAllCounted(t, r, rate)
}

// TestStallInWarmup stops everything around the end of the warm-up. No figure may contain messages
// that should have left before.
func TestStallInWarmup(t *testing.T) {
	long(t)
	t.Parallel()
	const rate = 1000
	addr := stallFor(t, 500*time.Millisecond, time.Second)
	r := mustRun(t, Config{Nodes: []string{addr}, Conns: 4, Rate: rate, Warmup: time.Second, Duration: 2 * time.Second})
	checkClean(t, r)
	checkAllCounted(t, r, rate)
}

// checkAllCounted checks that the rate counts each message that should have left in the measured
// time, and no other. If the load test was held up at the end, it may not have sent some of them.
func checkAllCounted(t *testing.T, r *Report, rate float64) {
	t.Helper()
	measured := float64(r.Measured)
	counted, due := *r.Rate*measured, rate*measured
	if counted > due+1 || counted+float64(r.Unsent) < math.Floor(due)-1 {
		t.Errorf("%.0f messages are in the rate, %.0f should have left in %.3f s, %d could not", counted, due, measured, r.Unsent)
	}
}

// TestServerDies ends the process whose CPU is measured. The run must still make a report.
func TestServerDies(t *testing.T) {
	t.Parallel()
	server := exec.Command("sleep", "1h")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	cfg := quick
	cfg.ServerPID = server.Process.Pid
	cfg.Started = func(func() Snapshot) {
		if err := server.Process.Kill(); err != nil {
			t.Error(err)
		}
		server.Wait()
	}
	r := mustRun(t, cfg)
	checkClean(t, r)
	if r.ServerCPU != nil || r.ServerRSS != nil || r.ServerError == "" || r.Latency == nil {
		t.Errorf("CPU %v, memory %v, error %q, latency %v", r.ServerCPU, r.ServerRSS, r.ServerError, r.Latency)
	}
}

// TestNothingMeasured ends a run in its warm-up. The report must have no invented figure.
func TestNothingMeasured(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.Warmup = time.Hour
	r, err := runInterrupted(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rate != nil || r.Latency != nil || r.DriverCPU != nil || r.Sent == 0 {
		t.Errorf("rate %v, latency %v, CPU %v, sent %d", r.Rate, r.Latency, r.DriverCPU, r.Sent)
	}
}
