package faults

import (
	"crypto/tls"
	"testing"

	"distmsg/internal/certs/certstest"
)

// TestRollingTLS restarts all nodes, one by one, while clients and links use mutual TLS.
func TestRollingTLS(t *testing.T) {
	besides(t)
	dir, ca := t.TempDir(), certstest.NewCA(t, "ca")
	node, app := ca.Issue(t, certstest.Request{CommonName: "node"}).Write(t, dir, "node"), ca.Issue(t, certstest.Request{CommonName: "app"})
	file := ca.Write(t, dir)
	begin(t, "rolling-tls", Options{
		Nodes: 3,
		Flags: []string{"--tls-cert", node.CertFile, "--tls-key", node.KeyFile, "--tls-client-ca", file,
			"--peer-tls-cert", node.CertFile, "--peer-tls-key", node.KeyFile, "--peer-tls-ca", file},
		TLS: &tls.Config{Certificates: []tls.Certificate{app.TLS}, RootCAs: ca.Pool()},
	}, rolling)
}
