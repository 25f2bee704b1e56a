package redis

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/internal/proc"
	"distmsg/internal/usage"
	"distmsg/routing"
)

// manyIDs returns n IDs of 23 bytes.
func manyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("user-%018d", i)
	}
	return ids
}

// trips counts the pipelines that a client makes for calls of a test, each a round trip. At times
// that nobody controls others come beside them: go-redis introduces itself on a new connection, and
// the registry looks after itself for the first time. These name no key of an ID or a session.
type trips struct{ n atomic.Int64 }

// asked are the commands that calls consist of.
var asked = []string{"evalsha", "eval", "hmget", "hgetall", "hexists"}

func (c *trips) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (c *trips) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook { return next }

func (c *trips) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) error {
		if slices.ContainsFunc(cmds, func(cmd goredis.Cmder) bool { return slices.Contains(asked, cmd.Name()) }) {
			c.n.Add(1)
		}
		return next(ctx, cmds)
	}
}

// However many IDs a call names, it is one round trip to each master.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	r := open(t, config)
	session := routing.NewSessionID()
	ids := manyIDs(10_000)
	bindAll(t, r, session, ids[0]) // the server knows the script from here on
	var count trips
	r.client.AddHook(&count)
	expect := func(what string, want int64) {
		t.Helper()
		if got := count.n.Swap(0); got != want {
			t.Errorf("%s: %d round trips, want %d", what, got, want)
		}
	}
	bound := bindAll(t, r, session, ids...)
	expect("10,000 IDs bound in batches of 1000", 10)
	if _, err := r.Lookup(t.Context(), ids); err != nil {
		t.Fatal(err)
	}
	expect("10,000 IDs looked up", 1)
	if err := r.Attach(t.Context(), session, here); err != nil {
		t.Fatal(err)
	}
	expect("attach", 2) // one of them teaches the server the script
	if _, err := r.Presence(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	expect("presence", 1)
	ops := make([]routing.UnbindOp, len(bound))
	for i, b := range bound {
		ops[i] = routing.UnbindOp{ID: b.ID, Session: session, Epoch: b.Epoch}
	}
	if _, err := r.Unbind(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	expect("10,000 IDs unbound", 2) // as above
}

// The same on a Redis Cluster: one round trip to each of its masters.
func TestRoundTripsInCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	r := open(t, quiet(testConfig(servers.URL())))
	session, ids := routing.NewSessionID(), manyIDs(1000)
	bindAll(t, r, session, ids...)
	var count trips
	if err := r.eachMaster(t.Context(), func(_ context.Context, master *goredis.Client) error {
		master.AddHook(&count)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bindAll(t, r, session, ids...)
	if got := count.n.Load(); got != 3 {
		t.Errorf("1000 IDs bound: %d round trips, want 3", got)
	}
}

// quiet keeps a registry from doing anything that it is not asked to.
func quiet(config Config) Config {
	config.CheckInterval, config.SweepInterval = time.Hour, time.Hour
	return config
}

// BenchmarkBind binds as one session does that brings 100,000 IDs: 1000 at a time, one batch after
// the other. Its unit is one ID.
//
//	go test -run '^$' -bench 'Bind$' -benchtime 100000x -count 5 ./routing/redis
func BenchmarkBind(b *testing.B) {
	server := startRedis(b, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Buckets, config.SweepInterval = 0, 0 // the defaults
	r := open(b, config)
	session := routing.NewSessionID()
	ids := manyIDs(b.N)
	bindAll(b, r, session, ids[0])
	b.ReportAllocs()
	b.ResetTimer()
	redis, own := cpuOf(b, server.PID()), cpuOf(b, os.Getpid())
	bindAll(b, r, session, ids...)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "IDs/s")
	b.ReportMetric(float64(cpuOf(b, server.PID())-redis)/float64(b.N), "redis-cpu-ns/op")
	b.ReportMetric(float64(cpuOf(b, os.Getpid())-own)/float64(b.N), "own-cpu-ns/op")
}

// cpuOf returns the CPU time that a process has used.
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	used, err := usage.CPU(pid)
	if err != nil {
		b.Fatal(err)
	}
	return used
}

// BenchmarkMemory prints what a bound ID of 23 bytes costs in Redis, with default buckets. The
// budget is 64 bytes at a million.
//
//	go test -run '^$' -bench Memory -benchtime 1000000x ./routing/redis
func BenchmarkMemory(b *testing.B) {
	server := startRedis(b, proc.RedisOptions{})
	config := quiet(testConfig(server.URL()))
	config.Buckets = 0
	r := open(b, config)
	used := func() float64 {
		text, err := server.Do(b.Context(), "INFO", "memory")
		if err != nil {
			b.Fatal(err)
		}
		n, err := strconv.ParseFloat(parseInfo(text)["used_memory"], 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	session := routing.NewSessionID()
	bindAll(b, r, session, "warm")
	before := used()
	bindAll(b, r, session, manyIDs(b.N)...)
	b.ReportMetric((used()-before)/float64(b.N), "B/ID")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLookup asks for 1000 IDs at a time. Its unit is one ID.
func BenchmarkLookup(b *testing.B) {
	server := startRedis(b, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Buckets, config.SweepInterval = 0, 0
	r := open(b, config)
	ids := manyIDs(100_000)
	bindAll(b, r, routing.NewSessionID(), ids...)
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; {
		for part := range slices.Chunk(ids[:min(left, len(ids))], 1000) {
			if _, err := r.Lookup(b.Context(), part); err != nil {
				b.Fatal(err)
			}
			left -= len(part)
		}
	}
}
