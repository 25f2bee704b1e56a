package routing_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"distmsg/routing"
)

// open opens a session with an ID of its own.
func open(table *routing.Table, identity string) *routing.Session {
	return table.OpenSession(routing.NewSessionID(), identity)
}

// idOf returns the k-th ID, 23 bytes.
func idOf(k int) string { return fmt.Sprintf("user-%018d", k) }

// mustBind binds and wants it done.
func mustBind(t testing.TB, table *routing.Table, id string, s *routing.Session, epoch uint64) (prev routing.Route) {
	t.Helper()
	prev, status := table.Bind(id, s, epoch)
	if status != routing.Bound {
		t.Fatalf("bind of %q with epoch %d: %v", id, epoch, status)
	}
	return prev
}

func TestBindStatus(t *testing.T) {
	table := routing.NewTable()
	alice, bob, carol := open(table, "alice"), open(table, "bob"), open(table, "carol")
	mustBind(t, table, "x", carol, 4)
	for _, step := range []struct {
		what   string
		s      *routing.Session
		epoch  uint64
		status routing.BindStatus
		prev   *routing.Session
	}{
		{"greater, of another", alice, 5, routing.Bound, carol},
		{"the same again", alice, 5, routing.Bound, nil},
		{"its own, older", alice, 4, routing.Superseded, alice},
		{"another's with the same epoch", bob, 5, routing.Superseded, alice},
		{"another's, older", bob, 4, routing.Superseded, alice},
		{"its own, greater", alice, 6, routing.Bound, nil},
		{"another's, greater", bob, 7, routing.Bound, alice},
	} {
		prev, status := table.Bind("x", step.s, step.epoch)
		if status != step.status || prev.Session != step.prev {
			t.Errorf("%s: %v, prev %+v", step.what, status, prev)
		}
	}
	if route, ok := table.Lookup([]byte("x")); !ok || route.Session != bob || route.Epoch != 7 {
		t.Errorf("in the end: %+v, %v", route, ok)
	}
	if alice.Len() != 0 || bob.Len() != 1 || carol.Len() != 0 {
		t.Errorf("bound IDs: %d, %d, %d", alice.Len(), bob.Len(), carol.Len())
	}
}

func TestUnbindIsExact(t *testing.T) {
	table := routing.NewTable()
	alice, bob := open(table, "alice"), open(table, "bob")
	mustBind(t, table, "x", alice, 5)
	if table.Unbind("x", bob, 5) || table.Unbind("x", alice, 4) || table.Unbind("x", alice, 6) || table.Unbind("y", alice, 5) {
		t.Error("removed a binding that was not named")
	}
	if !table.Unbind("x", alice, 5) || table.Unbind("x", alice, 5) {
		t.Error("want it removed once")
	}
	if route, ok := table.Lookup([]byte("x")); ok || route.Session != nil || route.Hash == 0 {
		t.Errorf("lookup of a free ID: %+v, %v; want the hash only", route, ok)
	}
}

func TestEndSession(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	a, b := routing.Handle{Slot: 1}, routing.Handle{Slot: 2}
	first, _ := table.Attach(s, a)
	second, _ := table.Attach(s, b)
	mustBind(t, table, "x", s, 1)
	mustBind(t, table, "y", s, 2)

	if _, ended := table.EndSession(s, second); ended {
		t.Fatal("ended while attached")
	}
	if left, serial, found := table.Detach(s, b); left != 1 || serial != second || !found {
		t.Fatalf("detach: %d left, serial %d, %v", left, serial, found)
	}
	if _, _, found := table.Detach(s, b); found {
		t.Fatal("detached twice")
	}
	left, serial, _ := table.Detach(s, a)
	if left != 0 || serial != second || first >= second {
		t.Fatalf("last detach: %d left, serial %d; attached with %d and %d", left, serial, first, second)
	}
	third, _ := table.Attach(s, a) // it came back, and was lost again
	table.Detach(s, a)
	if _, ended := table.EndSession(s, serial); ended || third <= serial {
		t.Fatalf("an attach in the meantime (serial %d after %d) did not win", third, serial)
	}

	bound, ended := table.EndSession(s, third)
	if want := []routing.BoundID{{ID: "y", Epoch: 2}, {ID: "x", Epoch: 1}}; !ended || !slices.Equal(bound, want) {
		t.Fatalf("end: %v, %v", bound, ended)
	}
	checkEnded(t, table, s)
}

