package traffic

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest/internal/ledger"
)

// A Meter measures messages that complete: acked round trips, or deliveries without ack. It assigns
// a message to the moment when the message should have left, not to the moment when it completed.
// Otherwise no figure would show the messages that a stopped node delays past the end of the
// measured time, and the figures would contain messages of the warm-up.
type Meter struct {
	// Latencies in nanoseconds since the sampler last exchanged the histograms. Measured has the
	// messages in Done, and Other has the rest.
	Measured, Other *hdrhistogram.Histogram
	// The measured time on the run's clock: from From on, and before To. They are ledger.Unknown
	// until their moments come.
	From, To int64
	// should have left in the measured time, and have completed in it or in the grace
	Done   uint64
	During uint64 // have completed in the measured time, and used its CPU time
	Total  uint64 // have completed at any time
}

const maxLatency = int64(time.Hour)

// NewHistogram makes an empty histogram of latencies.
func NewHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, maxLatency, 3) }

func newMeter() Meter {
	return Meter{Measured: NewHistogram(), Other: NewHistogram(), From: ledger.Unknown, To: ledger.Unknown}
}

// count counts a message that completes now and should have left at the time at.
func (m *Meter) count(at, now int64) {
	m.Total++
	if m.From <= now && now < m.To {
		m.During++
	}
	h := m.Other
	if m.From <= at && at < m.To {
		m.Done++
		h = m.Measured
	}
	h.RecordValue(min(max(now-at, 0), maxLatency)) // in range, so it cannot fail
}
