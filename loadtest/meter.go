package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// meter measures what completes (acked round trips, or deliveries without ack) in the measured time.
type meter struct {
	latency *hdrhistogram.Histogram // nanoseconds
	on      bool
	done    uint64 // completed while on
	total   uint64 // completed ever
}

const maxLatency = int64(time.Hour)

func newMeter() meter { return meter{latency: hdrhistogram.New(1000, maxLatency, 3)} }

func (m *meter) count(latency int64) {
	m.total++
	if m.on {
		m.done++
		m.latency.RecordValue(min(max(latency, 0), maxLatency)) // in range, so it cannot fail
	}
}