// checkEnded wants nothing left of a session, and nothing to be done with it.
func checkEnded(t *testing.T, table *routing.Table, s *routing.Session) {
	t.Helper()
	if !s.Ended() || table.Session(s.ID()) != nil || slices.Contains(table.Sessions(), s) || s.Len() != 0 || table.Len() != 0 {
		t.Errorf("left: ended %v, %d IDs of %d", s.Ended(), s.Len(), table.Len())
	}
	if _, ok := s.Pick(1); ok {
		t.Error("still has a connection")
	}
	if _, ok := table.Attach(s, routing.Handle{}); ok {
		t.Error("attached after its end")
	}
	if _, status := table.Bind("x", s, 9); status != routing.Dead {
		t.Errorf("bound after its end: %v", status)
	}
	if bound, ended := table.ForceEndSession(s); ended || bound != nil {
		t.Error("ended twice")
	}
}

func TestForceEndSession(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	table.Attach(s, routing.Handle{})
	mustBind(t, table, "x", s, 1)
	if bound, ended := table.ForceEndSession(s); !ended || len(bound) != 1 {
		t.Fatalf("end: %v, %v", bound, ended)
	}
	checkEnded(t, table, s)
}

// A session that comes back under its old ID is another one: what still holds the old
// pointer does it no harm.
func TestReopenedSession(t *testing.T) {
	table := routing.NewTable()
	id := routing.NewSessionID()
	old := table.OpenSession(id, "alice")
	if again := table.OpenSession(id, "mallory"); again != old || again.Identity() != "alice" {
		t.Errorf("opened twice: %p, %p, identity %q", old, again, again.Identity())
	}
	mustBind(t, table, "x", old, 5)
	table.ForceEndSession(old)
	reborn := table.OpenSession(id, "alice")
	if reborn == old || reborn.ID() != id || reborn.Short() != id.Short() {
		t.Fatal("want a new session with the same ID")
	}
	if prev := mustBind(t, table, "x", reborn, 5); prev.Session != nil {
		t.Errorf("displaced itself: %+v", prev)
	}
	table.ForceEndSession(old)
	if table.Unbind("x", old, 5) || table.Session(id) != reborn {
		t.Error("the old pointer touched the new session")
	}
	if _, status := table.Bind("x", old, 9); status != routing.Dead {
		t.Errorf("the old pointer was bound: %v", status)
	}
}

// IDs of all lengths are themselves, whatever room their entries have.
func TestIDsOfAllLengths(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	want := make(map[string]uint64)
	for n := range 256 {
		for _, c := range []string{"a", "\x00"} {
			id := strings.Repeat(c, n)
			want[id] = uint64(n + 1)
			mustBind(t, table, id, s, uint64(n+1))
		}
	}
	for id, epoch := range want {
		if route, ok := table.Lookup([]byte(id)); !ok || route.Epoch != epoch {
			t.Errorf("ID of %d bytes: %+v, %v", len(id), route, ok)
		}
	}
	seen := make(map[string]uint64)
	for id, route := range table.All() {
		seen[id] = route.Epoch
	}
	for _, b := range s.Bound() {
		if seen[b.ID] != b.Epoch || want[b.ID] != b.Epoch {
			t.Errorf("ID %q: listed with epoch %d, walked with %d, bound with %d", b.ID, b.Epoch, seen[b.ID], want[b.ID])
		}
	}
	if len(seen) != len(want) || s.Len() != len(want) || table.Len() != len(want) {
		t.Errorf("%d IDs: walked %d, session has %d, table has %d", len(want), len(seen), s.Len(), table.Len())
	}
}

