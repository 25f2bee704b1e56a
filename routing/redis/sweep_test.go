package redis

import (
	"context"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/internal/proc"
	"distmsg/routing"
)

func isFree(r *Registry, ids ...string) func(context.Context) bool {
	return func(context.Context) bool {
		for _, id := range ids {
			if result, err := lookup(r, id); err != nil || result != (routing.LookupResult{}) {
				return false
			}
		}
		return true
	}
}

// The sweep ends who is attached nowhere, or only at nodes that are gone, and removes what they
// held: short IDs and long ones. Who is attached stays.
func TestSweep(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.ResumeWindow, config.Timeout = 100*time.Millisecond, time.Second
	config.Gone = func(p routing.Presence) bool { return p.Node == "gone" }
	r := open(t, config)

	gone := routing.Presence{Node: "gone", Incarnation: 1, Serial: 1}
	long := strings.Repeat("long", 30)
	absent, orphan, alive := routing.NewSessionID(), routing.NewSessionID(), routing.NewSessionID()
	for session, p := range map[routing.SessionID][]routing.Presence{orphan: {gone}, alive: {gone, here}} {
		for _, p := range p {
			if err := r.Attach(t.Context(), session, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	bindAll(t, r, alive, "alive", long+"alive")
	bindAll(t, r, absent, "absent", long+"absent")
	bindAll(t, r, orphan, "orphan", long+"orphan")
	eventually(t, "the bindings are gone", isFree(r, "absent", long+"absent", "orphan", long+"orphan"))
	for _, id := range []string{"alive", long + "alive"} {
		if result, err := lookup(r, id); err != nil || result.Binding.Session != alive {
			t.Errorf("%s: %+v, %v", id, result, err)
		}
	}
	for session, dead := range map[routing.SessionID]bool{absent: true, orphan: true, alive: false} {
		if p, err := r.Presence(t.Context(), session); err != nil || p.Dead != dead {
			t.Errorf("presence: %+v, %v; want dead: %v", p, err, dead)
		}
	}
}

// What the caller of EndSession names is removed without a walk.
func TestNamedBindingsGoSoon(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.SweepInterval = time.Hour
	r := open(t, config)
	session := routing.NewSessionID()
	ids := manyIDs(2500)
	bound := bindAll(t, r, session, ids...)
	if ended, err := r.EndSession(t.Context(), routing.EndOp{Session: session, Bound: bound}); err != nil || !ended {
		t.Fatal(ended, err)
	}
	eventually(t, "the bindings are gone", isFree(r, ids...))
}

func viewOf(r *Registry) *view {
	v, _ := r.losses.snapshot()
	return v
}

func bucketOf(r *Registry, id string) bucket { return r.keys.bucketOf(viewOf(r).key, id) }

// One of several registries sweeps at a time.
func TestOneSweeps(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.SweepInterval = time.Hour
	a, b := open(t, config), open(t, config)
	first, err1 := a.sweep.lease(t.Context())
	again, err2 := a.sweep.lease(t.Context())
	other, err3 := b.sweep.lease(t.Context())
	if !first || !again || other || err1 != nil || err2 != nil || err3 != nil {
		t.Errorf("leases: %v %v %v; %v %v %v", first, again, other, err1, err2, err3)
	}
}

// What the walk finds it does not remove at once: the bind of a dead session may be about to be
// taken back, and what it has replaced would be lost.
func TestSweepWaits(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	config.Timeout = time.Hour
	r := open(t, config)
	session := routing.NewSessionID()
	bindAll(t, r, session, "anna")
	if ended, err := r.EndSession(t.Context(), routing.EndOp{Session: session, Force: true}); err != nil || !ended {
		t.Fatal(ended, err)
	}
	for range 2 * 2 * config.Buckets / sweepBuckets { // two walks
		if err := r.sweep.walk(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if result, err := lookup(r, "anna"); err != nil || result.Binding.Session != session {
		t.Errorf("lookup: %+v, %v; want the binding still", result, err)
	}
	if n := r.sweep.condemned.count; n != 2 {
		t.Errorf("%d times condemned, want 2", n)
	}
}

// A dead session that binds on loses nobody an ID: what it replaced is put back.
func TestDeadReplacesNobody(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.SweepInterval = time.Hour
	r, elsewhere := open(t, config), open(t, config)
	alive, dead := routing.NewSessionID(), routing.NewSessionID()
	bound := bindAll(t, r, alive, "anna")
	held := routing.Binding{Session: alive, Epoch: bound[0].Epoch}
	if ended, err := elsewhere.EndSession(t.Context(), routing.EndOp{Session: dead, Force: true}); err != nil || !ended {
		t.Fatal(ended, err)
	}
	ops := []routing.BindOp{
		{ID: "anna", Session: dead, Expect: held},
		{ID: "anna", Session: dead, Epoch: held.Epoch + 1},
		{ID: "bert", Session: dead},
		{ID: "carl", Session: alive},
	}
	results, err := r.Bind(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []routing.BindStatus{routing.Dead, routing.Dead, routing.Dead, routing.Bound} {
		if results[i].Status != want {
			t.Errorf("%+v: %+v, want %s", ops[i], results[i], want)
		}
	}
	if result, err := lookup(r, "anna"); err != nil || result.Binding != held {
		t.Errorf("anna: %+v, %v; want %+v", result, err, held)
	}
	if !isFree(r, "bert")(t.Context()) {
		t.Error("bert is bound")
	}
}

// A removal may meet the binding of a dead session just before that is taken back. Whoever held the
// ID before keeps it all the same.
func TestRemovalMeetsDeadBind(t *testing.T) {
	t.Parallel()
	r := open(t, testConfig(startRedis(t, proc.RedisOptions{}).URL()))
	ctx := t.Context()
	alive, dead := routing.NewSessionID(), routing.NewSessionID()
	bound, err := r.Bind(ctx, []routing.BindOp{{ID: "x", Session: alive}})
	if err != nil {
		t.Fatal(err)
	}
	held := routing.Binding{Session: alive, Epoch: bound[0].Epoch}
	// The dead session's re-assert has replaced the binding, and a removal has taken out what it
	// left in its place.
	if _, err := r.swap(ctx, []swap{{bucket: bucketOf(r, "x"), id: "x", binding: held}}); err != nil {
		t.Fatal(err)
	}
	isDead := goredis.NewBoolCmd(ctx)
	isDead.SetVal(true)
	ops := []routing.BindOp{{ID: "x", Session: dead, Epoch: held.Epoch + 1}}
	results := []routing.BindResult{{Status: routing.Bound, Epoch: held.Epoch + 1, Incumbent: held}}
	if err := r.refuseDead(ctx, viewOf(r), ops, results, map[routing.SessionID]*goredis.BoolCmd{dead: isDead}); err != nil {
		t.Fatal(err)
	}
	if found, err := lookup(r, "x"); err != nil || found.Binding != held || results[0].Status != routing.Dead {
		t.Errorf("%+v, %v; %+v", found, err, results[0])
	}
}

// A sweeper that dies while the clock of Redis is set back holds nobody up: Redis would keep its
// lease for as long.
func TestSweepAfterClockStepsBack(t *testing.T) {
	t.Parallel()
	clock, err := proc.NewClock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(clock.Close)
	server := startRedis(t, proc.RedisOptions{Clock: clock})
	config := testConfig(server.URL())
	config.ResumeWindow = 100 * time.Millisecond
	first, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first sweeps", func(ctx context.Context) bool {
		sweeper, err := server.Do(ctx, "GET", "distmsg:sweeper")
		return err == nil && sweeper != ""
	})
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := clock.Set(-48 * time.Hour); err != nil {
		t.Fatal(err)
	}
	r := open(t, config)
	bindAll(t, r, routing.NewSessionID(), "absent")
	eventually(t, "another sweeps", isFree(r, "absent"))
}
