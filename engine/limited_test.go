package engine

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/internal/certs/certstest"
)

// A node that runs out of file descriptors needs a process of its own: this test binary, started
// once more with limitedEnv set to the limit, and limitedConns to Config.MaxConns. For TLS,
// limitedCert and limitedKey hold a certificate and its key.
const (
	limitedEnv   = "DISTMSG_TEST_NOFILE"
	limitedConns = "DISTMSG_TEST_MAX_CONNS"
	limitedCert  = "DISTMSG_TEST_CERT"
	limitedKey   = "DISTMSG_TEST_KEY"
)

// limitedNode is the program: it prints its address, then its counters for each line it reads, and
// ends with its input.
func limitedNode() {
	fail := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	limit, err := strconv.ParseUint(os.Getenv(limitedEnv), 10, 64)
	fail(err)
	maxConns, err := strconv.Atoi(os.Getenv(limitedConns))
	fail(err)
	// Both limits at once: the runtime raises the soft one to the hard one when it starts.
	fail(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit}))
	// A thousand TLS handshakes at once may take long, and nobody is to be given up for that.
	cfg := Config{Addr: "127.0.0.1:0", Loops: 2, MaxConns: maxConns, HelloTimeout: patience}
	if cert := os.Getenv(limitedCert); cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(os.Getenv(limitedKey)))
		fail(err)
		cfg.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	e, err := New(cfg)
	fail(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	select {
	case <-e.Ready():
	case err := <-done:
		fail(err)
	}
	fmt.Println(e.Addr())
	out := json.NewEncoder(os.Stdout)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fail(out.Encode(e.Stats()))
	}
	stop()
	fail(<-done)
}

// limited is a limitedNode seen from the test.
type limited struct {
	t     *testing.T
	addr  string
	tls   *tls.Config // nil without TLS
	ask   io.WriteCloser
	reply *json.Decoder
}

func startLimited(t *testing.T, nofile, maxConns int, secure bool) *limited {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not the test's: it ends before the cleanup.
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	cmd := exec.CommandContext(ctx, exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", limitedEnv, nofile), fmt.Sprintf("%s=%d", limitedConns, maxConns))
	var config *tls.Config
	if secure {
		ca := certstest.NewCA(t, "test")
		pair := ca.Issue(t, certstest.Request{})
		cmd.Env = append(cmd.Env, limitedCert+"="+string(pair.CertPEM), limitedKey+"="+string(pair.KeyPEM))
		// A thousand handshakes use the curve that takes least time, above all with the race
		// detector.
		config = &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost", CurvePreferences: []tls.CurveID{tls.CurveP256}}
	}
	cmd.Stderr = io.Discard // it logs each accept that fails
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the node ended badly: %v", err)
		}
		cancel()
	})
	lines := bufio.NewReader(out)
	addr, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("the node did not start: %v", err)
	}
	return &limited{t: t, addr: strings.TrimSpace(addr), tls: config, ask: in, reply: json.NewDecoder(lines)}
}

// secure returns nc with TLS on it, if the node uses TLS.
func (n *limited) secure(nc net.Conn) net.Conn {
	if n.tls == nil {
		return nc
	}
	return tls.Client(nc, n.tls)
}

func (n *limited) stats() Stats {
	n.t.Helper()
	if _, err := io.WriteString(n.ask, "\n"); err != nil {
		n.t.Fatal(err)
	}
	var s Stats
	if err := n.reply.Decode(&s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// join returns a client of the node in the other process; its methods that ask the engine cannot be
// used.
func (n *limited) join(id string) (*client, error) {
	nc, err := net.DialTimeout("tcp", n.addr, patience)
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() { nc.Close() })
	c := clientOn(n.t, nil, n.secure(nc))
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	f, err := c.read()
	if err != nil || f.kind != codec.KindWelcome {
		return nil, fmt.Errorf("%v instead of welcome: %w", f.kind, err)
	}
	c.bind(id)
	return c, nil
}

// Without file descriptors new clients wait or are refused; those that are there notice nothing,
// and when there are some again, new ones get in.
func TestNoFileDescriptors(t *testing.T) {
	long(t)
	t.Parallel()
	const nofile = 1024
	for _, c := range []struct {
		name     string
		maxConns int
		refused  bool
		secure   bool
	}{
		{"MaxConns knows the limit", 0, false, false},
		{"MaxConns does not", 1 << 20, true, false},
		{"MaxConns knows the limit, TLS", 0, false, true},
		{"MaxConns does not, TLS", 1 << 20, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := startLimited(t, nofile, c.maxConns, c.secure)
			a, err := n.join("a")
			if err != nil {
				t.Fatal(err)
			}
			b, err := n.join("b")
			if err != nil {
				t.Fatal(err)
			}
			var flood []net.Conn
			var writing sync.WaitGroup
			endFlood := func() {
				for _, nc := range flood {
					nc.Close()
				}
				flood = nil
				writing.Wait()
			}
			defer endFlood()
			hello := codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})
			for i := range nofile + 300 {
				// Each from an address of its own: clients of one address do not get all places.
				from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i/200), byte(1+i%200))}
				nc, err := (&net.Dialer{LocalAddr: from, Timeout: patience}).Dial("tcp", n.addr)
				if err != nil { // refused is fine too
					break
				}
				flood = append(flood, nc)
				// Hello makes them stay. With TLS, it may wait for the node.
				writing.Go(func() { _, _ = n.secure(nc).Write(hello) })
				if i%50 == 0 {
					a.exchange("a", b, "b")
				}
			}
			deadline := time.Now().Add(patience)
			full := func(s Stats) bool {
				if c.refused {
					return s.Refused > 0 || s.Connections > nofile-60
				}
				return s.Connections == nofile-spareFDs
			}
			for !full(n.stats()) {
				if time.Now().After(deadline) {
					t.Fatalf("not full: %+v", n.stats())
				}
				a.exchange("a", b, "b")
			}
			for range 50 {
				a.exchange("a", b, "b")
				b.exchange("b", a, "a")
			}
			s := n.stats()
			t.Logf("%d connections, %d refused", s.Connections, s.Refused)
			endFlood()
			late, err := n.join("late")
			if err != nil {
				t.Fatalf("after the flood: %v", err)
			}
			late.exchange("late", a, "a")
			b.exchange("b", late, "late")
		})
	}
}
