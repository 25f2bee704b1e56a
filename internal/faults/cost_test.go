package faults

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What things cost Redis, by its own count of the commands it has run, with those that scripts run.
// The nodes neither verify bindings nor sweep meanwhile, so that nothing is counted but what is
// looked at.

// books are what Redis says that it has done in a proof's cluster.
type books struct {
	*proof
	writes []string // names of commands
}

// openBooks starts a cluster with books.
func openBooks(t *testing.T, nodes int) *books {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	c, err := Start(ctx, Options{Nodes: nodes, Flags: []string{"--verify-period=10000h"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	b := &books{proof: &proof{T: t, ctx: ctx, c: c}}
	b.writes = strings.Fields(b.redis("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write"))
	b.redis("SET", "distmsg:sweeper", "this-test 0") // and so none of the nodes
	return b
}

// in is the same for a test within the test.
func (b *books) in(t *testing.T) *books {
	return &books{proof: &proof{T: t, ctx: b.ctx, c: b.c}, writes: b.writes}
}

func (b *books) redis(args ...string) string {
	b.Helper()
	reply, err := b.c.Redis.Do(b.ctx, args...)
	b.check(err)
	return reply
}

// calls is how often commands have been called, by their names.
func (b *books) calls() map[string]uint64 {
	b.Helper()
	calls := make(map[string]uint64)
	for lines := bufio.NewScanner(strings.NewReader(b.redis("INFO", "commandstats"))); lines.Scan(); {
		name, stats, found := strings.Cut(strings.TrimPrefix(lines.Text(), "cmdstat_"), ":calls=")
		if !found {
			continue
		}
		number, _, _ := strings.Cut(stats, ",")
		n, err := strconv.ParseUint(number, 10, 64)
		b.check(err)
		calls[name] = n
	}
	return calls
}

// written is calls of the commands that write, without those by which each node finds out every
// second whether Redis takes writes. Only these use SET, when nothing is lost and nobody sweeps,
// and the others once for each.
func (b *books) written() map[string]uint64 {
	b.Helper()
	calls := b.calls()
	probes := calls["set"]
	for _, name := range []string{"set", "del", "hset", "hdel"} {
		calls[name] -= probes
	}
	maps.DeleteFunc(calls, func(name string, _ uint64) bool { return !slices.Contains(b.writes, name) })
	return calls
}

// still waits until nothing is written any more, and returns what was.
func (b *books) still() map[string]uint64 {
	b.Helper()
	const long = 3 * time.Second // a node that has something to say does so every second
	written, since := b.written(), time.Now()
	for time.Since(since) < long {
		if !Pause(b.ctx, pollEvery) {
			b.Fatalf("something is written all the time; until now: %s", counts(written))
		}
		if now := b.written(); !maps.Equal(now, written) {
			written, since = now, time.Now()
		}
	}
	return written
}

// bindings is a digest of who holds what under which epoch.
func (b *books) bindings() string {
	b.Helper()
	return b.redis("EVAL", `local all = {}
		for _, bucket in ipairs(redis.call("KEYS", "distmsg:*:[bl]:*")) do
			local fields = redis.call("HGETALL", bucket)
			for i = 1, #fields, 2 do all[#all + 1] = bucket .. " " .. fields[i] .. " " .. fields[i + 1] end
		end
		table.sort(all)
		return redis.sha1hex(table.concat(all, "\n"))`, "0")
}

// A session that moves costs two writes at most, however many IDs it has: its new node enters
// itself, and its old one, unless that is dead, removes itself. What a dead one has left behind
// counts as absent (S16) and goes when the session ends.
func TestMoveWrites(t *testing.T) {
	besides(t)
	b := openBooks(t, 3)
	sender := b.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	sizes := []int{10_000}
	if *full {
		sizes = []int{10, 10_000}
	}
	for _, n := range sizes {
		t.Run(fmt.Sprintf("drain/%d", n), func(t *testing.T) {
			b := b.in(t)
			b.move(sender, n, func() { b.check(b.c.Nodes[0].Stop()) })
		})
		t.Run(fmt.Sprintf("kill/%d", n), func(t *testing.T) {
			b := b.in(t)
			b.move(sender, n, b.c.Nodes[0].Kill)
		})
	}
}

// move makes a session with n IDs leave the first node, and counts what is written until it can be
// reached at another and all is still again.
func (b *books) move(sender *Users, n int, leave func()) {
	b.Helper()
	const most = 2
	b.check(b.c.WaitLinked(b.ctx))
	b.still() // what nodes say after a link came up is over when there is nothing to say yet
	mover := b.users(0, UsersConfig{Name: b.Name(), Sessions: 1, PerUser: n})
	epochs := mover.epochs()
	before, bindings := b.still(), b.bindings()

	leave()
	b.reach(sender, mover.IDs, time.Now())
	cost := b.still()
	for name := range cost {
		cost[name] -= before[name]
	}
	b.Logf("a session with %d IDs has moved, for these writes: %s", n, counts(cost))
	var sum uint64
	for _, times := range cost {
		sum += times
	}
	if sum == 0 || sum > most {
		b.Errorf("%d writes for a session with %d IDs, want 1 to %d", sum, n, most)
	}
	if b.bindings() != bindings || !slices.Equal(mover.epochs(), epochs) {
		b.Error("bindings are not what they were before")
	}
	if got := mover.Kicks(); got > 0 {
		b.Errorf("%d kicks", got)
	}
	mover.Close()
	b.check(b.c.Nodes[0].Restart(b.ctx))
}

// epochs are those of the IDs of the first session.
func (u *Users) epochs() []uint64 {
	var epochs []uint64
	for _, id := range u.IDs {
		epoch, _ := u.sessions[0].Epoch(id)
		epochs = append(epochs, epoch)
	}
	return epochs
}

// Binding costs a round trip to Redis for each lane of the node that a frame has IDs for. Each asks
// once, in its one pipeline (package redis proves that it is one), whether the session is dead, by
// the only HEXISTS on the way.
func TestBindRoundTrips(t *testing.T) {
	besides(t)
	const (
		n        = 100_000
		perFrame = 1024
		lanes    = 8
		most     = (n + perFrame - 1) / perFrame * lanes
	)
	b := openBooks(t, 1)
	// Redis knows the scripts from here on
	session := b.users(0, UsersConfig{Name: "first", Sessions: 1, PerUser: 1}).sessions[0]
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("user-%018d", i)
	}
	b.still()
	asked := b.calls()["hexists"]
	redis, node := b.cpu()
	began := time.Now()
	b.check(session.Bind(b.ctx, ids...))
	took := time.Since(began)
	trips := b.calls()["hexists"] - asked
	redisAfter, nodeAfter := b.cpu()
	b.Logf("%d IDs in %v: %.0f IDs/s, %d round trips; CPU for each ID: Redis %.1f µs, the node %.1f µs", n, took.Round(time.Millisecond),
		n/took.Seconds(), trips, (redisAfter-redis)/n*1e6, (nodeAfter-node)/n*1e6)
	if trips == 0 || trips > most {
		b.Errorf("%d round trips, want 1 to %d", trips, most)
	}
	if held := b.held("user-"); held != strconv.Itoa(n) {
		b.Errorf("Redis has %s of %d IDs", held, n)
	}
}

// held is how many IDs with that prefix Redis has.
func (b *books) held(prefix string) string {
	b.Helper()
	return b.redis("EVAL", `local n = 0
		for _, bucket in ipairs(redis.call("KEYS", "distmsg:*:[bl]:*")) do
			for _, field in ipairs(redis.call("HKEYS", bucket)) do
				if string.sub(field, 1, #ARGV[1]) == ARGV[1] then n = n + 1 end
			end
		end
		return tostring(n)`, "0", prefix)
}

// cpu is what Redis and the first node have used, in seconds.
func (b *books) cpu() (redis, node float64) {
	b.Helper()
	for line := range strings.Lines(b.redis("INFO", "cpu")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name == "used_cpu_sys" || name == "used_cpu_user" {
			seconds, err := strconv.ParseFloat(value, 64)
			b.check(err)
			redis += seconds
		}
	}
	node, err := b.c.Nodes[0].Metric(b.ctx, "process_cpu_seconds_total")
	b.check(err)
	return redis, node
}
