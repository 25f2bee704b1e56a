package engine

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/internal/certs/certstest"
)

// secured is what a test of TLS has: an authority, and configurations of both sides.
type secured struct {
	ca             *certstest.CA
	server, client *tls.Config
}

func secure(t testing.TB) secured {
	ca := certstest.NewCA(t, "test")
	own := []tls.Certificate{ca.Issue(t, certstest.Request{}).TLS}
	return secured{
		ca: ca, server: &tls.Config{Certificates: own, ClientCAs: ca.Pool(), RootCAs: ca.Pool()},
		client: &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"},
	}
}

// dialTLS connects and does the handshake.
func (n *node) dialTLS(config *tls.Config) *client {
	n.t.Helper()
	c := n.dial()
	secure := tls.Client(c.nc, config)
	if err := secure.HandshakeContext(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
	c.nc = secure
	n.t.Cleanup(func() { secure.Close() })
	return c
}

// joinTLS connects with TLS and says hello.
func (n *node) joinTLS(config *tls.Config, ids ...string) *client {
	n.t.Helper()
	c := n.dialTLS(config)
	c.hello(codec.Hello{})
	if len(ids) > 0 {
		c.bind(ids...)
	}
	return c
}

// version returns a configuration that has one version of TLS.
func version(config *tls.Config, version uint16) *tls.Config {
	config = config.Clone()
	config.MinVersion, config.MaxVersion = version, version
	return config
}

// Clients with TLS exchange messages of all sizes, between loops and on one.
func TestTLS(t *testing.T) {
	s := secure(t)
	for _, v := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(v), func(t *testing.T) {
			n := start(t, Config{Loops: 2, TLS: s.server})
			a, b, c := n.joinTLS(version(s.client, v), "a"), n.joinTLS(version(s.client, v), "b"), n.joinTLS(version(s.client, v), "c")
			for _, size := range []int{0, 1, 100, 16 << 10, 16<<10 + 1, 100_000, 1 << 20} {
				text := strings.Repeat("x", size)
				for _, to := range []*client{b, c} {
					id := map[*client]string{b: "b", c: "c"}[to]
					seq := a.send("a", id, text)
					to.ack(to.gets("a", id, text), text)
					if o := a.hears(seq, codec.CodeAcked); string(o.Reply) != text {
						t.Errorf("a reply of %d bytes, want %d", len(o.Reply), size)
					}
				}
			}
			if held := n.counters().MemoryHeld; held < 3*5<<10 || held > 3*100<<10 {
				t.Errorf("TLS of three connections holds %d bytes", held)
			}
		})
	}
}

// Many small messages go out in few records: those of one iteration in one.
func TestTLSGathers(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	a, b := n.joinTLS(s.client, "a"), n.dial()
	count := &countingConn{Conn: b.nc}
	b.nc = tls.Client(count, s.client)
	b.hello(codec.Hello{})
	b.bind("b")
	var frames []byte
	for range 100 {
		frames = append(frames, sendFrame(0, "a", "b", "hello", 0, 0)...)
	}
	before := count.records()
	a.write(frames)
	for range 100 {
		b.gets("a", "b", "hello")
	}
	if got := count.records() - before; got > 3 { // usually 1
		t.Errorf("100 messages came in %d records", got)
	}
}

// countingConn counts the records that come in.
type countingConn struct {
	net.Conn
	mu  sync.Mutex
	in  []byte // the beginning of a record
	all int
}

func (c *countingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in = append(c.in, b[:n]...)
	for len(c.in) >= 5 {
		size := 5 + int(c.in[3])<<8 + int(c.in[4])
		if len(c.in) < size {
			break
		}
		c.in = c.in[size:]
		c.all++
	}
	return n, err
}

func (c *countingConn) records() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all
}

// What a client sends together with the end of its handshake is not lost.
func TestTLSEarlyFrames(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	c := n.dial()
	late := &lateConn{Conn: c.nc}
	secure := tls.Client(late, s.client)
	late.holds = true
	if err := secure.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := secure.Write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1})); err != nil {
		t.Fatal(err)
	}
	late.release(t)
	c.nc = secure
	c.expect(codec.KindWelcome)
}

// lateConn writes at once what was written since the second write.
type lateConn struct {
	net.Conn
	holds  bool
	writes int
	held   []byte
}

func (c *lateConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 1 || !c.holds { // the client's hello
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *lateConn) release(t *testing.T) {
	c.holds = false
	if _, err := c.Conn.Write(c.held); err != nil {
		t.Fatal(err)
	}
}

// The node says that nothing follows when it closes a connection, and takes that of a client for
// the end of its input: what came before is still handled.
func TestTLSEnd(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	a, b := n.joinTLS(s.client, "a"), n.joinTLS(s.client, "b")
	raw := a.nc.(*tls.Conn)
	a.write(sendFrame(0, "a", "b", "the last", 0, 0))
	if err := raw.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	b.gets("a", "b", "the last")
	if _, err := raw.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the node has answered the end with %v", err)
	}
	b.write(codec.AppendBye(nil))
	b.ends() // with close_notify; else io.ErrUnexpectedEOF
	n.eventually("both are gone", func() bool { return n.Stats().Connections == 0 })
}

// A client that closes the socket without a word is gone, too.
func TestTLSCutOff(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	a, b := n.joinTLS(s.client, "a"), n.joinTLS(s.client, "b")
	a.write(sendFrame(0, "a", "b", "the last", 0, 0))
	a.nc.(*tls.Conn).NetConn().Close()
	b.gets("a", "b", "the last")
	n.eventually("it is gone", func() bool { return n.Stats().Connections == 1 })
	b.alive()
}

