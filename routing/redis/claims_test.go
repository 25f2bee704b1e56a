package redis

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// shown collects what a registry shows.
type shown struct {
	mu    sync.Mutex
	calls int // guarded by mu, as all below
	// how often it was said where a session is
	at    map[routing.SessionID]int
	last  map[routing.SessionID][]routing.Presence        // and where
	bound map[routing.SessionID]map[string]map[uint64]int // how often a binding was shown
}

// show collects what r shows until the test ends.
func show(t *testing.T, r *Registry) *shown {
	s := &shown{at: make(map[routing.SessionID]int), last: make(map[routing.SessionID][]routing.Presence),
		bound: make(map[routing.SessionID]map[string]map[uint64]int)}
	ctx, cancel := context.WithCancel(context.Background())
	var showing sync.WaitGroup
	showing.Go(func() { r.Claims(ctx, s.take) })
	t.Cleanup(func() {
		cancel()
		showing.Wait()
	})
	return s
}

func (s *shown) take(all []routing.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	for _, c := range all {
		if len(c.Bound) == 0 {
			s.at[c.Session]++
			s.last[c.Session] = c.At
		}
		for _, b := range c.Bound {
			if s.bound[c.Session] == nil {
				s.bound[c.Session] = make(map[string]map[uint64]int)
			}
			if s.bound[c.Session][b.ID] == nil {
				s.bound[c.Session][b.ID] = make(map[uint64]int)
			}
			s.bound[c.Session][b.ID][b.Epoch]++
		}
	}
}

// times is how often a binding was shown, and where its session is.
func (s *shown) times(session routing.SessionID, b routing.BoundID) (times, at int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bound[session][b.ID][b.Epoch], s.at[session]
}

// All bindings of sessions that are attached are shown, with where these are, once in each
// VerifyPeriod, to one of those that share the registry.
func TestClaims(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.VerifyPeriod = 500 * time.Millisecond
	r, other := open(t, config), open(t, config)
	session := routing.NewSessionID()
	for _, p := range []routing.Presence{here, {Node: "n2", Incarnation: 2, Serial: 3}} {
		if err := r.Attach(t.Context(), session, p); err != nil {
			t.Fatal(err)
		}
	}
	bound := bindAll(t, r, session, "anna", "bert", strings.Repeat("long", 30))
	all := []*shown{show(t, r), show(t, other)}
	for range 2 { // the second time after a period
		eventually(t, "all are shown", func(context.Context) bool {
			return !slices.ContainsFunc(bound, func(b routing.BoundID) bool {
				mine, at := all[0].times(session, b)
				others, atOther := all[1].times(session, b)
				return mine+others == 0 || at+atOther == 0
			})
		})
		for _, s := range all {
			s.mu.Lock()
			if at := s.last[session]; s.at[session] > 0 && len(at) != 2 {
				t.Errorf("it is said to be at %v", at)
			}
			clear(s.at)
			clear(s.bound)
			s.mu.Unlock()
		}
	}
	for _, s := range all {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	if all[0].calls > 0 && all[1].calls > 0 {
		t.Errorf("shown to both: %d and %d times", all[0].calls, all[1].calls)
	}
}

// Until the period is over nothing is shown again, but sessions that are attached nowhere. After a
// loss all is, at once.
func TestClaimsPeriod(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{Persist: true})
	config := testConfig(server.URL())
	config.VerifyPeriod, config.ResumeWindow = time.Hour, time.Hour
	r := open(t, config)
	session, absent := routing.NewSessionID(), routing.NewSessionID()
	if err := r.Attach(t.Context(), session, here); err != nil {
		t.Fatal(err)
	}
	bound := bindAll(t, r, session, "anna")[0]
	bindAll(t, r, absent, "absent")
	s := show(t, r)
	for times := range 2 {
		s.mu.Lock()
		clear(s.at)
		s.mu.Unlock()
		if times > 0 {
			if err := restart(t.Context(), server); err != nil {
				t.Fatal(err)
			}
			waitForLoss(t, r)
		}
		eventually(t, "it is shown, and the absent one again and again", func(context.Context) bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.bound[session]["anna"][bound.Epoch] >= times+1 && s.at[absent] >= 5
		})
		s.mu.Lock()
		if n := s.bound[session]["anna"][bound.Epoch]; n != times+1 || len(s.bound[absent]) > 0 || len(s.last[absent]) > 0 {
			t.Errorf("anna was shown %d times, want %d; absent: %v, %v", n, times+1, s.bound[absent], s.last[absent])
		}
		s.mu.Unlock()
	}
}
