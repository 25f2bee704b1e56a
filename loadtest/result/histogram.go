package result

import "github.com/HdrHistogram/hdrhistogram-go"

// LatencyOf returns the percentiles of a histogram of nanoseconds. It returns nil if the histogram
// is empty.
func LatencyOf(h *hdrhistogram.Histogram) *Latency {
	if h.TotalCount() == 0 {
		return nil
	}
	at := func(p float64) Seconds { return Seconds(h.ValueAtPercentile(p)) / 1e9 }
	return &Latency{P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: at(100)}
}

// DistributionOf returns the bars of a histogram of nanoseconds on a logarithmic scale.
func DistributionOf(h *hdrhistogram.Histogram) []Bar {
	var bars []Bar
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
			bars = append(bars, Bar{UpTo: Seconds(upTo / 1e9)})
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
