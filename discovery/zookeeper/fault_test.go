package zookeeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/discovery"
	"distmsg/internal/proc"
)

// TestZooKeeperAway: whatever becomes of ZooKeeper meanwhile, the last membership stands, calls
// return in time, and when it is back what was announced meanwhile is there within the promised
// time.
func TestZooKeeperAway(t *testing.T) {
	t.Parallel()
	pause := func(z *proc.ZooKeeper, _ string) error {
		if err := z.Pause(); err != nil {
			return err
		}
		eventually(t, patience, "all threads have stopped", func() bool { return stopped(t, z.PID()) })
		return nil
	}
	resume := func(z *proc.ZooKeeper, _ string) error { return z.Resume() }
	kill := func(z *proc.ZooKeeper, _ string) error { z.Kill(); return nil }
	restart := func(z *proc.ZooKeeper, _ string) error { return z.Restart(context.Background()) }
	for _, test := range []struct {
		name        string
		session     time.Duration
		lasts       time.Duration
		leave, back func(z *proc.ZooKeeper, dir string) error
	}{
		{"paused, sessions expire", session, 5500 * time.Millisecond, pause, resume},
		{"paused, sessions live on", 9 * time.Second, 5500 * time.Millisecond, pause, resume},
		{"killed, back with its data", 2 * session, 3 * time.Second, kill, restart},
		{"killed, back empty", 2 * session, 7 * time.Second, kill, func(z *proc.ZooKeeper, dir string) error {
			return errors.Join(os.RemoveAll(filepath.Join(dir, "version-2")), restart(z, dir))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Not parallel: two cores carry one JVM more, not four.
			dir := t.TempDir()
			z := startZooKeeper(t, dir)
			cfg := Config{URL: "zk://" + z.Addr + "/away", Auth: "relay:hunter2", SessionTimeout: test.session}
			a, b := open(t, cfg), open(t, cfg)
			announce(t, a, record(1))
			announce(t, b, record(2))
			sees(t, a, records(1, 2))
			sees(t, b, records(1, 2))
			missing := watchFor(t, a, "node-01", "node-02")
			if err := test.leave(z, dir); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			changed := record(2)
			changed.Draining = true
			if err := b.Announce(short, changed); err == nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("announced to nobody: %v", err)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("a call with a second to spare took %v", took)
			}
			lasts(t, test.lasts-time.Since(began))
			if test.lasts > test.session*2/3 { // it has been silent for longer than it may be
				eventually(t, patience, "the trouble is said", func() bool {
					err := a.Err()
					return err != nil && strings.Contains(err.Error(), "no session with "+z.Addr)
				})
			}
			if got := current(a); !slices.Equal(got, records(1, 2)) {
				t.Errorf("the last membership was %v, now it is %v", records(1, 2), got)
			}
			if err := test.back(z, dir); err != nil {
				t.Fatal(err)
			}
			returned := time.Now()
			want := []discovery.Record{record(1), changed}
			if got, ok := seesWithin(t, a, want, back); !ok {
				t.Errorf("%v after ZooKeeper's return: %v", back, got)
			}
			t.Logf("%s: known again after %v", test.name, time.Since(returned).Round(time.Millisecond))
			// that it is not only a memory
			fresh := open(t, Config{URL: cfg.URL, Auth: cfg.Auth, ReadOnly: true})
			sees(t, fresh, want)
			if m := missing(); len(m) > 0 {
				t.Errorf("nodes that never ended were taken off the list: %v", m)
			}
			sees(t, a, want)
			eventually(t, patience, "all is well", func() bool { return a.Err() == nil && b.Err() == nil })
		})
	}
}

// stopped says whether SIGSTOP has reached every thread of a process.
func stopped(t *testing.T, pid int) bool {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	return !slices.ContainsFunc(threads, func(file string) bool {
		stat, err := os.ReadFile(file)
		_, state, _ := strings.Cut(string(stat), ") ")
		// a thread that is gone does not run either
		return err == nil && !strings.HasPrefix(state, "T")
	})
}

// watchFor notes lists in which one of the IDs is missing, until the function that it returns is
// called.
func watchFor(t *testing.T, m *Membership, ids ...string) func() (missing []string) {
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	var missing []string
	watching.Go(func() {
		m.Watch(ctx, func(all []discovery.Record) {
			for _, id := range ids {
				if !slices.ContainsFunc(all, func(r discovery.Record) bool { return r.ID == id }) {
					missing = append(missing, id)
				}
			}
		})
	})
	return func() []string {
		cancel()
		watching.Wait()
		return missing
	}
}

