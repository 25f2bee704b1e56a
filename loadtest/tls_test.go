package loadtest

import (
	"crypto/tls"
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
		{secure, nil, "this address is for TLS only: add --tls"},
	} {
		_, err := Run(t.Context(), Config{Nodes: []string{c.addr}, TLS: c.config})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), c.addr) != 1 {
			t.Errorf("%v, want %q", err, c.want)
		}
	}
}
