// Package histogram counts durations in buckets. Four buckets cover a doubling, so a quantile that
// is read from them is wrong by a fifth at most. The buckets are those of a native histogram of
// Prometheus, and some of their bounds serve as the bounds of a classic one.
package histogram

import (
	"fmt"
	"math"
	"math/bits"
	"sync"
	"time"
)

// Schema is the resolution in the words of Prometheus: 2 to the power of it is how many buckets
// cover a doubling.
const Schema = 2

const (
	perDoubling = 1 << Schema
	// Bounds are powers of two of a second, so durations are counted in units of 2^-30 s.
	unitBits = 30
	// The first bucket has all that is shorter than 2^leastBits units, about a microsecond, and the
	// last one all that is longer than 2^mostBits units, over an hour.
	leastBits = 10
	mostBits  = 42
	buckets   = (mostBits-leastBits)*perDoubling + 1
)

// ZeroThreshold is the upper bound of the first bucket, in seconds.
const ZeroThreshold = 1.0 / (1 << (unitBits - leastBits))

// Histogram counts durations. The zero value is empty. It is an array, and copying it copies all.
// One goroutine at a time may use it.
type Histogram struct {
	counts [buckets]uint64
	sum    float64 // nanoseconds
}

// Add counts n durations of d. One below 0 counts as 0. It takes a few nanoseconds and allocates
// nothing.
func (h *Histogram) Add(d time.Duration, n uint64) {
	h.counts[bucketOf(d)] += n
	h.sum += float64(max(d, 0)) * float64(n)
}

// These are the bounds within a doubling: 2^63 times a power of the fourth root of 2.
const (
	quarter       = 10968499650544839024
	half          = 13043817825332782213
	threeQuarters = 15511800964685064949
	// fraction is how many units more than a nanosecond there are in one, times 2^64.
	fraction = 1360296554856532782
)

// bucketOf returns the bucket of a duration. A bucket includes its upper bound.
func bucketOf(d time.Duration) int {
	more, _ := bits.Mul64(uint64(d), fraction)
	units := uint64(d) + more
	if d <= 0 || units <= 1<<leastBits {
		return 0
	}
	n := bits.Len64(units - 1)
	b := (n-leastBits-1)*perDoubling + 1
	switch normal := (units - 1) << (64 - n); {
	case normal >= threeQuarters:
		b += 3
	case normal >= half:
		b += 2
	case normal >= quarter:
		b++
	}
	return min(b, buckets-1)
}

// Merge adds what another histogram has counted.
func (h *Histogram) Merge(other *Histogram) {
	for b, n := range &other.counts {
		h.counts[b] += n
	}
	h.sum += other.sum
}

// Since returns what was counted after earlier, which is an earlier state of the same histogram.
func (h *Histogram) Since(earlier *Histogram) (more Histogram) {
	for b, n := range &h.counts {
		more.counts[b] = n - earlier.counts[b]
	}
	more.sum = h.sum - earlier.sum
	return more
}

// Quantile returns a time in seconds that the part q of all durations did not exceed: the end of
// the bucket, so it may be up to a fifth too long. An empty histogram returns 0.
func (h *Histogram) Quantile(q float64) float64 {
	rank := max(1, uint64(math.Ceil(q*float64(h.Count()))))
	for b, n := range &h.counts {
		if n >= rank {
			return math.Exp2(float64(b)/perDoubling + leastBits - unitBits)
		}
		rank -= n
	}
	return 0
}

// Count returns how many durations were counted.
func (h *Histogram) Count() (n uint64) {
	for _, in := range &h.counts {
		n += in
	}
	return n
}

// Sum returns the sum of all durations, in seconds.
func (h *Histogram) Sum() float64 { return h.sum / 1e9 }

// Shortest returns how many durations are not above ZeroThreshold.
func (h *Histogram) Shortest() uint64 { return h.counts[0] }

// Native returns how many durations each other bucket has, if it has any. The keys are those of
// Prometheus: bucket i ends at 2^(i/4) seconds.
func (h *Histogram) Native() map[int]int64 {
	native := make(map[int]int64)
	for b, n := range h.counts[1:] {
		if n > 0 {
			native[b+1-(unitBits-leastBits)*perDoubling] = int64(n)
		}
	}
	return native
}

// UpTo returns how many durations are at most 2^power seconds. Above a bucket's range, it counts
// all.
func (h *Histogram) UpTo(power int) (n uint64) {
	last := (power + unitBits - leastBits) * perDoubling
	for _, in := range h.counts[:max(0, min(last+1, buckets))] {
		n += in
	}
	return n
}

// String returns the count and the sum, for messages.
func (h Histogram) String() string {
	return fmt.Sprintf("%d times, %v in sum", h.Count(), time.Duration(h.sum))
}

// Shared is a histogram for many goroutines. Its zero value is empty.
type Shared struct {
	mu sync.Mutex
	h  Histogram // guarded by mu
}

// Add counts a duration. Any goroutine may call it, but for an event loop: it takes a lock.
func (s *Shared) Add(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.h.Add(d, 1)
}

// Read returns what was counted so far. Any goroutine may call it.
func (s *Shared) Read() Histogram {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.h
}
