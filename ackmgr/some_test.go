package ackmgr

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// In steps of any size, entries end as they do all at once: the same ones, in the same order, each
// at the same moment of the clock. A step never ends nor moves more than it was told to.
func TestSomeAtATime(t *testing.T) {
	for _, step := range []int{1, 2, 7, 100, 1 << 20} {
		rng := rand.New(rand.NewPCG(uint64(step), 0))
		whole, some := New(Config{}, 0), New(Config{}, 0)
		var want, got []Token
		for now, gap := int64(0), int64(1); now < 1<<26; now, gap = now+gap, rng.Int64N(1<<(1+rng.IntN(24))) {
			for range rng.IntN(40) {
				deadline := now + rng.Int64N(1<<(1+rng.IntN(25)))
				if a, b := mustArm(t, whole, deadline, 0, 0), mustArm(t, some, deadline, 0, 0); a != b {
					t.Fatalf("tokens %#x and %#x", a, b)
				}
			}
			whole.Advance(now, func(tok Token, _ Entry) { want = append(want, tok) })
			for more := true; more; {
				before := len(got)
				more = some.AdvanceSome(now, step, func(tok Token, _ Entry) { got = append(got, tok) })
				if n := len(got) - before; n > step {
					t.Fatalf("%d ended in a step of %d", n, step)
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("steps of %d, at %d: %d ended, want %d, or in another order", step, now, len(got), len(want))
			}
		}
		if len(want) < 100 {
			t.Errorf("only %d have ended", len(want))
		}
	}
}

// A bucket that moves down in steps keeps its order with what is added meanwhile, and what is added
// to its place on the circle waits for the next turn.
func TestAddedInTheMiddleOfACascade(t *testing.T) {
	const span = 1 << (2 * levelBits) // a bucket of level 2
	m := New(Config{}, 0)
	var want, got []Token
	for range 10 {
		want = append(want, mustArm(t, m, 2*span+5, 0, 0))
	}
	expired := func(tok Token, _ Entry) { got = append(got, tok) }
	if !m.AdvanceSome(2*span, 3, expired) {
		t.Fatal("10 have moved in a step of 3")
	}
	want = append(want, mustArm(t, m, 2*span+5, 0, 0))
	late := mustArm(t, m, 2*span+buckets*span, 0, 0)
	steps := 0
	for m.AdvanceSome(2*span+5, 3, expired) {
		steps++
	}
	if !slices.Equal(got, want) || steps < len(want)/3 {
		t.Errorf("%d ended in %d steps, want %d, as they were armed", len(got), steps, len(want))
	}
	m.Advance(2*span+buckets*span-1, expired)
	if _, status := m.Lookup(late); status != Pending {
		t.Errorf("what was armed in the middle for a turn later has ended too early")
	}
	m.Advance(2*span+buckets*span, expired)
	if m.Len() != 0 {
		t.Errorf("%d are pending", m.Len())
	}
}

// A list ends in steps, too. What has ended otherwise in between is not reported.
func TestListsEndInSteps(t *testing.T) {
	m := New(Config{}, 0)
	dest, origin := m.NewList(), m.NewList()
	var all []Token
	for range 10 {
		all = append(all, mustArm(t, m, 1000, dest, origin))
	}
	var got []Token
	ended := func(tok Token, _ Entry) { got = append(got, tok) }
	if !m.EndDestSome(dest, 4, ended) || len(got) != 4 {
		t.Fatalf("%d ended in a step of 4", len(got))
	}
	m.End(all[4])
	if !m.EndOriginSome(origin, 2, ended) || m.EndDestSome(dest, 3, ended) || m.EndOriginSome(origin, 1, ended) {
		t.Errorf("%d ended; after the last, more are reported", len(got))
	}
	if want := slices.Delete(slices.Clone(all), 4, 5); !slices.Equal(got, want) || m.Len() != 0 {
		t.Errorf("%#x ended, want %#x", got, want)
	}
	m.FreeList(dest)
	m.FreeList(origin)
	wantPanic(t, "EndDestSome of a freed list", func() { m.EndDestSome(dest, 1, ended) })
}
