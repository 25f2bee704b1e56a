package certs

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"distmsg/internal/certs/certstest"
)

// onlySession is a cache for one session, which no other name and no new state takes away.
type onlySession struct{ session *tls.ClientSessionState }

func (c *onlySession) Get(string) (*tls.ClientSessionState, bool) {
	return c.session, c.session != nil
}
func (c *onlySession) Put(_ string, s *tls.ClientSessionState) { c.session = s }

// shake connects two ends, lets each say a byte, and returns how it went for them.
func shake(t *testing.T, server, client *tls.Config) (resumed bool, atServer, atClient error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	talk := func(c *tls.Conn, first bool) error {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if err := c.Handshake(); err != nil {
			return err
		}
		steps := []func() error{
			func() error { _, err := c.Write([]byte{1}); return err },
			func() error { _, err := io.ReadFull(c, make([]byte, 1)); return err },
		}
		if !first {
			steps[0], steps[1] = steps[1], steps[0]
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	}
	go func() {
		c, err := l.Accept()
		if err == nil {
			err = talk(tls.Server(c, server), true)
		}
		ended <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(c, client)
	atClient = talk(conn, false)
	return conn.ConnectionState().DidResume, <-ended, atClient
}

// ends is a server and a client that trust each other.
type ends struct {
	ca             *certstest.CA
	serverDir, dir string
	server, client *Store
	version        uint16
}

func newEnds(t *testing.T, version uint16, optional bool) *ends {
	e := &ends{ca: certstest.NewCA(t, "ca"), serverDir: t.TempDir(), dir: t.TempDir(), version: version}
	for _, end := range []struct {
		dir string
		to  **Store
	}{{e.serverDir, &e.server}, {e.dir, &e.client}} {
		p := e.ca.Issue(t, certstest.Request{}).Write(t, end.dir, "x")
		s, err := Open(Config{Files: Files{p.CertFile, p.KeyFile, e.ca.Write(t, end.dir)}, ClientCertOptional: optional})
		if err != nil {
			t.Fatal(err)
		}
		*end.to = s
	}
	return e
}

// dial returns the client's configuration, for this version of TLS only.
func (e *ends) dial(name string) *tls.Config {
	cfg := e.client.Client(name)
	cfg.MaxVersion = e.version
	return cfg
}

func (e *ends) mustShake(t *testing.T, server, client *tls.Config, wantResumed bool) {
	t.Helper()
	resumed, atServer, atClient := shake(t, server, client)
	if resumed != wantResumed || atServer != nil || atClient != nil {
		t.Fatalf("resumed %v, server: %v, client: %v", resumed, atServer, atClient)
	}
}

func versions(t *testing.T, test func(t *testing.T, version uint16)) {
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) { test(t, v) })
	}
}

func TestResume(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		e := newEnds(t, v, false)
		server := e.server.Server()
		e.mustShake(t, server, e.dial("127.0.0.1"), false)
		e.mustShake(t, server, e.dial("127.0.0.1"), true)
		e.mustShake(t, server, e.dial("localhost"), false)
		// the server's new certificate is used at once, and sessions go on
		e.ca.Issue(t, certstest.Request{}).Write(t, e.serverDir, "x")
		if err := e.server.Reload(); err != nil {
			t.Fatal(err)
		}
		e.mustShake(t, server, e.dial("localhost"), true)
		// a client's new certificate is shown at once
		e.ca.Issue(t, certstest.Request{}).Write(t, e.dir, "x")
		if err := e.client.Reload(); err != nil {
			t.Fatal(err)
		}
		e.mustShake(t, server, e.dial("localhost"), false)
	})
}

// TestClientRefuses wants a client to refuse servers that are not what they should be, even if it
// has a session of them that it could resume.
func TestClientRefuses(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		for _, kept := range []bool{false, true} {
			for _, tc := range []struct {
				name   string
				change func(e *ends, cfg *tls.Config)
				want   string
			}{
				{"nothing", func(*ends, *tls.Config) {}, ""},
				{"name", func(_ *ends, cfg *tls.Config) { cfg.ServerName = "example.com" }, "certificate is valid for localhost, not example.com"},
				{"address", func(_ *ends, cfg *tls.Config) { cfg.ServerName = "10.0.0.1" }, "certificate is valid for 127.0.0.1, ::1, not 10.0.0.1"},
				{"no name", func(_ *ends, cfg *tls.Config) { cfg.ServerName = "" }, "either ServerName or InsecureSkipVerify must be specified"},
				{"expired", func(_ *ends, cfg *tls.Config) {
					cfg.Time = func() time.Time { return time.Now().Add(25 * time.Hour) }
				}, "certificate has expired"},
				{"other CA", func(e *ends, cfg *tls.Config) {
					certstest.NewCA(t, "other").Write(t, e.dir)
					if err := e.client.Reload(); err != nil {
						t.Fatal(err)
					}
					cfg.RootCAs = e.dial("").RootCAs
				}, "certificate signed by unknown authority"},
			} {
				e, cache := newEnds(t, v, false), &onlySession{}
				server, cfg := e.server.Server(), e.dial("127.0.0.1")
				cfg.ClientSessionCache = cache
				if kept {
					e.mustShake(t, server, cfg, false)
				}
				next := cfg.Clone()
				tc.change(e, next)
				resumed, _, err := shake(t, server, next)
				if tc.want == "" && (err != nil || resumed != kept) {
					t.Errorf("%s, with a session %v: resumed %v, %v", tc.name, kept, resumed, err)
				}
				if tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("%s, with a session %v: %v, want %q", tc.name, kept, err, tc.want)
				}
			}
		}
	})
}

