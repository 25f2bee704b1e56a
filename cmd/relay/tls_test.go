package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/internal/certs/certstest"
	"distmsg/internal/cli"
	"distmsg/internal/proc"
	"distmsg/loadtest"
)

// tlsNode has the files of a node, and what its clients use.
type tlsNode struct {
	dir    string
	ca     *certstest.CA // of the node's certificate and of the clients'
	flags  []string
	client *tls.Config
}

func newTLSNode(t *testing.T) *tlsNode {
	n := &tlsNode{dir: t.TempDir(), ca: certstest.NewCA(t, "ca")}
	pair := n.ca.Issue(t, certstest.Request{}).Write(t, n.dir, "node")
	n.flags = []string{"--tls-cert=" + pair.CertFile, "--tls-key=" + pair.KeyFile, "--tls-client-ca=" + n.ca.Write(t, n.dir)}
	n.client = n.clientOf(t, n.ca)
	return n
}

// clientOf returns the configuration of a client whose certificate ca has signed.
func (n *tlsNode) clientOf(t *testing.T, ca *certstest.CA) *tls.Config {
	pair := ca.Issue(t, certstest.Request{CommonName: "app server"})
	return &tls.Config{
		RootCAs:              n.ca.Pool(), // shows the certificate whatever the node asks for
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair.TLS, nil },
	}
}

// attach opens a session, which binds id.
func attach(t *testing.T, addr, id string, config *tls.Config) (*client.Session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := client.Dial(ctx, client.Config{
		Nodes: []string{addr}, TLS: config, DialTimeout: patience, Logger: slog.New(slog.DiscardHandler),
		Handler: func(_ context.Context, d *client.Delivery) { d.Reply([]byte("I am " + id)) },
	})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s, s.Bind(ctx, id)
}

// refused reports how a node refuses a client that begins a TLS handshake.
func refused(t *testing.T, addr string, config *tls.Config) error {
	t.Helper()
	d := tls.Dialer{Config: config}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	// with TLS 1.3, a client hears that it is refused when it reads
	_ = c.SetReadDeadline(time.Now().Add(patience))
	_, err = c.Read(make([]byte, 1))
	return err
}

func TestTLSFlags(t *testing.T) {
	n := newTLSNode(t)
	other := certstest.NewCA(t, "other").Issue(t, certstest.Request{}).Write(t, n.dir, "other")
	cert, key, ca := n.flags[0], n.flags[1], n.flags[2]
	cluster := []string{"--node-id=n0", "--peers=n1=a:1/a:2", "--registry=redis://127.0.0.1:1"}
	peers := []string{"--peer-tls-cert=x", "--peer-tls-key=y", "--peer-tls-ca=z"}
	for _, tc := range []struct {
		args []string
		says string
	}{
		{[]string{cert}, "--tls-cert and --tls-key go together"},
		{[]string{key}, "--tls-cert and --tls-key go together"},
		{[]string{ca}, "--tls-client-ca needs --tls-cert and --tls-key"},
		{[]string{cert, key, "--tls-require-client-cert=false"}, "needs --tls-client-ca"},
		{[]string{cert, key, "--tls-min-version=1.1"}, `"1.1" is not 1.2 or 1.3`},
		{[]string{cert, "--tls-key=" + other.KeyFile}, other.KeyFile + " does not belong to"},
		{[]string{cert, key, "--tls-client-ca=" + other.KeyFile}, other.KeyFile + ": the file has no"},
		{[]string{cert, key + ".absent"}, "the key cannot be read"},
		{peers, "work only in a cluster"},
		{append(cluster, peers[:2]...), "--peer-tls-ca go together"},
		// TLS alone does not say who the clients are
		{[]string{cert, key, "--listen=0.0.0.0:0"}, "without authentication"},
	} {
		file := filepath.Join(t.TempDir(), "relay.yaml")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{tc.args, append([]string{"config", "check", file}, tc.args...)} {
			if code, _, stderr := run(t, args...); code != cli.ExitUsage || !strings.Contains(stderr, tc.says) {
				t.Errorf("%q: code %d, want %q in %s", args, code, tc.says, stderr)
			}
		}
	}
}

