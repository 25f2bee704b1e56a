package zookeeper

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	"go.uber.org/goleak"

	"distmsg/discovery"
	"distmsg/internal/proc"
)

const (
	// patience bounds every wait of a test; it is never reached on a good day.
	patience = 30 * time.Second
	// back is the promise: registered again within 2 s of ZooKeeper's return; the rest is slack for
	// two busy cores.
	back = 2*time.Second + 4*time.Second
	// session is the shortest session timeout that a ZooKeeper of package proc grants, times two.
	session = 2 * time.Second
)

// shared is a ZooKeeper that no test harms; each works below a path of its own.
var shared *proc.ZooKeeper

// helperEnv makes the test binary a node that announces itself and stays, with this URL.
const helperEnv = "ZOOKEEPER_TEST_NODE"

func TestMain(m *testing.M) {
	if url := os.Getenv(helperEnv); url != "" {
		m, err := Open(context.Background(), Config{URL: url, SessionTimeout: session})
		if err == nil {
			err = m.Announce(context.Background(), record(9))
		}
		fmt.Printf("announced: %v.\n", err)
		select {} // until it is killed
	}
	var err error
	if shared, err = proc.StartZooKeeper(context.Background(), proc.ZooKeeperOptions{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	shared.Close()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func startZooKeeper(t *testing.T, dir string) *proc.ZooKeeper {
	t.Helper()
	z, err := proc.StartZooKeeper(t.Context(), proc.ZooKeeperOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(z.Close)
	return z
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// place is a URL of the test's own, directly below the root: what one creates with credentials no
// other needs.
func place(t testing.TB, addr string) string {
	return "zk://" + addr + "/test-" + strings.ReplaceAll(t.Name(), "/", "-")
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func open(t testing.TB, cfg Config) *Membership {
	t.Helper()
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = session
	}
	cfg.StartTimeout = patience
	cfg.Logger = quiet()
	m, err := Open(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// record returns that of node i.
func record(i int) discovery.Record {
	return discovery.Record{
		ID: fmt.Sprintf("node-%02d", i), Incarnation: 1<<63 + uint64(i), Load: i,
		Addr: fmt.Sprintf("10.0.0.%d:7400", i), PeerAddr: fmt.Sprintf("10.0.0.%d:7402", i),
	}
}

func records(numbers ...int) []discovery.Record {
	all := []discovery.Record{}
	for _, i := range numbers {
		all = append(all, record(i))
	}
	return all
}

func announce(t testing.TB, m *Membership, r discovery.Record) {
	t.Helper()
	if err := m.Announce(testContext(t), r); err != nil {
		t.Fatal(err)
	}
}

// sees waits until m's records are these.
func sees(t testing.TB, m *Membership, want []discovery.Record) {
	t.Helper()
	if got, ok := seesWithin(t, m, want, patience); !ok {
		t.Fatalf("waited for %v, there is %v", want, got)
	}
}

func seesWithin(t testing.TB, m *Membership, want []discovery.Record, limit time.Duration) ([]discovery.Record, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var last []discovery.Record
	found := false
	m.Watch(ctx, func(all []discovery.Record) {
		last = all
		if slices.Equal(all, want) {
			found = true
			cancel()
		}
	})
	return last, found
}

func current(m *Membership) []discovery.Record {
	all, _ := m.view.allRecords()
	return all
}

// eventually polls what cannot be waited for.
func eventually(t testing.TB, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(limit)
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain until %s", limit, what)
		case <-poll.C:
		}
	}
}

// lasts lets a fault last.
func lasts(t testing.TB, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
}

// raw is zk's own client, to look at ZooKeeper past the code under test.
func raw(t testing.TB, addr string) *zk.Conn {
	t.Helper()
	conn, events, err := zk.Connect([]string{addr}, 5*time.Second, zk.WithLogger(logger{quiet()}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		for range events {
		}
	})
	return conn
}

// proxy stands between a client and ZooKeeper and can misbehave.
type proxy struct {
	addr string
	to   atomic.Pointer[string]

	silent  atomic.Bool // takes everything and passes nothing on, in new connections too
	refuses atomic.Bool // closes new connections at once
	deaf    atomic.Bool // passes no notifications on
	loses   atomic.Bool // does not pass the next request on, and then is good again

	setsWatches atomic.Bool // has seen a request to set watches again

	cuts chan chan struct{}
}

func startProxy(t testing.TB, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), cuts: make(chan chan struct{})}
	p.to.Store(&to)
	conns := make(chan net.Conn)
	done := make(chan struct{})
	go func() {
		defer close(conns)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conns <- conn
		}
	}()
	go func() {
		defer close(done)
		var open []net.Conn
		cut := func() {
			for _, conn := range open {
				conn.Close()
			}
			open = nil
		}
		defer cut()
		for {
			select {
			case conn, ok := <-conns:
				if !ok {
					return
				}
				server, err := net.Dial("tcp", *p.to.Load())
				if p.refuses.Load() || err != nil {
					conn.Close()
					if err == nil {
						server.Close()
					}
					continue
				}
				open = append(open, conn, server)
				go p.pass(server, conn, false)
				go p.pass(conn, server, true)
			case ack := <-p.cuts:
				cut()
				close(ack)
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return p
}

// cut closes all connections.
func (p *proxy) cut() {
	ack := make(chan struct{})
	p.cuts <- ack
	<-ack
}

// What zk's frames begin with after their length, where it is not the number of a request, and a
// request's code, which is next.
const (
	notification = "\xff\xff\xff\xff"
	ping         = "\xff\xff\xff\xfe"
	setWatches   = "\x00\x00\x00\x65"
)

// pass copies frames.
func (p *proxy) pass(to, from net.Conn, fromServer bool) {
	defer to.Close()
	defer from.Close()
	for {
		head := make([]byte, 4)
		if _, err := io.ReadFull(from, head); err != nil {
			return
		}
		body := make([]byte, int(head[0])<<24|int(head[1])<<16|int(head[2])<<8|int(head[3]))
		if _, err := io.ReadFull(from, body); err != nil {
			return
		}
		if p.silent.Load() || fromServer && p.deaf.Load() && string(body[:4]) == notification {
			continue
		}
		if !fromServer && string(body[4:8]) == setWatches {
			p.setsWatches.Store(true)
		}
		if !fromServer && string(body[:4]) != ping && p.loses.CompareAndSwap(true, false) {
			continue
		}
		if _, err := to.Write(append(head, body...)); err != nil {
			return
		}
	}
}
