package histogram

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A duration is in the bucket whose bounds are around it, by floating-point arithmetic.
func TestBuckets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(math.Exp2(rapid.Float64Range(0, 43).Draw(t, "log2 of nanoseconds")))
		b := bucketOf(d)
		exact := math.Log2(d.Seconds()) // what is left of exactness: a nanosecond
		const slack = 0.002
		switch upper := float64(b)/perDoubling + leastBits - unitBits; {
		case exact > upper+slack && b < buckets-1:
			t.Fatalf("%v is in bucket %d, which ends at 2^%v s; it is 2^%v s", d, b, upper, exact)
		case exact < upper-1.0/perDoubling-slack && b > 0:
			t.Fatalf("%v is in bucket %d, which begins at 2^%v s; it is 2^%v s", d, b, upper-1.0/perDoubling, exact)
		}
	})
	for d, want := range map[time.Duration]int{
		-1: 0, 0: 0, 953: 0, 955: 1, time.Second: 80, time.Second + 1: 81, 2 * time.Second: 84, 250 * time.Millisecond: 72, math.MaxInt64: buckets - 1,
	} {
		if got := bucketOf(d); got != want {
			t.Errorf("%v is in bucket %d, want %d", d, got, want)
		}
	}
}

func TestHistogram(t *testing.T) {
	var h, other Histogram
	h.Add(0, 1)
	h.Add(time.Second, 2)
	other.Add(1001*time.Millisecond, 3)
	other.Add(3*time.Hour, 1)
	h.Merge(&other)
	if n := h.Count(); n != 7 {
		t.Errorf("counts %d, want 7", n)
	}
	if s := h.Sum(); math.Abs(s-(2+3.003+3*3600)) > 1e-6 {
		t.Errorf("the sum is %v s", s)
	}
	for power, want := range map[int]uint64{-40: 0, -20: 1, -1: 1, 0: 3, 1: 6, 11: 6, 12: 7, 60: 7} {
		if n := h.UpTo(power); n != want {
			t.Errorf("%d up to 2^%d s, want %d", n, power, want)
		}
	}
	if n := h.Native(); h.Shortest() != 1 || len(n) != 3 || n[0] != 2 || n[1] != 3 || n[48] != 1 {
		t.Errorf("%d shortest, and %v", h.Shortest(), n)
	}
}

func TestAddAllocatesNothing(t *testing.T) {
	var h Histogram
	if n := testing.AllocsPerRun(100, func() { h.Add(time.Millisecond, 3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	var h Histogram
	for i := range b.N {
		h.Add(time.Duration(i&0xfffff), 1)
	}
}

// A quantile is the end of the bucket in which it is, of what was counted since.
func TestQuantile(t *testing.T) {
	var h Histogram
	h.Add(time.Hour, 5)
	earlier := h
	h.Add(time.Millisecond, 98)
	h.Add(time.Second, 2)
	since := h.Since(&earlier)
	if since.Count() != 100 || math.Abs(since.Sum()-2.098) > 1e-6 {
		t.Errorf("since then: %v", since)
	}
	for q, want := range map[float64]float64{0: 0.001, 0.5: 0.001, 0.98: 0.001, 0.99: 1, 1: 1} {
		if got := since.Quantile(q); got < want || got > 1.2*want {
			t.Errorf("%v of all took up to %v s, want %v s", q, got, want)
		}
	}
	if got := new(Histogram).Quantile(0.5); got != 0 {
		t.Errorf("nothing took %v s", got)
	}
}
