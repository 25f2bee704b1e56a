package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/engine"
)

const patience = 10 * time.Second

// serveAt serves until the test ends and returns the address.
func serveAt(t *testing.T, listen string, s Server) string {
	t.Helper()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, s)
	return l.Addr().String()
}

func serveOn(t *testing.T, l net.Listener, s Server) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	s.Handler, s.Logger = Handler(&fakeNode{}, Options{}), slog.New(slog.DiscardHandler)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// dial opens a connection that is closed when the test ends.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends a request with that Host and returns the status.
func ask(c net.Conn, host string) (int, error) {
	if _, err := fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// A page whose name resolves to loopback cannot read what is meant for this machine.
func TestHost(t *testing.T) {
	for _, tc := range []struct {
		name, listen string
		hosts        []string
		host         string
		want         int
	}{
		{"another name", "127.0.0.1:0", nil, "attacker.example:7401", http.StatusMisdirectedRequest},
		{"a name that begins like ours", "127.0.0.1:0", nil, "localhost.attacker.example", http.StatusMisdirectedRequest},
		{"localhost", "127.0.0.1:0", nil, "LocalHost.:7401", http.StatusOK},
		{"loopback", "127.0.0.1:0", nil, "127.0.0.1:7401", http.StatusOK},
		{"IPv6", "127.0.0.1:0", nil, "[::1]:7401", http.StatusOK},
		{"no host", "127.0.0.1:0", nil, "", http.StatusOK},
		{"a name that was given", "127.0.0.1:0", []string{"Relay.Internal"}, "relay.internal:7401", http.StatusOK},
		{"not the name that was given", "127.0.0.1:0", []string{"relay.internal"}, "relay.example", http.StatusMisdirectedRequest},
		{"not only loopback", "0.0.0.0:0", nil, "relay-1.example:7401", http.StatusOK},
		{"not only loopback, with names", "0.0.0.0:0", []string{"relay.internal"}, "relay-1.example:7401", http.StatusMisdirectedRequest},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := serveAt(t, tc.listen, Server{Hosts: tc.hosts})
			_, port, _ := net.SplitHostPort(addr)
			if got, err := ask(dial(t, net.JoinHostPort("127.0.0.1", port)), tc.host); err != nil || got != tc.want {
				t.Errorf("Host %q: %d, %v; want %d", tc.host, got, err, tc.want)
			}
		})
	}
}

// accepting is a listener that says when the server is through with the connections before.
type accepting struct {
	net.Listener
	again chan struct{}
}

func (a *accepting) Accept() (net.Conn, error) {
	a.again <- struct{}{}
	return a.Listener.Accept()
}

// Whoever holds connections without asking anything loses them, oldest first, and keeps nobody out.
func TestSilentConnections(t *testing.T) {
	const most = 4
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &accepting{l, make(chan struct{}, 8*most)}
	serveOn(t, server, Server{MaxConns: most})
	addr := l.Addr().String()
	useful := dial(t, addr)
	<-server.again // which is for useful
	<-server.again
	var silent []net.Conn
	for range 3 * most {
		silent = append(silent, dial(t, addr))
		<-server.again // so that the silent ones come one by one, and useful is never the oldest
		if status, err := ask(useful, "localhost"); err != nil || status != http.StatusOK {
			t.Fatalf("with %d silent connections: %d, %v", len(silent), status, err)
		}
	}
	if status, err := ask(dial(t, addr), "localhost"); err != nil || status != http.StatusOK {
		t.Errorf("a new connection: %d, %v", status, err)
	}
	soon := time.Now().Add(2 * time.Second) // before the server gives up waiting for their headers
	for i, c := range silent[:2*most] {
		if err := c.SetDeadline(soon); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("silent connection %d of %d is open: %v", i, len(silent), err)
		}
	}
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// However many ask for metrics at once, one is answered at a time, and probes do not wait for them.
func TestMetricsInTurn(t *testing.T) {
	entered, leave := make(chan struct{}, 16), make(chan struct{})
	node := &slowNode{fakeNode{ready: make(chan struct{})}, func() { entered <- struct{}{}; <-leave }}
	h := Handler(node, Options{})
	var begun, asking sync.WaitGroup
	for range cap(entered) {
		begun.Add(1)
		asking.Go(func() {
			begun.Done()
			if code, body := get(t, h, "/metrics"); code != http.StatusOK || !strings.Contains(body, "distmsg_loops") {
				t.Errorf("%d %q", code, body)
			}
		})
	}
	<-entered
	begun.Wait()
	for range 10 {
		if code, body := get(t, h, "/healthz"); code != http.StatusOK {
			t.Errorf("%d %q", code, body)
		}
	}
	for range cap(entered) - 1 {
		if more := len(entered); more > 0 {
			t.Errorf("%d more are answered at the same time", more)
		}
		leave <- struct{}{}
		<-entered
	}
	leave <- struct{}{}
	asking.Wait()
}

// slowNode calls a function whenever it is asked for its counters.
type slowNode struct {
	fakeNode
	asked func()
}

func (n *slowNode) Stats() engine.Stats {
	n.asked()
	return n.fakeNode.Stats()
}