// TestServerRefuses wants a server to refuse clients, even if they have a session that the server
// has let in before.
func TestServerRefuses(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		for _, kept := range []bool{false, true} {
			for _, tc := range []struct {
				name   string
				change func(e *ends, server, client *tls.Config)
				want   string
			}{
				{"no certificate", func(_ *ends, _, client *tls.Config) {
					client.Certificates, client.ClientSessionCache = nil, nil
				}, "client didn't provide a certificate"},
				{"other CA", func(_ *ends, _, client *tls.Config) {
					p := certstest.NewCA(t, "other").Issue(t, certstest.Request{})
					// a client that does not look which CAs the server names
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &p.TLS, nil }
					client.ClientSessionCache = nil
				}, "certificate signed by unknown authority"},
				{"for servers only", func(e *ends, _, client *tls.Config) {
					p := e.ca.Issue(t, certstest.Request{Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
					client.Certificates, client.ClientSessionCache = []tls.Certificate{p.TLS}, nil
				}, "incompatible key usage"},
				{"expired", func(e *ends, _, client *tls.Config) {
					p := e.ca.Issue(t, certstest.Request{NotAfter: time.Now().Add(-time.Minute)})
					client.Certificates, client.ClientSessionCache = []tls.Certificate{p.TLS}, nil
				}, "certificate has expired"},
				{"CA withdrawn", func(e *ends, _, client *tls.Config) {
					certstest.NewCA(t, "other").Write(t, e.serverDir)
					if err := e.server.Reload(); err != nil {
						t.Fatal(err)
					}
					shown := client.Certificates[0]
					client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &shown, nil }
				}, "certificate signed by unknown authority"},
			} {
				e := newEnds(t, v, false)
				server, client := e.server.Server(), e.dial("localhost")
				client.ClientSessionCache = &onlySession{}
				if kept {
					e.mustShake(t, server, client, false)
				}
				tc.change(e, server, client)
				_, err, _ := shake(t, server, client)
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s, with a session %v: %v, want %q", tc.name, kept, err, tc.want)
				}
			}
		}
	})
}

// TestServerForgets lets a client in that has a session, but not after its certificate has ended.
func TestServerForgets(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		e := newEnds(t, v, false)
		late := func() time.Time { return time.Now().Add(25 * time.Hour) }
		server, client := e.server.Server(), e.dial("localhost")
		client.ClientSessionCache = &onlySession{}
		e.mustShake(t, server, client, false)
		e.mustShake(t, server, client, true)
		inner := e.server.now.Load().server.Clone()
		inner.Time = late // only the server's clock
		server.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return inner, nil }
		if _, err, _ := shake(t, server, client); err == nil || !strings.Contains(err.Error(), "certificate has expired") {
			t.Errorf("%v", err)
		}
	})
}

func TestOptionalClientCert(t *testing.T) {
	versions(t, func(t *testing.T, v uint16) {
		e := newEnds(t, v, true)
		bare := e.dial("localhost")
		bare.Certificates = nil
		e.mustShake(t, e.server.Server(), bare, false)
		other := certstest.NewCA(t, "other").Issue(t, certstest.Request{})
		bare.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &other.TLS, nil }
		bare.ClientSessionCache = nil
		if _, err, _ := shake(t, e.server.Server(), bare); err == nil || !strings.Contains(err.Error(), "unknown authority") {
			t.Errorf("a certificate of another CA: %v", err)
		}
	})
}

// TestOldVersion refuses a version below the minimum.
func TestOldVersion(t *testing.T) {
	e := newEnds(t, tls.VersionTLS12, false)
	s, err := Open(Config{Files: e.server.cfg.Files, MinVersion: tls.VersionTLS13})
	if err != nil {
		t.Fatal(err)
	}
	if _, err, _ := shake(t, s.Server(), e.dial("localhost")); err == nil || !strings.Contains(err.Error(), "unsupported versions") {
		t.Errorf("%v", err)
	}
	old := e.dial("localhost")
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if _, err, _ := shake(t, e.server.Server(), old); err == nil || !strings.Contains(err.Error(), "unsupported versions") {
		t.Errorf("%v", err)
	}
}
