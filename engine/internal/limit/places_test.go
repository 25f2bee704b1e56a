package limit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// grab uses a place if there is one.
func (p *Places) grab(own, common int, shared *Count) Over {
	if !p.Free() {
		if over := p.Reserve(own, common, shared); over != Within {
			return over
		}
	}
	p.Use()
	return Within
}

func (p *Places) let(common int, shared *Count) {
	if p.Drop(); p.Trims() {
		p.Trim(common, shared)
	}
}

// Goroutines use and free places at random. All together never use more than they share, and each
// no more than its own. In the end nothing is reserved.
func TestPlacesAreShared(t *testing.T) {
	for _, common := range []int{1, 7, 1023, 3000, 10_000} {
		own := max(1, common/3)
		rounds := max(20, 20_000/common)
		var shared Count
		var used atomic.Int64
		var wg sync.WaitGroup
		for seed := range uint64(8) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 3))
				var p Places
				for range rounds {
					target := rnd.IntN(own + 1)
					for p.Used() < target+1 {
						if p.grab(own, common, &shared) != Within {
							break
						}
						if n := used.Add(1); n > int64(common) || p.Used() > own {
							t.Errorf("%d of %d are used, %d of %d by one", n, common, p.Used(), own)
							return
						}
					}
					for p.Used() > target/2 {
						used.Add(-1)
						p.let(common, &shared)
					}
				}
				for p.Used() > 0 {
					used.Add(-1)
					p.let(common, &shared)
				}
				if p.reserved != 0 {
					t.Errorf("an idle connection has %d places of %d", p.reserved, common)
				}
				p.grab(own, common, &shared)
				p.Close(&shared)
			})
		}
		if wg.Wait(); shared.n.Load() != 0 {
			t.Errorf("%d of %d places are lost", shared.n.Load(), common)
		}
	}
}

// Below 1024 places, exactly those that are used are reserved.
func TestFewPlacesAreExact(t *testing.T) {
	const common = 1000
	var shared Count
	var a, b Places
	for range 600 {
		a.grab(2000, common, &shared)
	}
	for range 400 {
		b.grab(2000, common, &shared)
	}
	if over := b.grab(2000, common, &shared); over != OverShared {
		t.Errorf("one more: %d", over)
	}
	a.let(common, &shared)
	if over := b.grab(2000, common, &shared); over != Within {
		t.Errorf("a place that is free again: %d", over)
	}
	if over := b.grab(b.Used(), common, &shared); over != OverOwn {
		t.Errorf("its own limit: %d", over)
	}
}

// A connection that uses places obeys a limit that comes, or gets lower, and its places count.
func TestPlacesWithALowerLimit(t *testing.T) {
	for name, before := range map[string]int{"none before": 0, "a higher one before": 10_000} {
		t.Run(name, func(t *testing.T) {
			var shared Count
			var p, other Places
			for range 10 {
				p.grab(100, before, &shared)
			}
			p.Renew()
			other.Renew()
			if over := p.grab(100, 10, &shared); over != OverShared || p.Used() != 10 {
				t.Errorf("%d, %d places are used", over, p.Used())
			}
			p.let(10, &shared)
			if over := p.grab(100, 10, &shared); over != Within {
				t.Errorf("a place that is free again: %d", over)
			}
			for range 5 {
				p.let(5, &shared)
			}
			if over := p.grab(100, 5, &shared); over != OverShared {
				t.Errorf("one more than a lower limit: %d", over)
			}
			for p.Used() > 0 {
				p.let(5, &shared)
			}
			if over := other.grab(100, 5, &shared); over != Within {
				t.Errorf("another connection: %d", over)
			}
		})
	}
}

// A connection that used places without a limit obeys a new one once it has been idle.
func TestPlacesWithANewLimit(t *testing.T) {
	var shared Count
	var p Places
	p.grab(100, 0, &shared)
	p.let(2, &shared)
	for i, want := range []Over{Within, Within, OverShared} {
		if over := p.grab(100, 2, &shared); over != want {
			t.Errorf("place %d of 2: %d, want %d", i+1, over, want)
		}
	}
	if over := p.Reserve(100, 0, &shared); over != Within || shared.n.Load() != 0 {
		t.Errorf("the limit is gone, and %d places are still counted: %d", shared.n.Load(), over)
	}
}

func TestPlacesAllocateNothing(t *testing.T) {
	var shared Count
	var p Places
	if n := testing.AllocsPerRun(100, func() {
		p.grab(10, 10, &shared)
		p.let(10, &shared)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