// Garbage instead of records ends its connection and no other. The client hears an alert.
func TestTLSGarbage(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server})
	good := n.joinTLS(s.client, "good")
	for _, garbage := range []string{
		"\x17\x03\x03\x00\x20" + strings.Repeat("g", 32), // cannot be decrypted
		"\x17\x03\x03\xff\xff" + strings.Repeat("g", 32), // too long
		"\x99\x03\x03\x00\x20" + strings.Repeat("g", 32), // of no known type
		"GET / HTTP/1.1\r\n\r\n",
	} {
		c := n.joinTLS(s.client)
		raw := c.nc.(*tls.Conn)
		if _, err := raw.NetConn().Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		_ = raw.SetReadDeadline(time.Now().Add(patience))
		if _, err := raw.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("%q: %v", garbage[:5], err)
		}
		raw.NetConn().Close()
	}
	good.alive()
	if s := n.counters(); s.TLSFailed != 4 {
		t.Errorf("%d have failed because of TLS, want 4", s.TLSFailed)
	}
	n.eventually("they are gone", func() bool { return n.Stats().Connections == 1 })
}

// A client without TLS hears what is wrong in its own protocol, and the log names it.
func TestPlainClientAtTLSPort(t *testing.T) {
	log := &notes{}
	n := start(t, Config{TLS: secure(t).server, Logger: log.logger()})
	c := n.dial()
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	if e := c.fails(codec.FaultBadVersion); e.Message != "this address is for TLS only" {
		t.Errorf("%+v", e)
	}
	log.has(n, "refused a client without TLS: this address is for TLS only")
	if s := n.counters(); s.TLSFailed != 1 || len(s.Faults) > 0 {
		t.Errorf("%d have failed because of TLS; faults %v", s.TLSFailed, s.Faults)
	}
}

// A client with TLS at a port without hears that this is no TLS, and the log says what it was.
func TestTLSClientAtPlainPort(t *testing.T) {
	log := &notes{}
	n := start(t, Config{Logger: log.logger()})
	c := n.dial()
	err := tls.Client(c.nc, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not look like a TLS handshake") {
		t.Error(err)
	}
	log.has(n, "a client wants TLS, and this node does not use it")
}

// A client's certificate reaches the hook that authenticates, also when the session of TLS is
// resumed. A client that has none, or one of another CA, does not get in.
func TestMutualTLS(t *testing.T) {
	s := secure(t)
	s.server.ClientAuth = tls.RequireAndVerifyClientCert
	logins := make(chan Login, 1)
	n := start(t, Config{TLS: s.server, Hooks: Hooks{Authenticate: func(_ context.Context, l Login) (Identity, error) {
		logins <- l
		return Identity{Name: l.TLS.PeerCertificates[0].Subject.CommonName}, nil
	}}})
	s.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	s.client.Certificates = []tls.Certificate{s.ca.Issue(t, certstest.Request{CommonName: "alice"}).TLS}
	for i := range 2 {
		n.joinTLS(s.client).alive()
		if l := <-logins; l.TLS.DidResume != (i > 0) || l.TLS.VerifiedChains[0][0].Subject.CommonName != "alice" {
			t.Errorf("%d: resumed: %v, %v", i, l.TLS.DidResume, l.TLS.PeerCertificates[0].Subject)
		}
	}
	other := certstest.NewCA(t, "other").Issue(t, certstest.Request{CommonName: "mallory"})
	for _, certs := range [][]tls.Certificate{nil, {other.TLS}} {
		// TLS 1.2, because with 1.3 the client hears it only when it reads
		c := version(s.client, tls.VersionTLS12)
		c.Certificates, c.ClientSessionCache = certs, nil
		if err := tls.Client(n.dial().nc, c).HandshakeContext(t.Context()); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
			t.Errorf("with %d certificates: %v", len(certs), err)
		}
	}
}

// What GetConfigForClient returns counts from the next handshake on: new certificates are used,
// sessions of TLS are resumed all the same, and a client of a CA that was taken away does not get
// in, not even with a session that began before. Connections that exist go on.
func TestTLSReload(t *testing.T) {
	s, later := secure(t), secure(t)
	var now atomic.Pointer[tls.Config]
	use := func(pair secured, clients *certstest.CA) {
		c := pair.server.Clone()
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, clients.Pool()
		now.Store(c)
	}
	use(s, s.ca)
	n := start(t, Config{TLS: &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return now.Load(), nil },
	}})
	s.client.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	s.client.Certificates = []tls.Certificate{s.ca.Issue(t, certstest.Request{}).TLS}
	first := n.joinTLS(s.client, "first")
	renewed := s
	renewed.server = s.server.Clone()
	renewed.server.Certificates = []tls.Certificate{s.ca.Issue(t, certstest.Request{}).TLS}
	use(renewed, s.ca)
	second := n.joinTLS(s.client, "second")
	if !second.nc.(*tls.Conn).ConnectionState().DidResume {
		t.Error("the session of TLS was not resumed after a renewal")
	}
	use(renewed, later.ca)
	c := n.dial()
	c.nc = tls.Client(c.nc, s.client)
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	if f, err := c.read(); err == nil || !strings.Contains(err.Error(), "remote error: tls: ") {
		t.Errorf("%v %s, %v", f.kind, describe(f), err)
	}
	first.exchange("first", second, "second")
}
