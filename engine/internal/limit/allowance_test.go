package limit

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// Goroutines let queues grow and shrink at random. Beyond what is free, all together never hold
// more than they share, and in the end nothing is reserved.
func TestAllowancesAreShared(t *testing.T) {
	for _, common := range []int{1, stepBytes - 1, 3 * stepBytes, 10*stepBytes + 7} {
		var shared Count
		var used atomic.Int64
		var wg sync.WaitGroup
		for seed := range uint64(8) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 4))
				var a Allowance
				beyond, waits := 0, 0
				for range 2000 {
					if n := waits + rnd.IntN(2*stepBytes); a.Allows(n) || a.Reserve(n, common, &shared) {
						waits = n
					}
					more := max(0, waits-FreeBytes) - beyond
					if beyond += more; used.Add(int64(more)) > int64(common) {
						t.Errorf("%d bytes wait, %d may", used.Load(), common)
						return
					}
					waits -= rnd.IntN(waits + 1)
					less := beyond - max(0, waits-FreeBytes)
					beyond -= less
					used.Add(int64(-less))
					a.Trim(waits, common, &shared)
				}
				used.Add(int64(-beyond))
				a.Close(&shared)
			})
		}
		if wg.Wait(); shared.n.Load() != 0 {
			t.Errorf("of %d bytes, %d are lost", common, shared.n.Load())
		}
	}
}

// The last bytes can be used although they are less than a step, and one more cannot.
func TestAllowanceIsExact(t *testing.T) {
	const common = 2*stepBytes + 10
	var shared Count
	var a, b Allowance
	if !a.Reserve(FreeBytes+common, common, &shared) || a.Reserve(FreeBytes+common+1, common, &shared) {
		t.Error("one connection cannot use exactly what there is")
	}
	if !b.Reserve(FreeBytes, common, &shared) || b.Reserve(FreeBytes+1, common, &shared) {
		t.Error("another one has more or less than what is free")
	}
	if a.Trim(FreeBytes+1, common, &shared); !b.Reserve(FreeBytes+stepBytes, common, &shared) {
		t.Error("what one has given back is lost")
	}
}

// A limit that comes, gets lower or goes holds for what waits by then.
func TestAllowanceWithANewLimit(t *testing.T) {
	var shared Count
	var a Allowance
	if !a.Reserve(1<<30, 0, &shared) {
		t.Error("there is a limit")
	}
	a.Trim(0, 0, &shared)
	if a.Trims() || a.Allows(FreeBytes+1) || !a.Allows(FreeBytes) {
		t.Error("an idle connection would not notice a limit")
	}
	if !a.Reserve(FreeBytes+4*stepBytes, 4*stepBytes, &shared) {
		t.Error("there is no room")
	}
	if a.Reserve(FreeBytes+4*stepBytes+1, stepBytes, &shared) || a.Allows(FreeBytes+stepBytes+1) {
		t.Error("the lower limit does not hold")
	}
	if !a.Reserve(1<<30, 0, &shared) || shared.n.Load() != 0 {
		t.Errorf("the limit is gone, and %d bytes are still reserved", shared.n.Load())
	}
}

func TestAllowanceAllocatesNothing(t *testing.T) {
	var shared Count
	var a Allowance
	if n := testing.AllocsPerRun(100, func() {
		a.Reserve(FreeBytes+stepBytes, 10*stepBytes, &shared)
		a.Trim(0, 10*stepBytes, &shared)
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
