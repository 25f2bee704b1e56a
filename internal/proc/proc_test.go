package proc

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// parentEnv makes the test binary the parent of things that have to die with it: one of parents.
const parentEnv = "PROC_TEST_PARENT"

// parents say what they hold and hold it until they are killed.
var parents = map[string]func() error{"redis": holdRedis, "network": holdNetwork}

func TestMain(m *testing.M) {
	if hold := parents[os.Getenv(parentEnv)]; hold != nil {
		fmt.Println("error:", hold())
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// startParent starts a parent and returns what it says after label.
func startParent(t *testing.T, name, label string) (parent *Process, said string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent, err = Start(t.Context(), Command{
		Path: self,
		Env:  []string{parentEnv + "=" + name, "TMPDIR=" + t.TempDir()},
		Ready: func(_ context.Context, p *Process) error {
			_, rest, _ := strings.Cut(p.Output(), label)
			var found bool
			if said, _, found = strings.Cut(rest, ".\n"); !found {
				return fmt.Errorf("no %s yet", label)
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return parent, said
}

const patience = time.Minute

func eventually(t *testing.T, what string, condition func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for !condition(ctx) {
		select {
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		case <-poll.C:
		}
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	for _, persist := range []bool{false, true} {
		server, err := StartRedis(t.Context(), RedisOptions{Password: "secret", Persist: persist})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		do := func(args ...string) string {
			t.Helper()
			reply, err := server.Do(t.Context(), args...)
			if err != nil {
				t.Fatalf("%v: %v", args, err)
			}
			return reply
		}
		do("SET", "key", "value")
		if err := server.Pause(); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		if reply, err := server.Do(short, "PING"); err == nil {
			t.Errorf("paused, it says %q", reply)
		}
		cancel()
		if err := server.Resume(); err != nil {
			t.Fatal(err)
		}
		if got := do("GET", "key"); got != "value" {
			t.Errorf("resumed: %q", got)
		}
		server.Kill()
		if code := server.Wait(); code != -1 {
			t.Errorf("killed: exit code %d", code)
		}
		if err := server.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := do("GET", "key"); (got == "value") != persist {
			t.Errorf("restarted, persist %v: %q", persist, got)
		}
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
		if code := server.Wait(); code != 0 {
			t.Errorf("stopped: exit code %d", code)
		}
	}
}

func TestZooKeeper(t *testing.T) {
	t.Parallel()
	server, err := StartZooKeeper(t.Context(), ZooKeeperOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	answers := func(ctx context.Context) bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return server.ready(ctx) == nil
	}
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	if answers(t.Context()) {
		t.Error("paused, it answers")
	}
	if err := server.Resume(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it answers again", answers)
	server.Kill()
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What the parent of TestChildrenDieWithTheirParent does.
func holdRedis() error {
	server, err := StartRedis(context.Background(), RedisOptions{})
	if err != nil {
		return err
	}
	fmt.Printf("addr=%s.\n", server.Addr)
	select {}
}

// However the parent dies, its children do not stay behind.
func TestChildrenDieWithTheirParent(t *testing.T) {
	t.Parallel()
	parent, addr := startParent(t, "redis", "addr=")
	parent.Kill()
	eventually(t, "the grandchild is gone", func(ctx context.Context) bool {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
}

// What does not become ready is an error that quotes the program, and does not run on.
func TestNotReady(t *testing.T) {
	t.Parallel()
	_, err := StartRedis(t.Context(), RedisOptions{Args: []string{"--no-such-option", "1"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("an option that does not exist: %v", err)
	}
	if _, err := Start(t.Context(), Command{Path: "no-such-program"}); err == nil {
		t.Error("a program that does not exist was started")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	never := func(context.Context, *Process) error { return fmt.Errorf("not yet") }
	// if it ran on, goleak would tell
	_, err = Start(ctx, Command{Path: "sleep", Args: []string{"1000"}, Ready: never})
	if err == nil || !strings.Contains(err.Error(), "not yet") {
		t.Errorf("never ready: %v", err)
	}
}

func TestBuild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := Build(t.Context(), dir, "./cmd/capacity"); err != nil {
		t.Fatal(err)
	}
	p, err := Start(t.Context(), Command{Path: filepath.Join(dir, "capacity"), Args: []string{"--help"}})
	if err != nil {
		t.Fatal(err)
	}
	if code := p.Wait(); code != 0 || p.Output() == "" {
		t.Errorf("capacity --help: exit code %d, %q", code, p.Output())
	}
	if err := Build(t.Context(), dir, "./no/such"); err == nil {
		t.Error("a package that does not exist was built")
	}
}
