package loadtest

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/result"
)

// meter measures messages that complete: acked round trips, or deliveries without ack. It assigns a
// message to the moment when the message should have left, not to the moment when it completed.
// Otherwise no figure would show the messages that a stopped node delays past the end of the
// measured time, and the figures would contain messages of the warm-up.
type meter struct {
	// Latencies in nanoseconds since the sampler last exchanged the histograms. measured has the
	// messages in done, and other has the rest.
	measured, other *hdrhistogram.Histogram
	// The measured time on the run's clock: from from on, and before to.
	from, to int64
	// should have left in the measured time, and have completed in it or in the grace
	done   uint64
	during uint64 // have completed in the measured time, and used its CPU time
	total  uint64 // have completed at any time
}

const maxLatency = int64(time.Hour)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1000, maxLatency, 3) }

func newMeter() meter {
	return meter{measured: newHistogram(), other: newHistogram(), from: ledger.Unknown, to: ledger.Unknown}
}

// count counts a message that completes now and should have left at the time at.
func (m *meter) count(at, now int64) {
	m.total++
	if m.from <= now && now < m.to {
		m.during++
	}
	h := m.other
	if m.from <= at && at < m.to {
		m.done++
		h = m.measured
	}
	h.RecordValue(min(max(now-at, 0), maxLatency)) // in range, so it cannot fail
}

// perMessage divides d, the CPU time of the measured time, by the messages that completed in that
// time. It returns nil if no message completed then.
func (m *meter) perMessage(d time.Duration) *result.Seconds {
	if m.during == 0 {
		return nil
	}
	return new(result.Seconds(d.Seconds() / float64(m.during)))
}

// percentiles returns nil if nothing was measured.
func percentiles(h *hdrhistogram.Histogram) *result.Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(p float64) result.Seconds { return result.Seconds(h.ValueAtPercentile(p)) / 1e9 }
	return &result.Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100)}
}

// distribution returns the bars of a histogram on a logarithmic scale.
func distribution(h *hdrhistogram.Histogram) []result.Bar {
	var bars []result.Bar
	upTo := firstBar
	for _, v := range h.Distribution() {
		if v.Count == 0 {
			continue
		}
		fresh := len(bars) == 0
		for float64(v.To) > upTo {
			upTo *= barWidth
			fresh = true
		}
		if fresh {
			bars = append(bars, result.Bar{UpTo: result.Seconds(upTo / 1e9)})
		}
		bars[len(bars)-1].Count += v.Count
	}
	return bars
}

// Each bar of a distribution ends at a fifth more than the bar before. The first ends at 1 µs.
const (
	firstBar = 1e3 // in nanoseconds
	barWidth = 1.2
)
