package ackmgr

import (
	"math"
	"slices"
	"testing"
)

// near returns the delays around every boundary of a level up to an hour, and
// some in between.
func near() []int64 {
	delays := []int64{3_599_999, 3_600_000}
	for span := int64(1); span <= 3_600_000; span *= buckets {
		for _, n := range []int64{1, 2, 3, buckets - 1, buckets} {
			delays = append(delays, span*n-1, span*n, span*n+1)
		}
	}
	return slices.DeleteFunc(delays, func(d int64) bool { return d > 3_600_000 })
}

// Called every millisecond, Advance expires an entry in the very millisecond of
// its deadline, wherever the wheel stood when it was armed.
func TestExpiresToTheMillisecond(t *testing.T) {
	for _, start := range []int64{0, 1, 255, 256, 65_279, 65_280, 65_535, 65_536 + 5} {
		m := New(Config{}, 1000)
		m.Advance(1000+start, ignore)
		last := int64(0)
		for _, d := range near() {
			if d <= 300_000 {
				mustArm(t, m, 1000+start+d, 0, 0)
				last = max(last, d)
			}
		}
		for d := range last + 1 {
			now := 1000 + start + d
			m.Advance(now, func(_ Token, e Entry) {
				if int64(e.Seq) != now {
					t.Errorf("start %d: the deadline %d expired at %d", start, e.Seq, now)
				}
			})
		}
		if m.Len() != 0 {
			t.Errorf("start %d: %d entries never expired", start, m.Len())
		}
	}
}

// Called rarely, Advance expires what is due and nothing else, in order.
func TestExpiresAcrossGaps(t *testing.T) {
	for _, start := range []int64{0, 255, 65_535, 65_536, 1<<24 - 1, 1<<30 - 7} {
		for _, gap := range []int64{10, 256, 1000, 65_537, 3_600_000, 86_400_000} {
			m := New(Config{}, 0)
			m.Advance(start, ignore)
			for _, d := range near() {
				mustArm(t, m, start+d, 0, 0)
			}
			for now := start; m.Len() > 0; now += gap {
				last := now - gap + 1
				m.Advance(now, func(_ Token, e Entry) {
					if d := int64(e.Seq); d > now || d < last {
						t.Errorf("start %d gap %d: the deadline %d expired at %d, after %d", start, gap, d, now, last)
					}
					last = int64(e.Seq)
				})
			}
		}
	}
}

// Entries with one deadline expire in the order armed, also when those armed
// first come down from a higher level, or from two that start at the same tick.
func TestEqualDeadlinesExpireAsArmed(t *testing.T) {
	for _, deadline := range []int64{1 << 24, 1<<24 + 3, 65_536, 65_536 + 255, 65_536 + 256, 512, 70_000} {
		m := New(Config{}, 0)
		var armed []Token
		for _, before := range []int64{1 << 24, 70_000, 65_536, 65_535, 5000, 300, 256, 255, 9} {
			m.Advance(deadline-before, func(Token, Entry) { t.Errorf("deadline %d: early by %d", deadline, before) })
			for range 3 {
				armed = append(armed, mustArm(t, m, deadline, 0, 0))
			}
		}
		var got []Token
		m.Advance(deadline, func(tok Token, _ Entry) { got = append(got, tok) })
		if !slices.Equal(got, armed) {
			t.Errorf("deadline %d: expired %x, want %x", deadline, got, armed)
		}
	}
}

// The slots' 32 bits of a tick wrap after 49 days; uptime may be longer.
func TestTicksWrap(t *testing.T) {
	m := New(Config{}, 0)
	const start = 1<<32 - 100
	m.Advance(start, ignore)
	for _, d := range near() {
		mustArm(t, m, start+d, 0, 0)
	}
	for now := int64(start); now < start+3_700_000; now += 10 {
		m.Advance(now, func(_ Token, e Entry) {
			if late := now - int64(e.Seq); late < 0 || late >= 10 {
				t.Errorf("the deadline %d expired at %d", e.Seq, now)
			}
		})
	}
	if m.Len() != 0 {
		t.Errorf("%d entries never expired", m.Len())
	}
}

func TestExtremeTimes(t *testing.T) {
	for _, now := range []int64{math.MinInt64, -1000, 0, 1 << 60, math.MaxInt64 - maxAhead - 1000} {
		m := New(Config{}, now)
		past := mustArm(t, m, math.MinInt64, 0, 0)
		far := mustArm(t, m, math.MaxInt64, 0, 0)
		var got []Token
		note := func(tok Token, _ Entry) { got = append(got, tok) }
		m.Advance(math.MinInt64, note) // no time passes, but what is overdue expires
		m.Advance(now+maxAhead-1, note)
		if !slices.Equal(got, []Token{past}) {
			t.Errorf("now %d: expired %#x, want only %#x", now, got, past)
		}
		m.Advance(now+maxAhead, note)
		if !slices.Equal(got, []Token{past, far}) {
			t.Errorf("now %d: expired %#x, want %#x and %#x", now, got, past, far)
		}
	}
}

// The buckets that Advance visits depend on what is pending, not on the gap.
func TestGapsAreSkipped(t *testing.T) {
	m := New(Config{}, 0)
	mustArm(t, m, maxAhead, 0, 0)
	stops := 0
	for start, ok := m.wheel.next(); ok; start, ok = m.wheel.next() {
		stops++
		m.Advance(int64(start), ignore)
	}
	if stops != levels {
		t.Errorf("%d stops for one entry, want one a level: %d", stops, levels)
	}
	if m.Len() != 0 {
		t.Error("the entry never expired")
	}
}

// Wherever a set's only members are, the distance to the nearer one is right.
func TestBucketSetDistance(t *testing.T) {
	for _, a := range []uint8{0, 1, 63, 64, 100, 255} {
		for _, b := range []uint8{0, 1, 62, 127, 128, 254} {
			var s bucketSet
			s.add(a)
			s.add(b)
			for from := range 256 {
				want := uint64(min(a-uint8(from), b-uint8(from)))
				if d, ok := s.distance(uint8(from)); !ok || d != want {
					t.Fatalf("members %d and %d: distance from %d is %d, %v; want %d", a, b, from, d, ok, want)
				}
			}
			s.remove(a)
			s.remove(b)
			if d, ok := s.distance(a); ok {
				t.Fatalf("the empty set has a member at distance %d", d)
			}
		}
	}
}
