package loadtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"distmsg/loadtest/internal/drive"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/traffic"
)

// recorder is a driver that keeps the stamps of the messages it is to send.
type recorder struct {
	drive.Driver // the test calls none of its other methods
	sent         []ledger.Stamp
}

func (r *recorder) Send(_ int, m *traffic.Message) bool {
	var s ledger.Stamp
	s.Read(m.Payload)
	r.sent = append(r.sent, s)
	return true
}

// TestMeasuredTimeEndsWithTheSchedule ends the measured time while the goroutine that keeps the
// schedule is late. The messages that are due by then must be sent and counted.
func TestMeasuredTimeEndsWithTheSchedule(t *testing.T) {
	cfg, err := Config{Conns: 1, Rate: 1000}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	tr, sent := traffic.New(cfg.traffic(1)), new(recorder)
	tr.Transport = sent
	tr.ConnUp(0, traffic.Unlimited)
	tr.Start()
	begin := tr.Now
	tr.Clock = tr.Clock.Add(-20 * time.Millisecond) // so much time passes
	r := run{cfg: cfg, t: tr, d: sent}
	r.mark(&tr.Meter.To)
	if due := (tr.Meter.To - begin) / int64(time.Millisecond); due < 20 || len(sent.sent) != int(due)+1 {
		t.Errorf("%d messages were sent, %d should have left", len(sent.sent), due+1)
	}
}

func TestSleeper(t *testing.T) {
	s, err := newSleeper()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, d := range []time.Duration{0, time.Microsecond, 3 * time.Millisecond} {
		begin := time.Now()
		if err := s.sleep(d); err != nil || time.Since(begin) < d {
			t.Errorf("%v: %v after %v", d, err, time.Since(begin))
		}
	}
}

// If its context has ended before the call, Run does nothing.
func TestRunEndedContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if report, err := Run(ended, Config{Conns: 2}); !errors.Is(err, context.Canceled) || report != nil {
		t.Errorf("%v, %v", report, err)
	}
}
