package redis

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9/logging"
	"go.uber.org/goleak"

	"distmsg/internal/proc"
	"distmsg/routing"
)

func TestMain(m *testing.M) {
	logging.Disable() // go-redis writes every lost connection to stderr
	goleak.VerifyTestMain(m)
}

// patience is how long anything that has to happen may take on a busy machine.
const patience = time.Minute

func startRedis(t testing.TB, options proc.RedisOptions) *proc.Redis {
	t.Helper()
	server, err := proc.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return server
}

// startCluster starts a Redis Cluster of three masters.
func startCluster(t testing.TB) *proc.RedisCluster {
	t.Helper()
	servers, err := proc.StartRedisCluster(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	return servers
}

// testConfig has short intervals, and a rebuild window that is as good as none.
func testConfig(url string) Config {
	return Config{
		URL:           url,
		Buckets:       64,
		Timeout:       5 * time.Second, // on a busy machine
		CheckInterval: 50 * time.Millisecond,
		RebuildWindow: time.Microsecond,
		SweepInterval: 100 * time.Millisecond,
		Logger:        slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
}

// open returns a registry that is not rebuilding.
func open(t testing.TB, config Config) *Registry {
	t.Helper()
	r, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the rebuild window closes", func(context.Context) bool { return !r.Rebuilding() })
	return r
}

// eventually asks again and again until the condition holds.
func eventually(t testing.TB, what string, condition func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !condition(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-poll.C:
		}
	}
}

// bindAll binds IDs for a session that is attached, 1000 at a time.
func bindAll(t testing.TB, r *Registry, session routing.SessionID, ids ...string) []routing.BoundID {
	t.Helper()
	var bound []routing.BoundID
	for len(ids) > 0 {
		n := min(1000, len(ids))
		ops := make([]routing.BindOp, n)
		for i, id := range ids[:n] {
			ops[i] = routing.BindOp{ID: id, Session: session}
		}
		results, err := r.Bind(context.Background(), ops)
		if err != nil {
			t.Fatal(err)
		}
		for i, result := range results {
			if result.Status != routing.Bound {
				t.Fatalf("%s: %+v", ops[i].ID, result)
			}
			bound = append(bound, routing.BoundID{ID: ops[i].ID, Epoch: result.Epoch})
		}
		ids = ids[n:]
	}
	return bound
}

func lookup(r *Registry, id string) (routing.LookupResult, error) {
	results, err := r.Lookup(context.Background(), []string{id})
	if err != nil {
		return routing.LookupResult{}, err
	}
	return results[0], nil
}