// TestExpired: a node that ZooKeeper has given up registers again, with a new session and the same
// incarnation.
func TestExpired(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	m, other := open(t, Config{URL: place(t, p.addr)}), open(t, Config{URL: place(t, shared.Addr)})
	announce(t, m, record(1))
	announce(t, other, record(2))
	sees(t, m, records(1, 2))
	conn := raw(t, shared.Addr)
	owner := func() int64 {
		t.Helper()
		there, stat, err := conn.Exists(m.dir + "/" + nameOf(record(1)))
		if err != nil || !there {
			t.Fatalf("%v, %v", there, err)
		}
		return stat.EphemeralOwner
	}
	before := owner()
	p.silent.Store(true)
	sees(t, other, records(2))
	p.silent.Store(false)
	healed := time.Now()
	if got, ok := seesWithin(t, other, records(1, 2), back); !ok {
		t.Errorf("not registered again: %v", got)
	}
	t.Logf("registered again after %v", time.Since(healed).Round(time.Millisecond))
	if owner() == before {
		t.Error("the session had not expired")
	}
	sees(t, m, records(1, 2))
	announce(t, other, record(3)) // in the place of 2: the watches live in the new session
	sees(t, m, records(1, 3))
}

// TestSilent: a connection on which nothing comes back any more holds nobody up.
func TestSilent(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	m := open(t, Config{URL: place(t, p.addr), SessionTimeout: 8 * time.Second})
	announce(t, m, record(1))
	sees(t, m, records(1))
	p.silent.Store(true)
	for name, do := range map[string]func(context.Context) error{
		"Announce": func(ctx context.Context) error { return m.Announce(ctx, record(2)) },
		"Withdraw": m.Withdraw,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		began := time.Now()
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s took %v, it had one second", name, took)
		}
		cancel()
	}
	if nodes, _ := m.Nodes(); len(nodes) != 1 {
		t.Errorf("nodes: %v", nodes)
	}
	began := time.Now()
	m.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
}

// TestWatchesOutliveConnections: what changes is told, also after the connection was lost, not only
// found by the next listing.
func TestWatchesOutliveConnections(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	m := open(t, Config{URL: place(t, p.addr), Relist: time.Hour, SessionTimeout: 8 * time.Second})
	other := open(t, Config{URL: place(t, shared.Addr)})
	first, second := record(1), record(2)
	announce(t, other, first)
	sees(t, m, []discovery.Record{first})
	for range 3 { // the node that is gone stays listed for the time of grace
		p.cut()
		first.Load++
		announce(t, other, first)
		// by the listing after the new connection, or by a watch
		sees(t, m, []discovery.Record{first})
		first.Load++
		announce(t, other, first)
		sees(t, m, []discovery.Record{first}) // by a watch
		announce(t, other, second)
		sees(t, m, []discovery.Record{second})
		first, second = second, first
	}
	if p.setsWatches.Load() {
		t.Error("zk has set its watches again, which is a data race in it")
	}
}

// TestLostNotifications: what no watch told of is found by listing, and is watched again from then
// on.
func TestLostNotifications(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	m := open(t, Config{URL: place(t, p.addr), Relist: time.Hour, SessionTimeout: 8 * time.Second})
	periodic := open(t, Config{URL: place(t, p.addr), Relist: 200 * time.Millisecond, SessionTimeout: 8 * time.Second})
	other := open(t, Config{URL: place(t, shared.Addr)})
	added, late := open(t, Config{URL: place(t, shared.Addr)}), open(t, Config{URL: place(t, shared.Addr)})
	r := record(1)
	announce(t, other, r)
	sees(t, m, []discovery.Record{r})
	sees(t, periodic, []discovery.Record{r})
	p.deaf.Store(true)
	r.Load++
	announce(t, other, r)
	announce(t, added, record(2))
	sees(t, periodic, []discovery.Record{r, record(2)})
	if got := current(m); len(got) != 1 || got[0] == r {
		t.Fatalf("the notification was not lost: %v", got)
	}
	p.cut()
	sees(t, m, []discovery.Record{r, record(2)})
	p.deaf.Store(false)
	r.Load++
	announce(t, other, r)
	sees(t, m, []discovery.Record{r, record(2)})
	announce(t, late, record(3))
	sees(t, m, []discovery.Record{r, record(2), record(3)})
}

