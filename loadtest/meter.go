package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest/internal/ledger"
)

// meter measures messages that complete: acked round trips, or deliveries without ack. It assigns a
// message to the moment when the message should have left, not to the moment when it completed.
// Otherwise no figure would show the messages that a stopped node delays past the end of the
// measured time, and the figures would contain messages of the warm-up.
type meter struct {
	latency *hdrhistogram.Histogram // nanoseconds, of the messages in done
	// The measured time on the run's clock: from from on, and before to.
	from, to int64
	// should have left in the measured time, and have completed in it or in the grace
	done   uint64
	during uint64 // have completed in the measured time, and used its CPU time
	total  uint64 // have completed at any time
}

const maxLatency = int64(time.Hour)

func newMeter() meter {
	return meter{latency: hdrhistogram.New(1000, maxLatency, 3), from: ledger.Unknown, to: ledger.Unknown}
}

// count counts a message that completes now and should have left at the time at.
func (m *meter) count(at, now int64) {
	m.total++
	if m.from <= now && now < m.to {
		m.during++
	}
	if m.from <= at && at < m.to {
		m.done++
		m.latency.RecordValue(min(max(now-at, 0), maxLatency)) // in range, so it cannot fail
	}
}
