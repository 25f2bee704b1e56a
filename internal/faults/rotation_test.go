package faults

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/client"
	"distmsg/internal/certs/certstest"
	"distmsg/internal/identity"
	"distmsg/internal/proc"
	"distmsg/loadtest"
)

// safe is everything that proves who somebody is: certificates, tokens, keys of JWTs, and the
// secret of the cluster. Nodes and clients read it from files, and keys from a web server.
// Generation g of each of them is replaced by generation g+1.
type safe struct {
	t   *testing.T
	dir string

	cas     []*certstest.CA
	apps    []tls.Certificate    // of the clients; one of each CA
	keys    []ed25519.PrivateKey // that sign JWTs
	secrets []string
	tokens  []string
	lines   []identity.TokenLine // of the tokens

	roots  *x509.CertPool // all CAs
	app    atomic.Int32   // the generation of the certificate that clients show
	jwks   atomic.Pointer[string]
	server *httptest.Server // serves jwks
}

// loadName is the name under which all connections log in, with a token or a JWT. Both loads hear
// when the token is removed.
const loadName = "load"

func newSafe(t *testing.T, generations int) *safe {
	s := &safe{t: t, dir: t.TempDir(), roots: x509.NewCertPool()}
	for g := range generations {
		ca := certstest.NewCA(t, fmt.Sprint("ca", g))
		s.roots.AddCert(ca.Cert)
		s.cas = append(s.cas, ca)
		s.apps = append(s.apps, ca.Issue(t, certstest.Request{CommonName: "app"}).TLS)
		_, key, err := ed25519.GenerateKey(rand.Reader)
		s.check(err)
		s.keys = append(s.keys, key)
		s.secrets = append(s.secrets, rand.Text())
		token, line, err := identity.NewToken(loadName, identity.Rights{IDs: identity.Patterns{"lt-*"}}, time.Time{})
		s.check(err)
		s.tokens, s.lines = append(s.tokens, token), append(s.lines, line)
	}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, *s.jwks.Load()) }))
	t.Cleanup(s.server.Close)
	s.writePEM("ca.pem", 0)
	s.issue(0)
	s.write("secret", s.secrets[0])
	s.check(identity.AddToken(s.path("tokens"), s.lines[0]))
	s.publish(0, 1)
	s.hand(0)
	return s
}

func (s *safe) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *safe) path(name string) string { return filepath.Join(s.dir, name) }

// write replaces a file as a whole.
func (s *safe) write(name, text string) {
	s.t.Helper()
	s.check(errors.Join(os.WriteFile(s.path(name+".new"), []byte(text+"\n"), 0o600), os.Rename(s.path(name+".new"), s.path(name))))
}

// writePEM writes the certificates of CAs to a file.
func (s *safe) writePEM(name string, generations ...int) {
	var text strings.Builder
	for _, g := range generations {
		text.Write(s.cas[g].PEM)
	}
	s.write(name, text.String())
}

// issue gives the nodes a certificate of a CA. Its name is the generation.
func (s *safe) issue(g int) {
	s.cas[g].Issue(s.t, certstest.Request{CommonName: fmt.Sprint("node", g)}).Write(s.t, s.dir, "node")
}

// publish makes the server serve these keys.
func (s *safe) publish(generations ...int) {
	s.t.Helper()
	var keys []map[string]string
	for _, g := range generations {
		keys = append(keys, map[string]string{
			"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": fmt.Sprint("key", g),
			"x": base64.RawURLEncoding.EncodeToString(s.keys[g].Public().(ed25519.PublicKey)),
		})
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	s.check(err)
	s.jwks.Store(new(string(text)))
}

// hand gives both loads what they show at their next login.
func (s *safe) hand(g int) {
	s.write("load.token", s.tokens[g])
	s.write("load.jwt", s.jwt(g))
}

// jwt returns a JWT that a key has signed.
func (s *safe) jwt(g int) string {
	s.t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"sub": loadName, "exp": time.Now().Add(time.Hour).Unix(), "distmsg": map[string]any{"ids": []string{"lt-*"}},
	})
	token.Header["kid"] = fmt.Sprint("key", g)
	text, err := token.SignedString(s.keys[g])
	s.check(err)
	return text
}