// TestTLS wants a node to take clients whose certificates it can verify, and nobody else.
func TestTLS(t *testing.T) {
	n := newTLSNode(t)
	// nobody gets in without a certificate, so other machines may connect
	p := start(t, nil, append(n.flags, "--listen=0.0.0.0:0")...)
	everywhere, _ := p.addresses()
	_, port, err := net.SplitHostPort(everywhere)
	if err != nil {
		t.Fatal(err)
	}
	addr := net.JoinHostPort("127.0.0.1", port)
	alice, err := attach(t, addr, "alice", n.client)
	if err != nil {
		t.Fatal(err)
	}
	expectReply(t, alice, "alice", "alice")

	bare := &tls.Config{RootCAs: n.ca.Pool()}
	strange := n.clientOf(t, certstest.NewCA(t, "other"))
	for name, config := range map[string]*tls.Config{"without a certificate": bare, "of another CA": strange} {
		if err := refused(t, addr, config); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
			t.Errorf("a client %s: %v", name, err)
		}
	}
	if _, err := attach(t, addr, "bob", nil); err == nil || !strings.Contains(err.Error(), "TLS") {
		t.Errorf("a client without TLS: %v", err)
	}
	impostor := &tls.Config{RootCAs: certstest.NewCA(t, "other").Pool()}
	if _, err := attach(t, addr, "bob", impostor); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a client that trusts another CA: %v", err)
	}
	expectReply(t, alice, "alice", "alice")
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
}

// TestTLSClientCertOptional lets clients in without a certificate, and refuses bad ones.
func TestTLSClientCertOptional(t *testing.T) {
	n := newTLSNode(t)
	p := start(t, nil, append(n.flags, "--tls-require-client-cert=false", "--tls-min-version=1.3", "--advertise=10.0.0.1:7400")...)
	p.waitFor("will refuse its certificate.*10.0.0.1")
	addr, _ := p.addresses()
	if _, err := attach(t, addr, "alice", &tls.Config{RootCAs: n.ca.Pool()}); err != nil {
		t.Error(err)
	}
	strange := n.clientOf(t, certstest.NewCA(t, "other"))
	if err := refused(t, addr, strange); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
		t.Errorf("a client of another CA: %v", err)
	}
	old := n.client.Clone()
	old.MaxVersion = tls.VersionTLS12
	if err := refused(t, addr, old); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("a client with TLS 1.2: %v", err)
	}
}

// TestTLSRotation replaces certificates and CAs while messages flow. No connection may be lost, and
// no message may have an untrue outcome.
func TestTLSRotation(t *testing.T) {
	n := newTLSNode(t)
	p := start(t, nil, n.flags...)
	addr, admin := p.addresses()
	next := certstest.NewCA(t, "next")
	both := n.client.Clone()
	both.RootCAs = n.ca.Pool()
	both.RootCAs.AddCert(next.Cert)
	shown := func() *x509.Certificate { return serverCert(t, addr, both) }

	until, started := make(chan struct{}), make(chan struct{})
	var load sync.WaitGroup
	var report *loadtest.Report
	var loadErr error
	load.Go(func() {
		report, loadErr = loadtest.Run(t.Context(), loadtest.Config{
			Nodes: []string{addr}, TLS: both, Conns: 20, Window: 4, Warmup: -1, Duration: time.Hour,
			Until: until, Started: func(func() loadtest.Snapshot) { close(started) },
		})
	})
	<-started

	// 1. The certificate is renewed, and the node sees it by itself.
	first := shown()
	n.ca.Issue(t, certstest.Request{}).Write(t, n.dir, "node")
	p.waitFor("TLS files have changed and are in use.*for=clients")
	if shown().Equal(first) {
		t.Error("new connections still get the old certificate")
	}
	// 2. Another CA comes. For a while, certificates of both are good. SIGHUP reads the files.
	write(t, n.dir, "ca.pem", append(append([]byte(nil), n.ca.PEM...), next.PEM...))
	next.Issue(t, certstest.Request{CommonName: "next"}).Write(t, n.dir, "node")
	p.signal(syscall.SIGHUP)
	p.waitFor("reloaded.*TLS files for clients")
	if cn := shown().Subject.CommonName; cn != "next" {
		t.Errorf("after SIGHUP, new connections get the certificate of %q", cn)
	}
	// 3. A half-written renewal changes nothing, and the node says so.
	write(t, n.dir, "node.key", []byte("garbage"))
	p.signal(syscall.SIGHUP)
	p.waitFor("reload failed.*node.key")
	eventually(t, "health names the file", contains(t, admin+"/healthz", "the TLS files for clients have changed and cannot be used"))
	// 4. The old CA goes. Its clients stay, and do not come back.
	next.Issue(t, certstest.Request{CommonName: "last"}).Write(t, n.dir, "node")
	next.Write(t, n.dir)
	p.waitFor("TLS files have changed and are in use")
	eventually(t, "well again", contains(t, admin+"/healthz", "\nok\n"))
	if err := refused(t, addr, both); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
		t.Errorf("a client of the old CA: %v", err)
	}

	close(until)
	load.Wait()
	if loadErr != nil {
		t.Fatal(loadErr)
	}
	if code, why := report.Verdict(); code != loadtest.ExitOK || report.LostConnections != 0 || report.Acked == 0 {
		t.Errorf("%d acked, %d connections lost, verdict %d: %s", report.Acked, report.LostConnections, code, why)
	}
}

