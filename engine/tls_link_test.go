package engine

import (
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/internal/certs/certstest"
	"distmsg/routing"
)

// mutual makes both sides of links show certificates.
func (s secured) mutual() *tls.Config {
	c := s.server.Clone()
	c.ClientAuth = tls.RequireAndVerifyClientCert
	return c
}

// Links with TLS carry messages of all sizes both ways, and every one of them is encrypted.
func TestLinksWithTLS(t *testing.T) {
	s := secure(t)
	g := startGroupWith(t, 3, 2, func(c *Config) { c.PeerTLS = s.mutual() })
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	for _, size := range []int{1, 100, 50_000, 1 << 20} {
		text := string(make([]byte, size))
		for range 3 {
			seq := a.send("a", "b", text)
			b.ack(b.gets("a", "b", text), text)
			if o := a.hears(seq, codec.CodeAcked); len(o.Reply) != size {
				t.Errorf("a reply of %d bytes, want %d", len(o.Reply), size)
			}
		}
		b.exchange("b", a, "a")
	}
	for _, n := range g.nodes {
		var links atomic.Int32 // loops count at the same time
		ask(context.Background(), n.Engine, func(l *loop) bool {
			for _, c := range l.links.all {
				if w, ok := c.wire.(*tlsWire); ok && len(w.line.State().PeerCertificates) > 0 {
					links.Add(1)
				}
			}
			return true
		})
		if links.Load() != 2 {
			t.Errorf("node %s has %d links with TLS, want 2", n.NodeID(), links.Load())
		}
	}
}

// A node dials with what PeerTLSClient returns for the host.
func TestPeerTLSClient(t *testing.T) {
	s := secure(t)
	var hosts atomic.Value
	startGroupWith(t, 2, 1, func(c *Config) {
		c.PeerTLS = s.mutual()
		c.PeerTLS.RootCAs = certstest.NewCA(t, "of nobody").Pool()
		c.PeerTLSClient = func(host string) *tls.Config {
			hosts.Store(host)
			return s.mutual()
		}
	})
	if hosts.Load() != "127.0.0.1" {
		t.Errorf("asked for %v", hosts.Load())
	}
}

// pairOf starts two nodes that do not get together, each with a configuration of its own.
func pairOf(t *testing.T, change ...func(*Config)) (nodes [2]*node, logs [2]*notes) {
	t.Helper()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	for i := range nodes {
		logs[i] = &notes{}
		nodes[i] = g.start([]string{"n0", "n1"}[i], 1, func(c *Config) {
			c.Logger = logs[i].logger()
			change[i](c)
		})
	}
	return nodes, logs
}

// Nodes of which one has TLS and the other has not do not link, and both logs say why.
func TestLinkHalfTLS(t *testing.T) {
	s := secure(t)
	with, without := func(c *Config) { c.PeerTLS = s.mutual() }, func(*Config) {}
	// n0 dials
	nodes, logs := pairOf(t, with, without)
	logs[0].has(nodes[0], "a node does not use TLS for links, and this node does: use it on all nodes or on none", "node=n1")
	logs[1].has(nodes[1], "a node or a stranger wants TLS, and this node does not use TLS for links")
	nodes[0].lacksLink("n1", "it does not use TLS for links, and this node does")
	nodes, logs = pairOf(t, without, with)
	logs[0].has(nodes[0], "a node refused the link", "node=n1", "this address is for TLS only")
	nodes[0].lacksLink("n1", "it refuses the link: this address is for TLS only")
	logs[1].has(nodes[1], "refused a node or a stranger without TLS: this address is for TLS only")
}

// A node whose certificate is of another authority does not link, whichever of the two checks it.
// TLS alone is not enough either: a node has to know the secret.
func TestLinkRefused(t *testing.T) {
	s, other := secure(t), secure(t)
	stranger := other.mutual()
	stranger.RootCAs = s.ca.Pool() // it trusts the others, and they do not trust it
	ours, theirs := func(c *Config) { c.PeerTLS = s.mutual() }, func(c *Config) { c.PeerTLS = stranger }
	nodes, logs := pairOf(t, ours, theirs)
	logs[0].has(nodes[0], "the TLS handshake with a node failed", "node=n1", "unknown authority")
	nodes[0].lacksLink("n1", "the TLS handshake with it failed: tls: failed to verify certificate")
	logs[1].has(nodes[1], "the TLS handshake with a node or a stranger failed", "bad certificate")
	nodes, logs = pairOf(t, theirs, ours)
	logs[0].has(nodes[0], "TLS with a node failed", "node=n1", "remote error: tls: ")
	logs[1].has(nodes[1], "the TLS handshake with a node or a stranger failed", "unknown authority")
	nodes, logs = pairOf(t, ours, func(c *Config) {
		ours(c)
		c.ClusterSecret = []byte("another secret of the cluster")
	})
	logs[0].has(nodes[0], "a node does not know the cluster's secret")
	nodes[0].lacksLink("n1", "it does not know the cluster's secret")
	nodes, _ = pairOf(t, ours, func(c *Config) {
		ours(c)
		c.Cluster = "another"
	})
	nodes[0].lacksLink("n1", `it refuses the link: this node belongs to cluster "another"`)
	nodes[1].lacksLink("n0", "who connects from 127.0.0.1 under its name belongs to another cluster")
}

// lacksLink waits until health says why there is no link to a node.
func (n *node) lacksLink(to, why string) {
	n.t.Helper()
	n.eventually("why there is no link to "+to, func() bool {
		return slices.ContainsFunc(n.Health(), func(line string) bool {
			return strings.HasPrefix(line, fmt.Sprintf("no link to node %q: %s", to, why))
		})
	})
}

// Code of the application that runs in the handshake of a link and does not return ends that
// handshake only, at the node that dials and at the one that is dialled.
func TestLinkHandshakeDoesNotReturn(t *testing.T) {
	how := map[string]string{"panic": "panicked", "goexit": "called runtime.Goexit"}
	for name, ends := range notReturning {
		t.Run(name, func(t *testing.T) {
			s := secure(t)
			good := func(c *Config) { c.PeerTLS = s.mutual() }
			bad := func(c *Config) {
				good(c)
				c.PeerTLS.VerifyConnection = func(tls.ConnectionState) error { ends(); return nil }
			}
			nodes, logs := pairOf(t, bad, good) // n0 dials
			logs[0].has(nodes[0], "the TLS handshake with a node "+how[name], "TestLinkHandshakeDoesNotReturn", "stack=")
			nodes, logs = pairOf(t, good, bad)
			logs[1].has(nodes[1], "a TLS handshake "+how[name], "TestLinkHandshakeDoesNotReturn", "stack=")
		})
	}
}
