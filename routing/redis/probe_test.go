package redis

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// A Redis that takes no writes answers lookups as ever. The probe says that it takes none, every
// time, and why; and that it does again when it does.
func TestProbeWrites(t *testing.T) {
	for _, c := range []struct {
		name     string
		do, undo []string // commands
		want     string
	}{
		{"memory full", []string{"CONFIG SET maxmemory 1"}, []string{"CONFIG SET maxmemory 0"}, "raise maxmemory"},
		{"too few replicas", []string{"CONFIG SET min-replicas-to-write 1"}, []string{"CONFIG SET min-replicas-to-write 0"}, "too few replicas"},
		{"a replica now", []string{"CONFIG SET replica-serve-stale-data yes", "REPLICAOF 127.0.0.1 1"}, []string{"REPLICAOF NO ONE"}, "name its master"},
		{"it cannot save", []string{"CONFIG SET save 3600_1", "SET other:key 1", "BGSAVE"}, []string{"CONFIG SET stop-writes-on-bgsave-error no"}, "see its log"},
		{"the user may no longer bind", []string{"ACL SETUSER relay -hset"}, []string{"ACL SETUSER relay +hset"}, "lacks a permission"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server, r := startFragile(t)
			bindAll(t, r, routing.NewSessionID(), "anna")
			if err := r.Probe(t.Context()); err != nil {
				t.Fatalf("a Redis that is well: %v", err)
			}
			command(t, server, c.do...)
			var err error
			eventually(t, "the probe fails", func(ctx context.Context) bool {
				err = r.Probe(ctx)
				return errors.Is(err, routing.ErrUnavailable)
			})
			if text := err.Error(); !strings.Contains(text, c.want) || strings.Contains(text, "\n") {
				t.Errorf("%q\nwant one line with %q", text, c.want)
			}
			for range 50 {
				if result, err := lookup(r, "anna"); err != nil || result.Binding.Epoch == 0 {
					t.Fatalf("lookup: %+v, %v", result, err)
				}
				if err := r.Probe(t.Context()); !errors.Is(err, routing.ErrUnavailable) {
					t.Fatalf("the probe after a lookup that went well: %v", err)
				}
			}
			command(t, server, c.undo...)
			eventually(t, "the probe succeeds", func(ctx context.Context) bool { return r.Probe(ctx) == nil })
		})
	}
}

// startFragile starts a Redis that cannot save, with a user for the nodes, and opens a registry as
// that.
func startFragile(t *testing.T) (*proc.Redis, *Registry) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "redis")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	server := startRedis(t, proc.RedisOptions{Dir: dir})
	command(t, server, "ACL SETUSER relay on >sesame ~distmsg:* +@all")
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	config := testConfig(server.URL())
	config.Username, config.Password = "relay", "sesame"
	return server, open(t, config)
}

// Each master of a Redis Cluster is probed: one that takes no writes is one for whose IDs binds
// fail.
func TestProbeWritesInCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	r := open(t, testConfig(servers.URL()))
	for i, node := range servers.Nodes {
		eventually(t, "the probe succeeds", func(ctx context.Context) bool { return r.Probe(ctx) == nil })
		command(t, node, "CONFIG SET maxmemory 1")
		if err := r.Probe(t.Context()); !errors.Is(err, routing.ErrUnavailable) || !strings.Contains(err.Error(), "raise maxmemory") {
			t.Errorf("master %d is full: %v", i, err)
		}
		command(t, node, "CONFIG SET maxmemory 0")
	}
}

// A probe leaves nothing behind.
func TestProbeLeavesNothing(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	r := open(t, testConfig(server.URL()))
	before, err := server.Do(t.Context(), "KEYS", "*probe*")
	if err == nil {
		err = r.Probe(t.Context())
	}
	if err != nil || before != "" {
		t.Fatal(before, err)
	}
	if after, err := server.Do(t.Context(), "KEYS", "*probe*"); err != nil || after != "" {
		t.Errorf("left behind: %q, %v", after, err)
	}
}

