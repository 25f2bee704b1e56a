package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// collide returns IDs that a hash without a key puts into bucket 0 of n, as a client can find them.
func collide(count, n int) (ids []string) {
	for i := 0; len(ids) < count; i++ {
		if id := fmt.Sprint("id", i); xxhash.Sum64String(id)%uint64(n) == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// The buckets are told by a secret key, which the first node makes and the others read: what a
// client finds out offline puts its IDs into no common bucket.
func TestKeyedBuckets(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	r, other := open(t, config), open(t, config)
	ids := collide(640, config.Buckets)
	session := routing.NewSessionID()
	bindAll(t, r, session, ids...)
	most := 0
	for n := range config.Buckets {
		size, err := server.Do(t.Context(), "HLEN", r.keys.bucket(bucket{number: n}))
		if err != nil {
			t.Fatal(err)
		}
		var count int
		fmt.Sscan(size, &count)
		most = max(most, count)
	}
	if most > 100 {
		t.Errorf("%d of %d IDs that were chosen to collide stand in one bucket of %d", most, len(ids), config.Buckets)
	}
	for _, id := range ids[:10] {
		if found, err := lookup(other, id); err != nil || found.Binding.Session != session {
			t.Errorf("%s, asked by another node: %+v, %v", id, found, err)
		}
	}
	// A node that knows of no key must refuse these data: it reads the fourth word as their number.
	var name, created, run string
	var buckets int
	if n, err := fmt.Sscan(viewOf(r).markers[7], &name, &created, &run, &buckets); n != 4 || err != nil || buckets != 0 {
		t.Errorf("marker %q reads as %d buckets, %v", viewOf(r).markers[7], buckets, err)
	}
}

// Data from before there were keys are left where they are, so that nodes of both versions find
// them.
func TestDataWithoutKey(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.SweepInterval = time.Hour
	runs, err := server.Do(t.Context(), "INFO", "server")
	if err != nil {
		t.Fatal(err)
	}
	held := routing.Binding{Session: routing.NewSessionID(), Epoch: 7}
	old := keys{prefix: "distmsg", buckets: config.Buckets}
	for group := range groups {
		marker := fmt.Sprintf("NAME 1 %s %d", parseInfo(runs)["run_id"], config.Buckets)
		if _, err := server.Do(t.Context(), "SET", old.marker(group), marker); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := server.Do(t.Context(), "HSET", old.bucket(old.bucketOf(hashKey{}, "anna")), "anna", string(encodeBinding(held))); err != nil {
		t.Fatal(err)
	}
	r := open(t, config)
	if found, err := lookup(r, "anna"); err != nil || found.Binding != held {
		t.Errorf("%+v, %v", found, err)
	}
	if key := viewOf(r).key; key != (hashKey{}) {
		t.Error("the data have got a key")
	}
	// After a loss these nodes go on as they are. A node that starts on nothing makes a key, and
	// the others follow it.
	if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Do(t.Context(), "SET", r.keys.hash(), "ABCDEFGHIJKLMNOPQRSTUVWXYZ"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it follows", func(context.Context) bool { return viewOf(r).key.text == "ABCDEFGHIJKLMNOPQRSTUVWXYZ" })
	eventually(t, "it serves", func(context.Context) bool { return !r.Rebuilding() })
	bindAll(t, r, held.Session, "anna")
	if found, err := lookup(open(t, config), "anna"); err != nil || found.Binding.Session != held.Session {
		t.Errorf("%+v, %v", found, err)
	}
}

// The key comes back if only it is lost: from nodes that know it, or from the markers.
func TestKeyIsLost(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	r := open(t, config)
	key, session := viewOf(r).key, routing.NewSessionID()
	bindAll(t, r, session, "anna")
	command(t, server, "DEL distmsg:hash")
	if other := open(t, config); viewOf(other).key != key {
		t.Error("another node has made up another key")
	} else if found, err := lookup(other, "anna"); err != nil || found.Binding.Session != session {
		t.Errorf("%+v, %v", found, err)
	}
}

// What stands in a bucket that the key does not name is found by nobody: the sweep removes it.
func TestMisplacedBindingsGo(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Timeout = time.Second
	r := open(t, config)
	session := routing.NewSessionID()
	if err := r.Attach(t.Context(), session, here); err != nil {
		t.Fatal(err)
	}
	bindAll(t, r, session, "anna")
	right := bucketOf(r, "anna")
	wrong := r.keys.bucket(bucket{number: (right.number + 1) % config.Buckets})
	if _, err := server.Do(t.Context(), "HSET", wrong, "anna", string(encodeBinding(routing.Binding{Session: session, Epoch: 1}))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func(ctx context.Context) bool {
		found, err := server.Do(ctx, "HEXISTS", wrong, "anna")
		return err == nil && found == "0"
	})
	if found, err := lookup(r, "anna"); err != nil || found.Binding.Session != session {
		t.Errorf("%+v, %v", found, err)
	}
}

// A bucket with very many IDs is read in parts, each of them bounded, and keeps the walk from no
// other bucket. What dead sessions hold in either goes.
func TestSweepOfLargeBucket(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Timeout, config.ResumeWindow = time.Second, 100*time.Millisecond
	config.Buckets = 1 // both of them take all
	config.SweepInterval = time.Hour
	r := open(t, config)
	const many = 20_000
	ids := manyIDs(many)
	bindAll(t, r, routing.NewSessionID(), ids...)
	long := strings.Repeat("long", 30)
	bindAll(t, r, routing.NewSessionID(), long)
	s := r.sweep
	s.scanner.begin = 0
	reads, found := 0, 0
	for ; !s.scanner.over(); reads++ {
		part, err := r.sweep.scan(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(part) > 3*scanCount {
			t.Fatalf("%d bindings in one round trip", len(part))
		}
		found += len(part)
	}
	if found < many+1 || reads < many/scanCount/3 {
		t.Errorf("%d bindings in %d round trips, want at least %d", found, reads, many+1)
	}
	s.scanner.restart()
	eventually(t, "all is swept", func(ctx context.Context) bool {
		s.retry = backoff{}
		return r.sweep.walk(ctx) == nil && isFree(r, ids[0], ids[many/2], ids[many-1], long)(ctx)
	})
}

// A bucket that cannot be read is left out, logged once, and tried again by later walks. All others
// are swept, and lookups and binds of other IDs in the same batch do not notice.
func TestBucketOfWrongType(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	var log syncBuffer
	config := testConfig(server.URL())
	config.Timeout, config.ResumeWindow = time.Second, 100*time.Millisecond
	config.Logger = slog.New(slog.NewTextHandler(&log, nil))
	r := open(t, config)
	bad := bucketOf(r, "bad")
	var good []string
	for i := 0; len(good) < 100; i++ {
		if id := fmt.Sprint("good", i); bucketOf(r, id) != bad {
			good = append(good, id)
		}
	}
	if _, err := server.Do(t.Context(), "SET", r.keys.bucket(bad), "no hash"); err != nil {
		t.Fatal(err)
	}
	session := routing.NewSessionID()
	ops := []routing.BindOp{{ID: "bad", Session: session}}
	for _, id := range good {
		ops = append(ops, routing.BindOp{ID: id, Session: session})
	}
	bound, err := r.Bind(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	ids := append([]string{"bad"}, good...)
	found, err := r.Lookup(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, id := range ids {
		wantStatus, wantUnknown := routing.Bound, false
		if id == "bad" {
			wantStatus, wantUnknown = routing.Unanswered, true
		}
		if bound[i].Status != wantStatus || found[i].Unknown != wantUnknown || found[i].Binding.Epoch != bound[i].Epoch {
			t.Errorf("%s: %+v, %+v", id, bound[i], found[i])
		}
	}
	if gone, err := r.Unbind(t.Context(), []routing.UnbindOp{{ID: "bad", Session: session}, {ID: good[0], Session: session, Epoch: bound[1].Epoch}}); err != nil ||
		!gone[0].Unanswered || gone[1] != (routing.UnbindResult{Removed: true}) {
		t.Errorf("unbind: %+v, %v", gone, err)
	}
	if _, err := lookup(r, "bad"); !errors.Is(err, routing.ErrUnavailable) {
		t.Errorf("alone: %v", err)
	}
	eventually(t, "the others are swept", isFree(r, good...))
	command(t, server, "DEL "+r.keys.bucket(bad))
	bindAll(t, r, routing.NewSessionID(), "bad")
	eventually(t, "it is swept when it can be read again", isFree(r, "bad"))
	if n := strings.Count(log.String(), "the sweep skips"); n != 1 {
		t.Errorf("%d lines in the log, want 1:\n%s", n, log.String())
	}
}

// A marker that cannot be read makes each lookup suspect a loss, and each check fails. That is no
// reason to check again and again.
func TestMarkerOfWrongType(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	config.CheckInterval = time.Hour
	r := open(t, config)
	marker := r.keys.marker(bucketOf(r, "anna").group())
	// In one step: the registry may be about to write the marker. command makes _ a space.
	command(t, server, "EVAL redis.call('DEL',KEYS[1]);return_redis.call('LPUSH',KEYS[1],'x') 1 "+marker)
	if _, err := server.Do(t.Context(), "CONFIG", "RESETSTAT"); err != nil {
		t.Fatal(err)
	}
	const lookups = 300
	for range lookups {
		if found, err := lookup(r, "anna"); err != nil || !found.Unknown {
			t.Fatalf("lookup: %+v, %v", found, err)
		}
	}
	// Each check asks for INFO, and so does each new connection.
	stats, err := server.Do(t.Context(), "INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	if _, after, ok := strings.Cut(stats, "cmdstat_info:calls="); ok {
		if _, err := fmt.Sscanf(after, "%d", &asked); err != nil {
			t.Fatal(err)
		}
	}
	if asked > lookups/10 {
		t.Errorf("%d lookups led to %d questions for INFO", lookups, asked)
	}
}

// Until this node has found out about a loss, it binds nothing in what was lost, and ends no
// session whose presence may be lost: a holder may live. Then a bind that is to displace nobody has
// to wait.
func TestLossThatNobodyHasNoticed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	config.CheckInterval, config.RebuildWindow = time.Hour, 300*time.Millisecond
	r := open(t, config)
	holder, other := routing.NewSessionID(), routing.NewSessionID()
	if err := r.Attach(t.Context(), holder, here); err != nil {
		t.Fatal(err)
	}
	held := bindAll(t, r, holder, "anna")[0]
	command(t, server, "FLUSHALL")
	ended, err := r.EndSession(t.Context(), routing.EndOp{Session: holder})
	if ended || !errors.Is(err, routing.ErrUnavailable) {
		t.Errorf("end: %v, %v", ended, err)
	}
	sure := []routing.BindOp{{ID: "anna", Session: other, Certain: true}}
	if results, err := r.Bind(t.Context(), sure); err != nil || results[0].Status != routing.Unanswered {
		t.Errorf("reject-new: %+v, %v", results, err)
	}
	// The holder's node says its binding again.
	eventually(t, "the holder has it again", func(ctx context.Context) bool {
		results, err := r.Bind(ctx, []routing.BindOp{{ID: "anna", Session: holder, Epoch: held.Epoch, Known: true}})
		return err == nil && results[0].Status == routing.Bound
	})
	eventually(t, "the window closes", func(context.Context) bool { return !r.Rebuilding() })
	if results, err := r.Bind(t.Context(), sure); err != nil || results[0].Status != routing.Taken {
		t.Errorf("reject-new after that: %+v, %v", results, err)
	}
}

// The very first bind after a loss that nobody has noticed.
func TestBindInWhatWasLost(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	config.CheckInterval = time.Hour
	r := open(t, config)
	bindAll(t, r, routing.NewSessionID(), "anna")
	command(t, server, "FLUSHALL")
	ops := []routing.BindOp{{ID: "anna", Session: routing.NewSessionID(), Certain: true}}
	if results, err := r.Bind(t.Context(), ops); err != nil || results[0].Status != routing.Unanswered {
		t.Errorf("%+v, %v", results, err)
	}
	if keys, err := server.Do(t.Context(), "KEYS", "*:b:*"); err != nil || keys != "" {
		t.Errorf("written all the same: %q, %v", keys, err)
	}
}

// Sessions that come and go leave a bounded number of keys.
func TestEndedAreBounded(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	r := open(t, quiet(testConfig(server.URL())))
	session := routing.NewSessionID()
	end := func(n int) routing.SessionID {
		session[14], session[15] = byte(n>>8), byte(n) // all in one group
		if ended, err := r.EndSession(t.Context(), routing.EndOp{Session: session, Force: true}); err != nil || !ended {
			t.Fatal(ended, err)
		}
		return session
	}
	for n := range endedKept + 100 {
		end(n)
	}
	last, first := end(endedKept+100), end(0)
	for s, want := range map[routing.SessionID]bool{last: true, first: true} {
		if p, err := r.Presence(t.Context(), s); err != nil || p.Dead != want {
			t.Errorf("%v: %+v, %v", s, p, err)
		}
	}
	keys, err := server.Do(t.Context(), "KEYS", "*:s:*")
	if n := strings.Count(keys, ":s:"); err != nil || n != endedKept {
		t.Errorf("%d keys of sessions, %v; want %d", n, err, endedKept)
	}
}

// A removal that Redis does not answer is tried again until it is done.
func TestRemovalIsResumed(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.SweepInterval, config.Timeout = time.Hour, 2*time.Second
	r := open(t, config)
	session := routing.NewSessionID()
	ids := manyIDs(5000)
	bound := bindAll(t, r, session, ids...)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	r.sweep.removals.add(session, bound) // as EndSession does
	eventually(t, "a batch fails", func(context.Context) bool { return r.gate.shut() != nil })
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are gone", isFree(r, ids[0], ids[2500], ids[4999]))
}
