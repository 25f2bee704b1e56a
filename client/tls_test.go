package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/internal/certs/certstest"
)

// secureFake returns a fake node that uses TLS.
func secureFake(t testing.TB, config *tls.Config) *fakeNode {
	n := newFakeNode(t)
	n.ln = tls.NewListener(n.ln, config)
	return n
}

// TestTLS: a session works over TLS, also over what a Dialer opens. When it comes back to the node,
// it resumes the TLS session.
func TestTLS(t *testing.T) {
	ca := certstest.NewCA(t, "nodes")
	var resumed atomic.Bool
	n := secureFake(t, &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			resumed.Store(s.DidResume)
			return nil
		},
	}).start()
	var dialled atomic.Int64
	s, c := attachFake(t, n, Config{
		TLS: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}},
		Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
			dialled.Add(1)
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
	})
	for i := range 2 {
		sent := async(func() error {
			_, err := s.Send(testContext(t), Message{To: "you", From: "me", Payload: make([]byte, 900)})
			return err
		})
		f := c.expectSend()
		c.outcome(f.Seq, codec.CodeAcked)
		if err := receive(t, sent, "the outcome"); err != nil {
			t.Error(err)
		}
		if i == 0 {
			c.Close()
			c = n.accept()
		}
	}
	if !resumed.Load() || dialled.Load() != 2 {
		t.Errorf("TLS session resumed: %v; dialled %d times", resumed.Load(), dialled.Load())
	}
}

// async runs f on a goroutine of its own.
func async[T any](f func() T) <-chan T {
	done := make(chan T, 1)
	go func() { done <- f() }()
	return done
}

// TestTLSErrors: the error of Dial names the address, and what is wrong with the configuration.
func TestTLSErrors(t *testing.T) {
	ca, stranger := certstest.NewCA(t, "nodes"), certstest.NewCA(t, "stranger")
	own := []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}
	theirs := []tls.Certificate{stranger.Issue(t, certstest.Request{}).TLS}
	other := []tls.Certificate{ca.Issue(t, certstest.Request{Names: []string{"elsewhere.test"}}).TLS}
	asks := &tls.Config{Certificates: own, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert}
	trusts := &tls.Config{RootCAs: ca.Pool()}
	for _, test := range []struct {
		name         string
		node, client *tls.Config
		want         string
	}{
		{"another CA", &tls.Config{Certificates: theirs}, trusts, "unknown authority"},
		{"another name", &tls.Config{Certificates: other}, trusts, "cannot validate certificate for 127.0.0.1"},
		{"expired", &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, certstest.Request{NotAfter: time.Now().Add(-time.Minute)}).TLS}}, trusts, "expired"},
		{"no certificate", asks, trusts, "the node refuses the TLS handshake; if it asks for a certificate"},
		{"a certificate of another CA", asks, &tls.Config{RootCAs: ca.Pool(), Certificates: theirs}, "the node refuses the TLS handshake; if it asks for a certificate"},
		{"TLS 1.1", &tls.Config{Certificates: own, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, &tls.Config{RootCAs: ca.Pool(), MinVersion: tls.VersionTLS10}, "protocol version"},
		{"plain node", nil, trusts, "the node does not use TLS at this address"},
		{"plain client", &tls.Config{Certificates: own}, nil, "the node uses TLS at this address: set Config.TLS"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := lingering(t, test.node)
			_, err := Dial(testContext(t), Config{Nodes: []string{n}, TLS: test.client, Logger: quiet()})
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "node "+n) {
				t.Errorf("%v", err)
			}
		})
	}
}

// lingering is a server with or without TLS that fails each handshake, says why and waits until the
// client has closed the connection, so that the client can read it.
func lingering(t testing.TB, config *tls.Config) (addr string) {
	n := newFakeNode(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		nc, err := n.ln.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		if config == nil {
			_, _ = nc.Write(codec.AppendError(nil, &codec.ErrorFrame{Fault: codec.FaultFrameTooLarge, Flags: codec.ErrorClosing}))
		} else if tls.Server(nc, config).Handshake() != nil {
			// an alert, also to a client that has sent no TLS
			_, _ = nc.Write([]byte("\x15\x03\x03\x00\x02\x02\x28"))
		}
		_ = nc.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.Copy(io.Discard, nc)
	}()
	t.Cleanup(func() {
		n.ln.Close()
		<-over
	})
	return n.addr
}

// TestSecured: what the session needs is set in its copy, and the application's configuration stays
// as it is.
func TestSecured(t *testing.T) {
	given := &tls.Config{MinVersion: tls.VersionTLS10, Renegotiation: tls.RenegotiateFreelyAsClient, RootCAs: x509.NewCertPool()}
	c := secured(given)
	if c == given || given.MinVersion != tls.VersionTLS10 || given.ClientSessionCache != nil {
		t.Error("the application's configuration was changed")
	}
	if c.MinVersion != tls.VersionTLS12 || c.Renegotiation != tls.RenegotiateNever || c.RootCAs != given.RootCAs {
		t.Errorf("%+v", c)
	}
}