// clients returns what clients use, who show the certificate of the current generation.
func (s *safe) clients() *tls.Config {
	return &tls.Config{RootCAs: s.roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &s.apps[s.app.Load()], nil
	}}
}

func (s *safe) flags() []string {
	return []string{
		"--tls-cert", s.path("node.pem"), "--tls-key", s.path("node.key"), "--tls-client-ca", s.path("ca.pem"),
		"--peer-tls-cert", s.path("node.pem"), "--peer-tls-key", s.path("node.key"), "--peer-tls-ca", s.path("ca.pem"),
		"--auth-token-file", s.path("tokens"), "--auth-jwks-url", s.server.URL, "--cluster-secret-file", s.path("secret"),
	}
}

// TestRotation replaces certificates and their CA, tokens, the keys of JWTs and the cluster's
// secret, while clients send. No connection is lost, every send is acked, and nobody gets in with
// what was replaced.
func TestRotation(t *testing.T) {
	besides(t)
	rounds := 1
	if *full {
		rounds = 3
	}
	s := newSafe(t, rounds+2)
	begin(t, "rotation", Options{Nodes: 3, Flags: s.flags(), TLS: s.clients(), Login: s.path("load.token")}, func(p *proof) {
		other, err := startLoad(p.ctx, p.c, loadtest.Config{
			Driver: loadtest.DriverRelay, Conns: loadConns, IDsPerConn: loadIDs, Window: 1, CredentialsFile: s.path("load.jwt"),
		})
		p.check(err)
		defer other.Stop()
		for g := range rounds {
			r := rotation{p, s, g, g + 1}
			r.certificates()
			r.secret()
			r.logins()
			r.lastSecret()
		}
		p.Count("clients that did not log in again", 0, p.sum("distmsg_logins_cut_total"))
		for name, load := range map[string]*Load{"token, SDK": p.load, "JWT, wire": other} {
			report, err := load.Stop()
			p.check(err)
			p.LedgerOf("ledger, "+name, report)
			p.Outcomes("sends, "+name, report.Outcomes, "acked")
			p.Count("lost connections, "+name, 0, int(report.LostConnections))
			p.Logf("%s: %d sessions moved %d times", name, loadConns, report.Moves)
		}
	})
}

// rotation replaces one generation by the next.
type rotation struct {
	*proof
	*safe
	old, new int
}

// sum returns the sum of a metric over all nodes.
func (p *proof) sum(name string) (sum int) {
	p.Helper()
	for _, node := range p.c.Nodes {
		n, err := node.Metric(p.ctx, name)
		p.check(err)
		sum += int(n)
	}
	return sum
}

// eventually waits until ok returns true.
func (p *proof) eventually(what string, ok func() bool) {
	p.Helper()
	for deadline := time.Now().Add(settleTimeout); !ok(); {
		if !Pause(p.ctx, pollEvery) || time.Now().After(deadline) {
			p.Fatalf("not within %v: %s", settleTimeout, what)
		}
	}
}

// reload makes all nodes read their files, and waits until they have.
func (r *rotation) reload() {
	r.proof.Helper()
	for _, node := range r.c.Nodes {
		before := strings.Count(node.Output(), "msg=reloaded")
		r.proof.check(node.Signal(syscall.SIGHUP))
		r.eventually(node.Addr+" has reloaded", func() bool { return strings.Count(node.Output(), "msg=reloaded") > before })
	}
}

// certificates replaces the CA, and the certificates of nodes and clients.
func (r *rotation) certificates() {
	r.writePEM("ca.pem", r.old, r.new)
	r.reload()
	r.issue(r.new)
	r.app.Store(int32(r.new))
	r.reload()
	r.writePEM("ca.pem", r.new)
	r.reload()
	for _, node := range r.c.Nodes {
		for _, addr := range []string{node.Addr, node.PeerAddr} {
			if cn, err := r.shake(addr, r.new); err != nil || cn != fmt.Sprint("node", r.new) {
				r.Errorf("%s: the certificate of %q, %v", addr, cn, err)
			}
			if _, err := r.shake(addr, r.old); err == nil || !strings.Contains(err.Error(), "remote error: tls") {
				r.Errorf("%s: a certificate of the old CA: %v", addr, err)
			}
		}
	}
}