// serverCert returns the certificate that a node shows now.
func serverCert(t *testing.T, addr string, config *tls.Config) *x509.Certificate {
	t.Helper()
	d := tls.Dialer{Config: config}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

// write replaces a file.
func write(t *testing.T, dir, name string, text []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// TestPeerTLS links nodes that trust each other, and no node of another CA, although it knows the
// cluster's secret.
func TestPeerTLS(t *testing.T) {
	redis := startRedis(t, proc.RedisOptions{})
	ca, logs := certstest.NewCA(t, "ca"), new(lockedBuffer)
	node := func(id string, ca *certstest.CA, peers string) (*proc.Relay, string) {
		dir := t.TempDir()
		pair := ca.Issue(t, certstest.Request{CommonName: id}).Write(t, dir, "node")
		relay, err := proc.StartRelay(t.Context(), proc.RelayOptions{
			Flags: []string{"--node-id", id, "--peers", peers, "--peer-listen", "{peer-addr}", "--registry", redis.URL(),
				"--peer-tls-cert", pair.CertFile, "--peer-tls-key", pair.KeyFile, "--peer-tls-ca", ca.Write(t, dir)},
			Env: []string{testSecret}, Log: logs,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(relay.Close)
		return relay, dir
	}
	list := func(id string, r *proc.Relay) string { return id + "=" + r.Addr + "/" + r.PeerAddr }
	n1, dir1 := node("n1", ca, "n0=127.0.0.1:1/127.0.0.1:2")
	n0, _ := node("n0", ca, list("n1", n1))
	alice, _ := session(t, n0.Addr, "alice"), session(t, n1.Addr, "bob")
	expectReply(t, alice, "alice", "bob")

	// The node's certificate is renewed. A link that exists goes on, and so does the next one.
	ca.Issue(t, certstest.Request{CommonName: "renewed"}).Write(t, dir1, "node")
	eventually(t, "the new certificate is in use", func() bool { return strings.Contains(logs.String(), "CN=renewed") })
	expectReply(t, alice, "alice", "bob")

	stranger, _ := node("m9", certstest.NewCA(t, "other"), list("n1", n1))
	eventually(t, "the stranger's handshake fails", func() bool { return strings.Contains(logs.String(), "TLS handshake") })
	if links, err := stranger.Metric(t.Context(), "distmsg_links"); err != nil || links != 0 {
		t.Errorf("a node of another CA has %v links, %v", links, err)
	}
	expectReply(t, alice, "alice", "bob")
}

// lockedBuffer is a log of several processes.
type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

var _ io.Writer = (*lockedBuffer)(nil)

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