// All may be left early, and the table changed on the way.
func TestAllHoldsNoLock(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	for k := range 100 {
		mustBind(t, table, idOf(k), s, 1)
	}
	for id, route := range table.All() {
		table.Unbind(id, route.Session, route.Epoch)
		if table.Len() == 50 {
			break
		}
	}
	if n := table.Len(); n != 50 {
		t.Errorf("%d left", n)
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	table.Attach(s, routing.Handle{Slot: 1})
	table.Attach(s, routing.Handle{Slot: 2})
	for _, length := range []int{23, 39, 40, 255} {
		id := []byte(strings.Repeat("x", length))
		mustBind(t, table, string(id), s, 1)
		missing := []byte(strings.Repeat("y", length))
		if n := testing.AllocsPerRun(1000, func() {
			route, ok := table.Lookup(id)
			if _, picked := route.Session.Pick(route.Hash); !ok || !picked {
				t.Fatal("not found")
			}
			if _, ok := table.Lookup(missing); ok {
				t.Fatal("found")
			}
		}); n != 0 {
			t.Errorf("IDs of %d bytes: %v allocations", length, n)
		}
	}
}

// Bytes for each bound ID, everything in.
func TestMemoryPerID(t *testing.T) {
	if routing.RaceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const ids = 200_000
	ctx := t.Context()
	table, registry := routing.NewTable(), routing.NewMemory(routing.MemoryConfig{})
	s := open(table, "alice")
	for _, c := range []struct {
		name   string
		budget uint64
		bind   func(id string)
	}{
		{"table", 90, func(id string) { table.Bind(id, s, 1) }},
		{"memory registry", 90, func(id string) {
			registry.Bind(ctx, []routing.BindOp{{ID: id, Session: s.ID()}})
		}},
	} {
		before := heap()
		for k := range ids {
			c.bind(idOf(k))
		}
		perID := (heap() - before) / ids
		t.Logf("%s: %d bytes for each bound ID of 23 bytes", c.name, perID)
		if perID > c.budget {
			t.Errorf("%s: %d bytes for each ID, want at most %d", c.name, perID, c.budget)
		}
	}
	runtime.KeepAlive(table)
	runtime.KeepAlive(registry)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestReadersAgainstWriters lets readers look for IDs that stand, while writers bind, move
// and unbind others in the same shards, make the shards grow, and end sessions. A
// standing ID must be found each time, and no lookup may yield what was never bound.
func TestReadersAgainstWriters(t *testing.T) {
	const standing = 200
	churn := 60_000
	if routing.RaceEnabled {
		churn = 10_000
	}
	table := routing.NewTable()
	holder := open(table, "holder")
	for k := range standing {
		mustBind(t, table, idOf(k), holder, 1)
	}
	var stop atomic.Bool
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for k := 0; !stop.Load(); k = (k + 1) % standing {
				route, ok := table.Lookup([]byte(idOf(k)))
				if !ok || route.Session != holder {
					t.Errorf("standing ID %d: %+v, %v", k, route, ok)
					return
				}
			}
		})
	}
	readers.Go(func() { // what comes and goes: its epoch tells whose it is
		for k := 0; !stop.Load(); k = (k + 1) % churn {
			route, ok := table.Lookup([]byte(idOf(standing + k)))
			if ok && route.Session.Identity() != fmt.Sprint(route.Epoch%2) {
				t.Errorf("ID %d: epoch %d of %q", k, route.Epoch, route.Session.Identity())
				return
			}
		}
	})
	for w := range 2 {
		writers.Go(func() { churnIDs(table, w, standing, churn) })
	}
	writers.Wait()
	stop.Store(true)
	readers.Wait()
	if n := table.Len(); n != standing || holder.Len() != standing || len(table.Sessions()) != 1 {
		t.Errorf("left: %d IDs, %d sessions", n, len(table.Sessions()))
	}
}

// churnIDs binds n IDs that another goroutine binds too, takes some back, and ends the
// session that holds the rest, all with epochs of its own parity.
func churnIDs(table *routing.Table, parity, first, n int) {
	identity := fmt.Sprint(parity)
	s := open(table, identity)
	for k := range n {
		id := idOf(first + k)
		epoch := uint64(2*k + parity)
		table.Bind(id, s, epoch)
		switch k % 10 {
		case 3:
			table.Unbind(id, s, epoch)
		case 7:
			table.Bind(id, s, epoch+2)
		}
		if k%(n/4) == n/8 {
			table.ForceEndSession(s)
			s = open(table, identity)
		}
	}
	table.ForceEndSession(s)
}

// TestEndAgainstBind ends a session while IDs are bound for it, anew and with later epochs:
// whatever comes first, nothing of it stays.
func TestEndAgainstBind(t *testing.T) {
	const ids = 1000
	table := routing.NewTable()
	for range 100 {
		s := open(table, "alice")
		for k := range ids / 2 {
			mustBind(t, table, idOf(k), s, 1)
		}
		var wg sync.WaitGroup
		var begun atomic.Bool
		wg.Go(func() {
			for epoch := uint64(2); !s.Ended(); epoch++ {
				for k := range ids {
					table.Bind(idOf(k), s, epoch)
					begun.Store(true)
				}
			}
		})
		for !begun.Load() {
			runtime.Gosched()
		}
		table.ForceEndSession(s)
		wg.Wait()
		if n := table.Len() + s.Len(); n != 0 {
			t.Fatalf("%d bindings outlived their session", n)
		}
	}
}

// TestEndAgainstOpen brings a session back while its predecessor is still being removed.
func TestEndAgainstOpen(t *testing.T) {
	table := routing.NewTable()
	id := routing.NewSessionID()
	for range 1000 {
		old := table.OpenSession(id, "")
		var wg sync.WaitGroup
		wg.Go(func() { table.ForceEndSession(old) })
		reborn := old
		for reborn == old {
			reborn = table.OpenSession(id, "")
		}
		wg.Wait()
		if got := table.Session(id); got != reborn {
			t.Fatalf("found %p, want the one opened last, %p", got, reborn)
		}
	}
}