// TestLostRequest: a request without an answer, on a connection that is good otherwise, is made
// again on the next one.
func TestLostRequest(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	m := open(t, Config{URL: place(t, p.addr), Relist: time.Hour, SessionTimeout: 8 * time.Second})
	announce(t, m, record(1))
	sees(t, m, records(1))
	p.loses.Store(true)
	began := time.Now()
	announce(t, m, record(2))
	if took := time.Since(began); took > 8*time.Second { // 2 s to give up, and slack
		t.Errorf("took %v", took)
	}
}

func TestUnreachableAtStart(t *testing.T) {
	t.Parallel()
	// a server that says this and waits, or hangs up if it is empty
	says := func(answer string) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				serving.Go(func() {
					defer conn.Close()
					if answer == "hang up" {
						return
					}
					_, _ = io.WriteString(conn, answer)
					_, _ = io.Copy(io.Discard, conn)
				})
			}
		})
		t.Cleanup(func() { l.Close(); serving.Wait() })
		return l.Addr().String()
	}
	nobody := says("")
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		nobody = l.Addr().String()
		l.Close()
	}
	for name, test := range map[string]struct{ addr, want string }{
		"refused":       {nobody, "connection refused"},
		"silent":        {says(""), "accepts connections but does not answer"},
		"hangs up":      {says("hang up"), "accepts connections but"},
		"not ZooKeeper": {says("HTTP/1.1 400 Bad Request\r\n\r\n"), "does not speak ZooKeeper's protocol"},
		"short frame":   {says("\x00\x00\x00\x04abcd"), "does not speak ZooKeeper's protocol"},
		"no such name":  {"no-such-host.invalid:2181", "no-such-host.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			m, err := Open(t.Context(), Config{
				URL: "zk://" + test.addr, SessionTimeout: session, StartTimeout: time.Second, Logger: quiet(),
			})
			if err == nil {
				m.Close()
				t.Fatal("opened")
			}
			if text := err.Error(); !strings.Contains(text, test.want) || !strings.Contains(text, "start ZooKeeper") ||
				strings.Contains(text, "\n") {
				t.Error(text)
			}
			t.Log(err)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %v, had one second", took)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Config{URL: "zk://" + shared.Addr, Logger: quiet()}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	at := place(t, shared.Addr)
	fails := func(what string, cfg Config, want ...string) {
		t.Helper()
		cfg.SessionTimeout, cfg.StartTimeout, cfg.Logger = session, patience, quiet()
		m, err := Open(testContext(t), cfg)
		if err == nil {
			m.Close()
			t.Errorf("%s: opened", what)
			return
		}
		t.Log(err)
		for _, w := range want {
			if !strings.Contains(err.Error(), w) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	fails("missing path", Config{URL: at, ReadOnly: true}, "/test-TestPermissions/nodes", "does not exist", "start a node first")

	p := startProxy(t, shared.Addr)
	cfg := Config{URL: place(t, p.addr), Auth: "relay:hunter2"}
	m, client := open(t, cfg), open(t, Config{URL: at, Auth: "relay:hunter2", ReadOnly: true})
	announce(t, m, record(1))
	sees(t, client, records(1))
	p.cut() // the credentials go with the next connection as well
	announce(t, m, record(2))
	sees(t, client, records(2))

	fails("no credentials", Config{URL: at}, "no permission to register in", "give credentials")
	fails("others", Config{URL: at, Auth: "other:hunter2"}, "no permission to register in", "give credentials")
	fails("no credentials, read-only", Config{URL: at, ReadOnly: true}, "no permission to read", "give credentials")
	fails("nothing may be created", Config{URL: at + "/below"}, "no permission to create /test-TestPermissions/below", "give credentials")
	conn := raw(t, shared.Addr)
	if err := conn.AddAuth("digest", []byte("relay:hunter2")); err != nil {
		t.Fatal(err)
	}
	acl, _, err := conn.GetACL(m.dir)
	if err != nil || len(acl) != 1 || acl[0].Scheme != "digest" || !strings.HasPrefix(acl[0].ID, "relay:") {
		t.Errorf("the ACL is %v, %v", acl, err)
	}
}

// TestRefusedLater: what is refused is an error at once, is attempted further, and does no harm to
// what is known.
func TestRefusedLater(t *testing.T) {
	t.Parallel()
	m := open(t, Config{URL: place(t, shared.Addr)})
	announce(t, m, record(1))
	sees(t, m, records(1))
	conn := raw(t, shared.Addr)
	open, stat, err := conn.GetACL(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	readOnly := slices.Clone(open)
	readOnly[0].Perms = 1 | 16 // read, and admin to undo it
	if stat, err = conn.SetACL(m.dir, readOnly, stat.Aversion); err != nil {
		t.Fatal(err)
	}
	if err := m.Announce(testContext(t), record(2)); err == nil || !strings.Contains(err.Error(), "no permission") {
		t.Errorf("%v", err)
	}
	eventually(t, patience, "that is the trouble", func() bool {
		err := m.Err()
		return err != nil && strings.Contains(err.Error(), "no permission")
	})
	if got := current(m); !slices.Equal(got, records(1)) {
		t.Errorf("%v", got)
	}
	if _, err = conn.SetACL(m.dir, open, stat.Aversion); err != nil {
		t.Fatal(err)
	}
	sees(t, m, records(2))
	eventually(t, patience, "all is well", func() bool { return m.Err() == nil })
}

// Who starts before ZooKeeper is told within a second that it waits, and starts as soon as
// ZooKeeper is there.
func TestWaitingIsSaid(t *testing.T) {
	t.Parallel()
	z := startZooKeeper(t, "")
	z.Kill()
	said, end := io.Pipe()
	defer end.Close()
	began := time.Now()
	opened := make(chan error, 1)
	go func() {
		m, err := Open(testContext(t), Config{URL: place(t, z.Addr), StartTimeout: patience,
			Logger: slog.New(slog.NewTextHandler(end, nil))})
		if err == nil {
			go func() { _, _ = io.Copy(io.Discard, said) }()
			m.Close()
		}
		opened <- err
	}()
	line, err := bufio.NewReader(said).ReadString('\n')
	if err != nil || !strings.Contains(line, "no session yet") || !strings.Contains(line, z.Addr) || !strings.Contains(line, "refused") {
		t.Errorf("%q, %v", line, err)
	}
	if took := time.Since(began); took > 3*time.Second { // within one
		t.Errorf("said after %v", took)
	}
	select {
	case err := <-opened:
		t.Fatalf("opened without ZooKeeper, or gave up: %v", err)
	default:
	}
	if err := z.Restart(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// A context that has ended before the call does nothing: no session is opened, and no node
// announced or withdrawn.
func TestEndedContext(t *testing.T) {
	t.Parallel()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	dialled := make(chan struct{}, 100)
	if _, err := Open(ended, Config{URL: place(t, shared.Addr), Logger: quiet(), Dialer: func(context.Context, string) (net.Conn, error) {
		dialled <- struct{}{}
		return nil, errors.New("dialled")
	}}); !errors.Is(err, context.Canceled) || len(dialled) > 0 {
		t.Errorf("Open: %v, %d connections", err, len(dialled))
	}
	m := open(t, Config{URL: place(t, shared.Addr)})
	announce(t, m, record(1))
	if err := m.Announce(ended, record(2)); !errors.Is(err, context.Canceled) {
		t.Errorf("Announce: %v", err)
	}
	if err := m.Withdraw(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Withdraw: %v", err)
	}
	if order := m.currentOrder(); order.name != nameOf(record(1)) {
		t.Errorf("the order is now %q", order.name)
	}
	m.Watch(ended, func([]discovery.Record) { t.Error("Watch called") })
}

// A Dialer that ignores its context does not hold up Close.
func TestStuckDialer(t *testing.T) {
	t.Parallel()
	p := startProxy(t, shared.Addr)
	stuck, release := make(chan struct{}), make(chan struct{})
	var hang atomic.Bool
	m := open(t, Config{URL: place(t, p.addr), Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
		if hang.Load() {
			close(stuck) // a second call would panic
			<-release
			return nil, errors.New("released")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}})
	defer close(release)
	hang.Store(true)
	p.cut()
	<-stuck
	closed := make(chan struct{})
	go func() { m.Close(); close(closed) }()
	select {
	case <-closed:
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
}

// Only a connection that has lasted makes the pauses between attempts short again: a server that
// takes every session and ends it says that it is connected, too.
func TestPausesGrow(t *testing.T) {
	t.Parallel()
	d := newDialer(Config{Dialer: func(context.Context, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		theirs.Close()
		return ours, nil
	}}, func(error) {}, nil)
	defer d.end()
	_ = d.Init([]string{"a:1"})
	for tries := 1; tries <= 5; tries++ {
		if _, err := d.open("", "a:1", 0); err != nil {
			t.Fatal(err)
		}
		d.Connected()
		if d.tries != tries {
			t.Fatalf("%d attempts count as %d", tries, d.tries)
		}
	}
	d.wire.born = time.Now().Add(-lasting)
	if _, err := d.open("", "a:1", 0); err != nil || d.tries != 2 { // not none: there is a pause
		t.Errorf("after a connection that has lasted: %v, %d attempts", err, d.tries)
	}
	d.cut()
}
