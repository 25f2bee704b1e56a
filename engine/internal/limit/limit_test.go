package limit

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// model is a bucket that counts tokens as a real number.
type model struct {
	tokens float64
	at     time.Duration
}

func (m *model) advance(r Rate, now time.Duration) {
	m.tokens = min(float64(r.Burst), m.tokens+float64(r.PerSecond)*(now-m.at).Seconds())
	m.at = now
}

// Each take is compared with what the model has. The model may have a token more than the bucket
// gives, because the bucket rounds times up to a nanosecond for each take.
func TestBucketMatchesModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		r := Rate{PerSecond: 1 + rnd.Int64N(1<<rnd.IntN(30)), Burst: 1 + rnd.Int64N(1<<rnd.IntN(20))}
		now := time.Hour + time.Duration(rnd.Int64N(int64(time.Hour)))
		var b Bucket
		m := model{float64(r.Burst), now}
		takes := 0.0
		for range 300 {
			now += time.Duration(rnd.Int64N(int64(time.Second)))
			m.advance(r, now)
			want := 1 + rnd.Int64N(2*r.Burst)
			got := b.Take(r, now, want)
			takes++
			slack := 1 + takes*float64(r.PerSecond)/1e9 + m.tokens*1e-6
			if expect := min(float64(want), math.Floor(m.tokens)); float64(got) > expect+slack || float64(got) < expect-slack {
				t.Fatalf("seed %d, %+v: got %d of %d, the model has %f", seed, r, got, want, m.tokens)
			}
			m.tokens -= float64(got)
		}
	}
}

// A bucket that is used when the clock begins is empty afterwards.
func TestBucketAtTimeZero(t *testing.T) {
	r := Rate{PerSecond: 20, Burst: 2}
	var b Bucket
	var p Pool
	for i, want := range []int64{1, 1, 0, 0} {
		if own, common := b.Take(r, 0, 1), p.Take(r, 0, 1); own != want || common != want {
			t.Errorf("take %d: %d and %d, want %d", i, own, common, want)
		}
	}
	var m Meter
	m.Draw(2, r, r, &p, time.Second)
	if over, _ := m.Draw(1, r, r, &p, time.Second); over == Within {
		t.Error("the burst is used up, and one more passes")
	}
}

func TestNoRateIsNoLimit(t *testing.T) {
	var m Meter
	for range 1000 {
		if !m.Use(1 << 40) {
			if over, wait := m.Draw(1<<40, Rate{}, Rate{}, nil, 0); over != Within || wait != 0 {
				t.Fatal(over, wait)
			}
		}
	}
}

// A meter that had no limit keeps to one that comes later.
func TestLimitThatComesLater(t *testing.T) {
	var m Meter
	m.Draw(1, Rate{}, Rate{}, nil, time.Hour)
	r, used := Rate{PerSecond: 10, Burst: 10}, int64(0)
	for range 10 {
		if n := int64(1 << 20); m.Use(n) {
			used += n
		} else if over, _ := m.Draw(n, r, r, nil, time.Hour); over == Within {
			used += n
		}
	}
	if used > 2<<20 {
		t.Errorf("used %d", used)
	}
}

// The waits that the meter names lead to a use after at most two of them, one for each rate, and a
// nanosecond less than the first one is not enough.
func TestWaitIsExact(t *testing.T) {
	for seed := range uint64(500) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		own := Rate{PerSecond: 1 + rnd.Int64N(1<<rnd.IntN(24)), Burst: 1 + rnd.Int64N(1000)}
		common := Rate{PerSecond: 1 + rnd.Int64N(1<<rnd.IntN(24)), Burst: 1 + rnd.Int64N(1000)}
		var m Meter
		var p Pool
		now := time.Hour
		use := func() (Over, time.Duration) {
			n := 1 + rnd.Int64N(300)
			if m.Use(n) {
				return Within, 0
			}
			return m.Draw(n, own, common, &p, now)
		}
		over, wait := use()
		for over == Within {
			over, wait = use()
		}
		now += wait - 1
		if early, _ := use(); early != over {
			t.Fatalf("seed %d: over %d for %v, and %d a nanosecond before", seed, over, wait, early)
		}
		now++
		for n := 0; ; n++ {
			if over, wait = use(); over == Within {
				break
			}
			if now += wait; n == 1 {
				t.Fatalf("seed %d: after the waits that it asked for it is still over %d, %+v %+v", seed, over, own, common)
			}
		}
	}
}

// Over a long time, meters that share a pool use what it allows, and together no more.
func TestMetersShareAPool(t *testing.T) {
	own, common := Rate{PerSecond: 5000, Burst: 5000}, Rate{PerSecond: 8000, Burst: 100}
	var p Pool
	meters := make([]Meter, 4)
	used := make([]int64, len(meters))
	now := time.Hour
	const seconds, size = 20, 3
	for range seconds * 1000 {
		now += time.Millisecond
		for i := range meters {
			for range 50 {
				if !meters[i].Use(size) {
					if over, _ := meters[i].Draw(size, own, common, &p, now); over != Within {
						break
					}
				}
				used[i] += size
			}
		}
	}
	var all int64
	for _, n := range used {
		all += n
	}
	if most := int64(seconds*common.PerSecond + common.Burst + 4*(8+size)); all > most || all < seconds*common.PerSecond*98/100 {
		t.Errorf("used %d (%v), allowed are %d", all, used, most)
	}
}

// A use that is larger than the burst passes when something is left. It is paid for afterwards,
// also while nobody uses anything.
func TestLargeUseIsOwed(t *testing.T) {
	r := Rate{PerSecond: 1000, Burst: 10}
	var m Meter
	var p Pool
	now := time.Hour
	if over, _ := m.Draw(500, r, r, &p, now); over != Within {
		t.Fatal("full buckets refuse")
	}
	over, wait := m.Draw(1, r, r, &p, now)
	if over != OverOwn || wait != 491*time.Millisecond {
		t.Fatalf("over %d, for %v", over, wait)
	}
	if over, _ = m.Draw(1, r, r, &p, now+wait/2); over != OverOwn {
		t.Fatal("half of the time is enough")
	}
	if over, wait = m.Draw(1, r, r, &p, now+wait); over != Within {
		t.Fatalf("still over for %v", wait)
	}
}

func TestPoolIsShared(t *testing.T) {
	r := Rate{PerSecond: 1, Burst: 10_000}
	var p Pool
	var mu sync.Mutex
	var all int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5000 {
				got := p.Take(r, 100_000*time.Second, 3)
				mu.Lock()
				all += got
				mu.Unlock()
			}
		})
	}
	if wg.Wait(); all != r.Burst {
		t.Errorf("%d tokens were taken, there are %d", all, r.Burst)
	}
}

func TestMeterAllocatesNothing(t *testing.T) {
	r := Rate{PerSecond: 1000, Burst: 10}
	var m Meter
	var p Pool
	if n := testing.AllocsPerRun(100, func() {
		if !m.Use(1) {
			m.Draw(1, r, r, &p, time.Hour)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