// The settings are looked at again: after a while, and at once after a reconnect. What is wrong is
// logged once, the probe says it until it is put right, and calls go through all the while.
func TestSettingsChangeLater(t *testing.T) {
	const want = "set maxmemory-policy from allkeys-lru to noeviction"
	for _, c := range []struct {
		name      string
		check     time.Duration // a minute has sixty of them
		reconnect bool
	}{{"after a minute", time.Millisecond, false}, {"after a reconnect", time.Second, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, proc.RedisOptions{})
			var log syncBuffer
			config := testConfig(server.URL())
			config.CheckInterval, config.Logger = c.check, slog.New(slog.NewTextHandler(&log, nil))
			r := open(t, config)
			command(t, server, "CONFIG SET maxmemory 1gb", "CONFIG SET maxmemory-policy allkeys-lru")
			changed := time.Now()
			if c.reconnect {
				command(t, server, "CLIENT KILL TYPE normal")
			}
			var err error
			eventually(t, "the probe fails", func(ctx context.Context) bool {
				err = r.Probe(ctx)
				return err != nil && strings.Contains(err.Error(), want)
			})
			if took := time.Since(changed); c.reconnect && took > inspectEvery*config.CheckInterval/2 {
				t.Errorf("it took %v after a reconnect", took)
			}
			if errors.Is(err, routing.ErrUnavailable) {
				t.Errorf("calls are said to fail: %v", err)
			}
			bindAll(t, r, routing.NewSessionID(), "anna")
			command(t, server, "CONFIG SET maxmemory-policy noeviction")
			eventually(t, "the probe succeeds", func(ctx context.Context) bool { return r.Probe(ctx) == nil })
			if n := strings.Count(log.String(), want); n != 1 {
				t.Errorf("%d lines in the log, want one:\n%s", n, log.String())
			}
		})
	}
}

// What lets no loss be noticed is said by the probe, though calls go through.
func TestBlind(t *testing.T) {
	t.Parallel()
	server, r := startFragile(t)
	command(t, server, "ACL SETUSER relay -info")
	var err error
	eventually(t, "the probe says so", func(ctx context.Context) bool {
		err = r.Probe(ctx) // which may also fail, for want of another connection
		return err != nil && strings.Contains(err.Error(), "cannot be watched for losses")
	})
	if !strings.Contains(err.Error(), "lacks a permission") {
		t.Error(err)
	}
	command(t, server, "ACL SETUSER relay +info")
	eventually(t, "the probe succeeds", func(ctx context.Context) bool { return r.Probe(ctx) == nil })
}

// A clock that is off is told of, until it is right. Whoever held an ID when the data were lost
// takes it back all the same, and no node has the last word for being the first that asks.
func TestClockIsWrong(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		before, after time.Duration // how far it is off before the loss, and after it
		want          string
	}{
		{0, -2 * day, "behind this node's"}, {0, -20_000 * day, "behind this node's"}, {2 * day, 0, ""}, {-2 * day, 2 * day, "ahead of this node's"},
	} {
		t.Run(fmt.Sprintf("%v then %v", c.before, c.after), func(t *testing.T) {
			t.Parallel()
			clock, err := proc.NewClock(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(clock.Close)
			set := func(off time.Duration) {
				if err := clock.Set(off); err != nil {
					t.Fatal(err)
				}
			}
			set(c.before)
			server := startRedis(t, proc.RedisOptions{Clock: clock})
			r := open(t, testConfig(server.URL()))
			session := routing.NewSessionID()
			bound := bindAll(t, r, session, "anna", "bert")

			set(c.after)
			if err := restart(t.Context(), server); err != nil {
				t.Fatal(err)
			}
			waitForLoss(t, r)
			for _, b := range bound {
				ops := []routing.BindOp{{ID: b.ID, Session: session, Epoch: b.Epoch}}
				var results []routing.BindResult
				eventually(t, "the re-assert is answered", func(ctx context.Context) bool {
					results, err = r.Bind(ctx, ops)
					return err == nil
				})
				if results[0] != (routing.BindResult{Status: routing.Bound, Epoch: b.Epoch}) {
					t.Errorf("re-assert: %+v", results)
				}
			}
			if again := bindAll(t, r, session, "anna"); again[0].Epoch <= bound[0].Epoch {
				t.Errorf("bound again with epoch %d after %d", again[0].Epoch, bound[0].Epoch)
			}
			eventually(t, "the probe says how the clock is", func(ctx context.Context) bool {
				err := r.Probe(ctx)
				return err == nil && c.want == "" || err != nil && c.want != "" && strings.Contains(err.Error(), c.want)
			})
			set(0)
			eventually(t, "the probe succeeds", func(ctx context.Context) bool { return r.Probe(ctx) == nil })
		})
	}
}
