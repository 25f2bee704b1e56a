package redis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/routing"
)

var here = routing.Presence{Node: "n1", Incarnation: 1, Serial: 1}

// A Redis that does not answer costs one call its timeout, and the others nothing. When it answers
// again, calls go through soon, and nothing is thought to be lost.
func TestPaused(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Timeout = time.Second
	r := open(t, config)
	session := routing.NewSessionID()
	bound := bindAll(t, r, session, "anna")

	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := lookup(r, "anna"); !errors.Is(err, routing.ErrUnavailable) {
		t.Errorf("the first call: %v, want ErrUnavailable", err)
	}
	began := time.Now()
	for range 25 {
		_, err1 := r.Bind(t.Context(), []routing.BindOp{{ID: "bert", Session: session}})
		_, err2 := lookup(r, "anna")
		err3 := r.Attach(t.Context(), session, here)
		_, err4 := r.EndSession(t.Context(), routing.EndOp{Session: session, Force: true})
		for _, err := range []error{err1, err2, err3, err4} {
			if !errors.Is(err, routing.ErrUnavailable) || !strings.Contains(err.Error(), ": since ") || !strings.Contains(err.Error(), "did not answer") {
				t.Fatalf("a later call: %v, want ErrUnavailable, since when and why", err)
			}
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("100 calls took %v", took)
	}
	resumed := time.Now()
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the binding is found", func(context.Context) bool {
		result, err := lookup(r, "anna")
		return err == nil && result.Binding.Epoch == bound[0].Epoch
	})
	// the rest is slack
	if took := time.Since(resumed); took > 2*config.CheckInterval+10*time.Second {
		t.Errorf("calls went through %v after Redis answered again", took)
	}
	eventually(t, "misses count", func(context.Context) bool {
		result, err := lookup(r, "carl")
		return err == nil && !result.Unknown
	})
	select {
	case <-r.Lost():
		t.Error("a loss was announced")
	default:
	}
}

// losing are the ways in which a server loses what it was told. Persistent ones keep it, which
// nobody can know: the last second may be missing.
var losing = []struct {
	name    string
	options proc.RedisOptions
	lose    func(context.Context, *proc.Redis) error
}{
	{"killed and back empty", proc.RedisOptions{}, restart},
	{"killed and back with its file", proc.RedisOptions{Persist: true}, restart},
	{"flushed", proc.RedisOptions{}, func(ctx context.Context, server *proc.Redis) error {
		_, err := server.Do(ctx, "FLUSHALL")
		return err
	}},
}

func restart(ctx context.Context, server *proc.Redis) error {
	server.Kill()
	return server.Restart(ctx)
}

// holdWindowOpen lets the next rebuild window stay open.
func holdWindowOpen(r *Registry) {
	r.losses.mu.Lock()
	defer r.losses.mu.Unlock()
	r.losses.window = time.Hour
}

// From the moment of the loss no lookup says falsely that an ID is not bound; the loss is
// announced; nobody ends a session whose presence may be lost; and what is re-asserted counts at
// once.
func TestLoss(t *testing.T) {
	for _, c := range losing {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := startRedis(t, c.options)
			config := testConfig(server.URL())
			watched := open(t, config)
			session := routing.NewSessionID()
			bound := bindAll(t, watched, session, "anna", "bert")
			holdWindowOpen(watched)
			seen := make(chan struct{})
			var asking sync.WaitGroup
			asking.Go(func() { askUntil(t, watched, "anna", seen) })

			if err := c.lose(t.Context(), server); err != nil {
				t.Fatal(err)
			}
			waitForLoss(t, watched)
			close(seen)
			asking.Wait()

			if result, err := lookup(watched, "nobody"); err != nil || !result.Unknown {
				t.Errorf("lookup of what was never bound: %+v, %v; want unknown", result, err)
			}
			if _, err := watched.Presence(t.Context(), session); !errors.Is(err, routing.ErrUnavailable) {
				t.Errorf("presence: %v", err)
			}
			if _, err := watched.EndSession(t.Context(), routing.EndOp{Session: session}); !errors.Is(err, routing.ErrUnavailable) {
				t.Errorf("end: %v", err)
			}
			ops := []routing.BindOp{{ID: "anna", Session: session, Epoch: bound[0].Epoch}}
			if results, err := watched.Bind(t.Context(), ops); err != nil || results[0].Status != routing.Bound {
				t.Fatalf("re-assert: %+v, %v", results, err)
			}
			if result, err := lookup(watched, "anna"); err != nil || result.Binding.Epoch != bound[0].Epoch {
				t.Errorf("after the re-assert: %+v, %v", result, err)
			}
			config.RebuildWindow = time.Hour
			if late, err := Open(t.Context(), config); err != nil || !late.Rebuilding() {
				t.Errorf("opened after the loss: %v, and takes misses for the truth", err)
			} else if err := late.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// askUntil looks up a bound ID until done is closed. It must be found, unknown, or the registry
// unavailable.
func askUntil(t *testing.T, r *Registry, id string, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		default:
		}
		result, err := lookup(r, id)
		if err == nil && result == (routing.LookupResult{}) {
			t.Error("a false miss")
			return
		}
		if err != nil && !errors.Is(err, routing.ErrUnavailable) {
			t.Error(err)
			return
		}
	}
}

func waitForLoss(t *testing.T, r *Registry) {
	t.Helper()
	select {
	case <-r.Lost():
	case <-time.After(patience):
		t.Fatal("the loss was not announced")
	}
}