// shake does a TLS handshake with a certificate of some generation. It returns the name in the
// certificate of the node, and what the node says if it does not accept the client's.
func (r *rotation) shake(addr string, g int) (name string, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, takerPatience)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{RootCAs: r.roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &r.apps[g], nil // whatever the node asks for
	}}}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	name = c.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName
	c.SetDeadline(time.Now().Add(takerPatience))
	c.Write([]byte("no frame, so the node says something and closes"))
	// with TLS 1.3, a client hears only now that it was refused
	if _, err = io.ReadAll(c); err != nil && strings.Contains(err.Error(), "remote error: tls") {
		return name, err
	}
	return name, nil
}

// secret makes all nodes use the new secret and still accept the old one. All clients move to new
// connections, so that their sessions can be resumed with the new one.
func (r *rotation) secret() {
	r.write("secret", r.secrets[r.old]+"\n"+r.secrets[r.new])
	r.reload()
	open := r.sum("distmsg_connections") // links included
	want := r.sum("distmsg_connections_accepted_total") + 2*loadConns
	r.write("secret", r.secrets[r.new]+"\n"+r.secrets[r.old])
	r.reload()
	r.eventually("all clients have moved", func() bool {
		return r.sum("distmsg_connections_accepted_total") >= want && r.sum("distmsg_connections") == open
	})
}

// lastSecret makes the old secret worth nothing.
func (r *rotation) lastSecret() {
	r.write("secret", r.secrets[r.new])
	r.reload()
	r.write("former", r.secrets[r.old])
	options := r.c.Relay(fmt.Sprint("former", r.old), r.c.Redis)
	options.Flags = append(append(options.Flags, r.flags()...), "--cluster-secret-file", r.path("former"))
	if stranger, err := proc.StartRelay(r.ctx, options); err == nil || !strings.Contains(err.Error(), "secret") {
		r.Errorf("a node with the old secret: %v", err)
		if err == nil {
			stranger.Close()
		}
	}
	r.proof.check(r.c.WaitLinked(r.ctx))
}

// logins replaces the token and the key of JWTs. Both loads log in again, because their name has
// lost a token.
func (r *rotation) logins() {
	open := r.sum("distmsg_connections") // links included
	want := r.sum("distmsg_connections_accepted_total") + 2*loadConns
	ended := r.sum("distmsg_logins_ended_total") + 2*loadConns
	r.proof.check(identity.AddToken(r.path("tokens"), r.lines[r.new]))
	r.reload()
	r.hand(r.new)
	_, err := identity.RemoveToken(r.path("tokens"), r.lines[r.old].Key)
	r.proof.check(err)
	r.publish(r.new, r.new+1)
	r.reload()
	r.eventually("all connections have logged in again", func() bool {
		return r.sum("distmsg_connections_accepted_total") >= want && r.sum("distmsg_logins_ended_total") >= ended &&
			r.sum("distmsg_connections") == open
	})
	for _, node := range r.c.Nodes {
		if err := r.login(node, r.tokens[r.old]); err == nil || !strings.Contains(err.Error(), "unknown, wrong or removed") {
			r.Errorf("%s: the old token: %v", node.Addr, err)
		}
		if err := r.login(node, r.tokens[r.new]); err != nil {
			r.Errorf("%s: the new token: %v", node.Addr, err)
		}
		// A key that the node does not know makes it fetch the keys, but not more often than each
		// 10 s.
		r.eventually("it knows the newest key", func() bool { return r.login(node, r.jwt(r.new+1)) == nil })
		if err := r.login(node, r.jwt(r.old)); err == nil {
			r.Errorf("%s lets in a JWT that the old key has signed", node.Addr)
		}
	}
}

// login opens a session at a node, and closes it.
func (r *rotation) login(node *proc.Relay, credentials string) error {
	ctx, cancel := context.WithTimeout(r.ctx, 3*time.Second)
	defer cancel()
	s, err := client.Dial(ctx, client.Config{
		Nodes: []string{node.Addr}, TLS: r.clients(), Credentials: []byte(credentials),
		Handler: func(context.Context, *client.Delivery) {}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return s.Close(r.ctx)
}
