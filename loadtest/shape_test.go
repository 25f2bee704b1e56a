package loadtest

import (
	"errors"
	"testing"
	"time"

	"distmsg/loadtest/internal/ledger"
)

// TestShapes has all shapes at once in one run: the ledger must stay clean, and it must know which
// messages had nobody to go to.
func TestShapes(t *testing.T) {
	long(t)
	t.Parallel()
	cfg := Config{Conns: 8, IDsPerConn: 3, Warmup: -1, Stages: []Stage{{From: 100, To: 2000, For: time.Second}}, Poisson: true,
		Payloads: []Size{{Bytes: ledger.StampLen, Weight: 3}, {Bytes: 2000, Weight: 1}}, Zipf: 1.5, Offline: 0.2, AckDelay: time.Millisecond,
		Churn: Churn{Binds: 100, Moves: 40, Reconnects: 20}}
	var cut, moved bool
	r := runUntil(t, cfg, func(s Snapshot) bool {
		cut, moved = cut || s.Outcomes["lost"] > 0 || s.DownConnections > 0, moved || s.Acked > 500
		return cut && moved && s.Outcomes["no_route"] > 100
	})
	checkClean(t, r)
	if r.ExpectedNoRoute == 0 || r.ExpectedNoRoute != r.Outcomes["no_route"] {
		t.Errorf("%d no_routes were expected, outcomes %v", r.ExpectedNoRoute, r.Outcomes)
	}
	if r.LostConnections == 0 || r.DownConnections != 0 || r.Moves == 0 {
		t.Errorf("%d connections lost, %d down, %d moves", r.LostConnections, r.DownConnections, r.Moves)
	}
}

// A run without an end ends when its caller wants it, and is complete then.
func TestForever(t *testing.T) {
	t.Parallel()
	cfg := quick
	cfg.Duration = -1
	r, err := runInterrupted(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if code, why := r.Verdict(); code != ExitOK || r.Partial {
		t.Errorf("exit code %d (%s), partial %v", code, why, r.Partial)
	}
}

func TestBadShapes(t *testing.T) {
	for name, cfg := range map[string]Config{
		"stages and rate":   {Stages: []Stage{{From: 1, To: 1, For: time.Second}}, Rate: 1},
		"stages too short":  {Stages: []Stage{{From: 1, To: 1}}},
		"a negative rate":   {Stages: []Stage{{From: -1, To: 1, For: time.Second}}},
		"poisson, closed":   {Poisson: true},
		"payloads":          {Payloads: []Size{{Bytes: 1, Weight: 1}}},
		"both payloads":     {Payloads: []Size{{Bytes: 100, Weight: 1}}, Payload: 100},
		"zipf":              {Zipf: 1},
		"zipf and fanout":   {Zipf: 2, Fanout: 2},
		"offline":           {Offline: 1.1},
		"ack delay":         {AckDelay: -1},
		"ack delay, sdk":    {AckDelay: 1, Driver: DriverSDK},
		"ack delay, no ack": {AckDelay: 1, NoAck: true},
		"churn":             {Churn: Churn{Moves: -1}},
		"churn, sdk":        {Churn: Churn{Moves: 1}, Driver: DriverSDK},
	} {
		if _, err := Run(t.Context(), cfg); !errors.Is(err, ErrUsage) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