// The window closes by itself.
func TestRebuildWindowCloses(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.RebuildWindow = 3 * time.Second
	r, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if result, err := lookup(r, "anna"); err != nil || !result.Unknown {
		t.Errorf("an empty store: %+v, %v; want unknown, for it may be a loss", result, err)
	}
	eventually(t, "misses count", func(context.Context) bool {
		result, err := lookup(r, "anna")
		return err == nil && !result.Unknown
	})
	bindAll(t, r, routing.NewSessionID(), "anna")
	if err := restart(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	waitForLoss(t, r)
	if !r.Rebuilding() {
		t.Error("a loss, and no rebuild window")
	}
	eventually(t, "misses count again", func(context.Context) bool {
		result, err := lookup(r, "anna")
		return err == nil && result == routing.LookupResult{}
	})
}

// One master of several loses its keys.
func TestLossInCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	r := open(t, testConfig(servers.URL()))
	holdWindowOpen(r)
	bindAll(t, r, routing.NewSessionID(), strings.Fields("a b c d e f g h i j k l m n o p")...)
	seen := make(chan struct{})
	var asking sync.WaitGroup
	for _, id := range strings.Fields("a b c d e f g h i j k l m n o p") {
		asking.Go(func() { askUntil(t, r, id, seen) })
	}
	if _, err := servers.Nodes[1].Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	waitForLoss(t, r)
	close(seen)
	asking.Wait()
}

// The master dies and its replica takes over: what it has may be old, so that is a loss, and life
// goes on.
func TestFailover(t *testing.T) {
	t.Parallel()
	servers, err := proc.StartRedisSentinels(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(servers.Close)
	r := open(t, testConfig(servers.URL()))
	session := routing.NewSessionID()
	bound := bindAll(t, r, session, "anna")
	if _, err := servers.Master.Do(t.Context(), "WAIT", "1", "0"); err != nil {
		t.Fatal(err)
	}
	holdWindowOpen(r)
	servers.Master.Kill()
	waitForLoss(t, r)
	eventually(t, "the new master binds", func(ctx context.Context) bool {
		results, err := r.Bind(ctx, []routing.BindOp{{ID: "anna", Session: session}})
		return err == nil && results[0].Status == routing.Bound && results[0].Epoch > bound[0].Epoch
	})
}

// A server that takes no more writes says what to do, and still answers lookups.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	r := open(t, testConfig(server.URL()))
	session := routing.NewSessionID()
	bound := bindAll(t, r, session, "anna")
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory", "1"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Bind(t.Context(), []routing.BindOp{{ID: "bert", Session: session}})
	if !errors.Is(err, routing.ErrUnavailable) || !strings.Contains(err.Error(), "raise maxmemory") {
		t.Errorf("bind: %v", err)
	}
	if result, err := lookup(r, "anna"); err != nil || result.Binding.Epoch != bound[0].Epoch {
		t.Errorf("lookup: %+v, %v", result, err)
	}
	ops := []routing.UnbindOp{{ID: "anna", Session: session, Epoch: bound[0].Epoch}}
	if results, err := r.Unbind(t.Context(), ops); err != nil || !results[0].Removed {
		t.Errorf("unbind: %+v, %v", results, err)
	}
}

// Servers forget scripts when they start, when one takes over, and when told to.
func TestScriptsForgotten(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	r := open(t, testConfig(server.URL()))
	session := routing.NewSessionID()
	bound := bindAll(t, r, session, "anna")
	if _, err := server.Do(t.Context(), "SCRIPT", "FLUSH"); err != nil {
		t.Fatal(err)
	}
	if again := bindAll(t, r, session, "anna", "bert"); again[0].Epoch <= bound[0].Epoch {
		t.Errorf("bound again with epoch %d after %d", again[0].Epoch, bound[0].Epoch)
	}
}

// Two clusters on one Redis do not see each other.
func TestPrefixes(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	red := open(t, config)
	config.Prefix, config.Buckets = "blue", 7
	blue := open(t, config)
	session := routing.NewSessionID()
	bindAll(t, red, session, "anna")
	if err := red.Attach(t.Context(), session, here); err != nil {
		t.Fatal(err)
	}
	if result, err := lookup(blue, "anna"); err != nil || result != (routing.LookupResult{}) {
		t.Errorf("lookup by the other cluster: %+v, %v", result, err)
	}
	if p, err := blue.Presence(t.Context(), session); err != nil || len(p.Nodes) > 0 {
		t.Errorf("presence for the other cluster: %+v, %v", p, err)
	}
}

// A master of a Redis Cluster that does not answer keeps nobody from asking the others.
func TestPausedInCluster(t *testing.T) {
	t.Parallel()
	servers := startCluster(t)
	for _, node := range servers.Nodes { // or the others refuse as well, once they have noticed
		if _, err := node.Do(t.Context(), "CONFIG", "SET", "cluster-require-full-coverage", "no"); err != nil {
			t.Fatal(err)
		}
	}
	config := testConfig(servers.URL())
	config.Timeout = time.Second
	r := open(t, config)
	ids := strings.Fields("a b c d e f g h i j k l")
	bindAll(t, r, routing.NewSessionID(), ids...)
	if err := servers.Nodes[1].Pause(); err != nil {
		t.Fatal(err)
	}
	answered, failed := 0, 0
	for range 2 {
		for _, id := range ids {
			if _, err := lookup(r, id); err == nil {
				answered++
			} else {
				failed++
			}
		}
	}
	if answered < 2 || failed < 2 || answered%2 != 0 {
		t.Errorf("%d lookups answered, %d failed; want the same of both rounds, and some of either", answered, failed)
	}
}
