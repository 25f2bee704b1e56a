package loadtest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"distmsg/engine"
	"distmsg/internal/certs/certstest"
)

// tlsEnds returns what a server and a client that trust each other use.
func tlsEnds(t *testing.T) (server, client *tls.Config) {
	ca := certstest.NewCA(t, "ca")
	p := ca.Issue(t, certstest.Request{})
	return &tls.Config{Certificates: []tls.Certificate{p.TLS}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert},
		&tls.Config{Certificates: []tls.Certificate{p.TLS}, RootCAs: ca.Pool()}
}

// TestTLS runs loads over TLS, with both drivers of the node's protocol.
func TestTLS(t *testing.T) {
	long(t)
	t.Parallel()
	server, client := tlsEnds(t)
	node := startEngine(t, engine.Config{Loops: 2, TLS: server})
	for name, change := range map[string]func(*Config){
		"acked":         func(*Config) {},
		"TLS 1.2":       func(c *Config) { c.TLS = client.Clone(); c.TLS.MaxVersion = tls.VersionTLS12 },
		"no ack":        func(c *Config) { c.NoAck = true },
		"large payload": func(c *Config) { c.Payload = 100_000 },
		"sdk":           func(c *Config) { c.Driver = DriverSDK },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := quick
			cfg.Nodes, cfg.TLS = []string{node}, client
			change(&cfg)
			r := runUntil(t, cfg, func(s Snapshot) bool { return s.Delivered > 100 })
			checkClean(t, r)
			if !r.Config.TLS {
				t.Error("the report does not say that the run used TLS")
			}
		})
	}
}

// TestTLSRefused wants errors that say what to do.
func TestTLSRefused(t *testing.T) {
	t.Parallel()
	server, client := tlsEnds(t)
	plain, secure := startEngine(t, engine.Config{Loops: 1}), startEngine(t, engine.Config{Loops: 1, TLS: server})
	otherCA := client.Clone()
	otherCA.RootCAs = certstest.NewCA(t, "other").Pool()
	otherName := client.Clone()
	otherName.ServerName = "example.com"
	for _, c := range []struct {
		addr   string
		config *tls.Config
		want   string
	}{
		{secure, otherCA, "is not trusted"},
		{secure, otherName, "not example.com"},
		{secure, &tls.Config{RootCAs: client.RootCAs, MaxVersion: tls.VersionTLS12}, "refuses the TLS handshake"},
		{secure, &tls.Config{RootCAs: client.RootCAs}, "refuses the TLS handshake"},
		{plain, client, "does not use TLS"},
		{secure, nil, "this address is for TLS only"},
	} {
		_, err := Run(t.Context(), Config{Nodes: []string{c.addr}, TLS: c.config})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), c.addr) != 1 {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}

// TestTunnel hands what a server sends to a tunnel, in parts of every size.
func TestTunnel(t *testing.T) {
	server, client := tlsEnds(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, size := range []int{1, 2, 3, 5, 100, 16 << 10, 1 << 20} {
			config := client.Clone()
			config.MaxVersion = version
			testTunnel(t, server, config, size)
		}
	}
}

func testTunnel(t *testing.T, server, client *tls.Config, size int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	text := bytes.Repeat([]byte("0123456789abcdef"), 4<<10) // four records
	served := make(chan error, 1)
	var heard []byte
	go func() {
		served <- func() error {
			c, err := ln.Accept()
			if err != nil {
				return err
			}
			defer c.Close()
			secure := tls.Server(c, server)
			if _, err := secure.Write(text); err != nil {
				return err
			}
			if err := secure.CloseWrite(); err != nil {
				return err
			}
			heard, err = io.ReadAll(secure)
			return err
		}()
	}()
	socket, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	tunnel, err := secure(t.Context(), client, socket, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if b, err := tunnel.open(nil, nil); len(b) > 0 || err != nil {
		t.Errorf("without input: %q, %v", b, err)
	}
	out, err := tunnel.seal(text[:100], false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Write(out); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for part := make([]byte, size); err == nil; {
		var n int
		n, readErr := socket.Read(part)
		if readErr != nil {
			t.Fatalf("parts of %d: %v before the end of TLS", size, readErr)
		}
		got, err = tunnel.open(got, part[:n])
	}
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, text) {
		t.Fatalf("parts of %d: %d bytes, %v", size, len(got), err)
	}
	if out, err = tunnel.seal(text[100:200], true); err != nil {
		t.Fatal(err)
	}
	if _, err := socket.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil || !bytes.Equal(heard, text[:200]) {
		t.Fatalf("parts of %d: the server has heard %d bytes, %v", size, len(heard), err)
	}
}
