package agents

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
)

// serve serves an agent until the end of the test.
func serve(t *testing.T, cfg AgentConfig) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Log = func(string, ...any) {}
	ended := make(chan error, 1)
	ctx := t.Context() // ends before the cleanup
	go func() { ended <- NewAgent(cfg).Serve(ctx, ln) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// TestTLS wants a link with TLS on both sides, and errors that say what to do if it is on one side
// only, or if one side does not trust the other.
func TestTLS(t *testing.T) {
	ca, other := certstest.NewCA(t, "ca"), certstest.NewCA(t, "other")
	pair := ca.Issue(t, certstest.Request{})
	server := &tls.Config{Certificates: []tls.Certificate{pair.TLS}}
	mutual := &tls.Config{Certificates: server.Certificates, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	trusts := &tls.Config{RootCAs: ca.Pool()}
	shows := &tls.Config{RootCAs: ca.Pool(), Certificates: server.Certificates}
	for name, c := range map[string]struct {
		agent, run *tls.Config
		says       string // empty: it works
	}{
		"both":               {server, trusts, ""},
		"certificates":       {mutual, shows, ""},
		"only the agent":     {server, nil, "uses TLS: add --agent-tls"},
		"only the run":       {nil, trusts, "does not use TLS"},
		"another authority":  {server, &tls.Config{RootCAs: other.Pool()}, "is not trusted: --agent-tls-ca"},
		"another name":       {server, &tls.Config{RootCAs: ca.Pool(), ServerName: "example.com"}, "--agent-tls-server-name"},
		"no certificate":     {mutual, trusts, "refuses the TLS handshake"},
		"a name of the host": {server, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLink(serve(t, AgentConfig{ListenTLS: c.agent}), "", c.run, newClock())
			defer l.close()
			err := l.meet(t.Context())
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), l.addr)) {
				t.Errorf("%v, want %q", err, c.says)
			}
		})
	}
}

// TestNoHTTP has something else at the address of an agent, such as a node.
func TestNoHTTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			// to close with a request that is not read would reset the connection
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = conn.Write([]byte("HTTP/1.1 frame.length\r\n"))
			conn.Close()
		}
	}()
	l := newLink(ln.Addr().String(), "", nil, newClock())
	defer l.close()
	if err := l.meet(t.Context()); err == nil || !strings.Contains(err.Error(), "is not the address of an agent") {
		t.Error(err)
	}
}

// TestDrift has an agent whose clock is faster by 50 ms at the end of a run than at its beginning.
func TestDrift(t *testing.T) {
	l := &link{first: reading{time.Hour, time.Millisecond}}
	if drift, _ := l.drift(); drift != nil {
		t.Errorf("the drift is %v, but nobody asked at the end", drift)
	}
	l.last = &reading{time.Hour + 50*time.Millisecond, 2 * time.Millisecond}
	if drift, bound := l.drift(); drift == nil || drift.Duration() != 50*time.Millisecond || bound.Duration() != 3*time.Millisecond {
		t.Errorf("the drift is %v (±%v)", drift, bound)
	}
}
