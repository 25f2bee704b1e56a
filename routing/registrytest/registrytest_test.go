package registrytest

import (
	"context"
	"slices"
	"testing"
	"time"

	"distmsg/routing"
)

// faults are the ways in which the naive registry can be bad, and the cases that
// must see it, at least.
var faults = map[fault][]string{
	unbindsAnyone:         {"unbind", "batches", "histories", "moves at once"},
	unbindsAnyEpoch:       {"unbind", "histories"},
	replacesAnyone:        {"duplicate login", "race for a free ID", "race to replace", "histories", "moves at once"},
	comparesSessionOnly:   {"duplicate login", "histories"},
	reassertAlwaysWins:    {"re-assert", "histories", "moves at once"},
	reassertTieWins:       {"re-assert"},
	reassertMints:         {"re-assert", "histories", "moves at once"},
	mintsFromClockOnly:    {"mint", "histories", "moves at once"},
	forgetsEpochs:         {"epochs outlive bindings", "histories"},
	believesAnyEpoch:      {"impossible epochs"},
	believesWhoeverComes:  {"impossible epochs"},
	believesClients:       {"word of a client"},
	believesItsClock:      {"wrong clock"},
	hidesIncumbent:        {"duplicate login", "re-assert", "histories"},
	attachesOlder:         {"presence"},
	detachesNewer:         {"presence"},
	mergesIncarnations:    {"presence"},
	endsAttached:          {"end of session", "end against attach", "histories"},
	endsOverNewerAttach:   {"end against attach"},
	ignoresGone:           {"end of session", "histories"},
	revivesByAttach:       {"dead sessions"},
	revivesByBind:         {"dead sessions", "histories"},
	sweepsByID:            {"bindings of the dead", "histories", "moves at once"},
	bindsWithoutLock:      {"race to replace", "moves at once"},
	answersWithoutContext: {"unavailable"},
	hidesTheContext:       {"unavailable"},
	answersAfterClose:     {"unavailable"},
	mixesSessionsUp:       {"presence of many"},
}

// TestNaive runs the suite on a registry that has nothing in common with any other, so
// that the suite is the contract and not a picture of one implementation.
func TestNaive(t *testing.T) {
	Run(t, 1000, func(t *testing.T, clock func() time.Time) routing.Registry {
		return newNaive(clock, none)
	})
}

// TestKnownBad proves that the suite can fail.
func TestKnownBad(t *testing.T) {
	for f, names := range faults {
		for _, name := range names {
			t.Run(string(f)+"/"+name, func(t *testing.T) {
				clock := newClock()
				s := newSuite(t, newNaive(clock.Now, f), clock)
				if err := caseNamed(t, name).check(s); err == nil {
					t.Error("the suite did not notice")
				}
			})
		}
	}
}

func caseNamed(t *testing.T, name string) testCase {
	t.Helper()
	all := cases(1000)
	i := slices.IndexFunc(all, func(c testCase) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("no case named %q", name)
	}
	return all[i]
}

// TestHistoriesArePlayed counts, from outside, that there are as many as were asked for, and what
// they consist of.
func TestHistoriesArePlayed(t *testing.T) {
	const n = 1000
	clock := newClock()
	r := &counting{Registry: newNaive(clock.Now, none), minted: make(map[string]int)}
	if err := checkHistories(newSuite(t, r, clock), n); err != nil {
		t.Fatal(err)
	}
	moved := 0
	for _, mints := range r.minted {
		if mints > 1 {
			moved++
		}
	}
	if len(r.minted) != n || moved < n/2 || r.reasserts < n || r.unbinds < n {
		t.Errorf("%d IDs, %d of them bound more than once; %d re-asserts, %d unbinds; want %d histories",
			len(r.minted), moved, r.reasserts, r.unbinds, n)
	}
}

// counting counts calls for one ID. One goroutine uses it.
type counting struct {
	routing.Registry
	minted             map[string]int // by ID
	reasserts, unbinds int
}

func (c *counting) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	results, err := c.Registry.Bind(ctx, ops)
	for i, result := range results {
		switch {
		case ops[i].Epoch != 0:
			c.reasserts++
		case result.Status == routing.Bound:
			c.minted[ops[i].ID]++
		}
	}
	return results, err
}

func (c *counting) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	c.unbinds += len(ops)
	return c.Registry.Unbind(ctx, ops)
}
