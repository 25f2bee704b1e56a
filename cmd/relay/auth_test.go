package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/internal/certs/certstest"
	"distmsg/internal/cli"
	"distmsg/internal/identity"
)

// connect opens a session with the SDK.
func connect(t *testing.T, addr, credentials string) (*client.Session, error) {
	t.Helper()
	return connectWith(t, client.Config{Nodes: []string{addr}, Credentials: []byte(credentials)})
}

func connectWith(t *testing.T, cfg client.Config) (*client.Session, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg.Handler = func(context.Context, *client.Delivery) {}
	s, err := client.Dial(ctx, cfg)
	if err == nil {
		t.Cleanup(func() { s.Close(context.Background()) })
	}
	return s, err
}

// mayBind connects and binds an ID that the credentials allow, and one that they do not.
func mayBind(t *testing.T, addr, credentials, good, bad string) {
	t.Helper()
	s, err := connect(t, addr, credentials)
	if err != nil {
		t.Fatalf("%s is not let in: %v", good, err)
	}
	if err := s.Bind(t.Context(), good); err != nil {
		t.Errorf("%s cannot be bound: %v", good, err)
	}
	outcome := (*client.Error)(nil)
	if err := s.Bind(t.Context(), bad); !errors.As(err, &outcome) || outcome.Code != codec.CodeDenied {
		t.Errorf("binding %s: %v, want denied", bad, err)
	}
}

func refusedLogin(t *testing.T, addr, credentials, want string) {
	t.Helper()
	if _, err := connect(t, addr, credentials); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("with other credentials: %v, want %s", err, want)
	}
}

// The tokens that relay makes are those that it lets in, and a file that becomes wrong changes
// nothing.
func TestTokensOfRelay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	add := func(args ...string) string {
		t.Helper()
		code, token, stderr := run(t, append([]string{"token", "add", "--auth-token-file", file}, args...)...)
		if code != cli.ExitOK || strings.Contains(stderr, strings.TrimSpace(token)) {
			t.Fatalf("exit code %d, token %q, %s", code, token, stderr)
		}
		return strings.TrimSpace(token)
	}
	shop := add("shop", "--ids", "shop,shop-*", "--no-lookup", "--limit", "messages_per_second=50", "--expires", "90d")
	p := start(t, nil, "--auth-token-file", file)
	addr, admin := p.addresses()
	p.waitFor("send load")
	mayBind(t, addr, shop, "shop-1", "chat-1")
	refusedLogin(t, addr, "", "credentials are missing")
	refusedLogin(t, addr, "password", "does not know credentials of this kind")
	refusedLogin(t, addr, shop[:len(shop)-4]+"AAAA", "unknown, wrong or removed")

	chat := add("chat", "--ids", "chat-*")
	p.waitFor(`read the token file again.*tokens=2`)
	mayBind(t, addr, chat, "chat-1", "shop-1")

	code, list, _ := run(t, "token", "list", "--auth-token-file", file)
	if code != cli.ExitOK || !strings.Contains(list, "shop,shop-*  lookup       messages_per_second=50") || strings.Contains(list, "argon") {
		t.Errorf("exit code %d, list:\n%s", code, list)
	}
	if code, out, _ := run(t, "token", "remove", "shop", "--auth-token-file", file); code != cli.ExitOK || !strings.Contains(out, "removed the token of shop") {
		t.Errorf("exit code %d, %s", code, out)
	}
	p.waitFor(`read the token file again.*tokens=1 revoked=\[shop\]`)
	refusedLogin(t, addr, shop, "unknown, wrong or removed")

	if err := os.WriteFile(file, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGHUP)
	p.waitFor(`reload failed, nothing has changed.*line 1: `)
	mayBind(t, addr, chat, "chat-2", "shop-1")
	p.waitFor(`token file is wrong`)
	if _, health := get(t, admin+"/healthz"); !strings.Contains(health, "line 1: ") {
		t.Errorf("health is %q", health)
	}
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK || strings.Contains(log, shop[20:]) || strings.Contains(log, chat[20:]) {
		t.Errorf("exit code %d, or a token in the log:\n%s", code, log)
	}
}

// A JWT and the callout are asked one after the other.
func TestJWTAndCalloutOfRelay(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	keys := writeFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	token, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "aud": "distmsg", "distmsg": map[string]any{"ids": []string{"alice"}},
	}).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch {
		case r.Header.Get("Authorization") != "Bearer opensesame":
			w.WriteHeader(http.StatusInternalServerError)
		case strings.Contains(string(body), `"credentials":"Ym9i"`): // bob
			io.WriteString(w, `{"name":"bob","ids":["bob"],"expires_in":600}`)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer service.Close()
	secret := writeFile(t, "opensesame\n")
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	p := start(t, nil, "--auth-jwt-keys", keys, "--auth-jwt-audience", "distmsg",
		"--auth-callout-url", service.URL, "--auth-callout-secret-file", secret)
	p.waitFor("everybody on this machine can read a secret.*--auth-callout-secret-file")
	addr, _ := p.addresses()
	p.waitFor("send load")
	mayBind(t, addr, token, "alice", "bob")
	mayBind(t, addr, "bob", "bob", "alice")
	refusedLogin(t, addr, "mallory", "credentials are refused")
	refusedLogin(t, addr, token[:len(token)-4]+"AAAA", "signature of the JWT is wrong")
	refusedLogin(t, addr, "", "credentials are missing")
}

// Client certificates are identities by rules. With TLS and flags for credentials, a node may
// listen on any address.
func TestCertificatesOfRelay(t *testing.T) {
	ca := certstest.NewCA(t, "ours")
	dir := t.TempDir()
	node := ca.Issue(t, certstest.Request{}).Write(t, dir, "node")
	rules := writeConfig(t, "rules:\n  - match: {dns: '*.shop.example.com'}\n    name: 'shop-{}'\n    ids: ['{}:*']\n")
	p := start(t, nil, "--listen=0.0.0.0:0", "--tls-cert", node.CertFile, "--tls-key", node.KeyFile, "--tls-client-ca", ca.Write(t, dir),
		"--tls-require-client-cert=false", "--auth-cert-rules", rules, "--auth-token-file", writeFile(t, "# none\n"))
	addr, _ := p.addresses()
	p.waitFor("send load")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	with := func(r certstest.Request) (*client.Session, error) {
		return connectWith(t, client.Config{Nodes: []string{"127.0.0.1:" + port}, TLS: &tls.Config{
			RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Issue(t, r).TLS},
		}})
	}
	s, err := with(certstest.Request{Names: []string{"eu.shop.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(t.Context(), "eu:1"); err != nil {
		t.Error(err)
	}
	outcome := (*client.Error)(nil)
	if err := s.Bind(t.Context(), "us:1"); !errors.As(err, &outcome) || outcome.Code != codec.CodeDenied {
		t.Errorf("binding another's ID: %v, want denied", err)
	}
	if _, err := with(certstest.Request{Names: []string{"*.shop.example.com"}}); err == nil || !strings.Contains(err.Error(), "no rule") {
		t.Errorf("a wildcard certificate: %v", err)
	}
	if _, err := connectWith(t, client.Config{Nodes: []string{"127.0.0.1:" + port}, TLS: &tls.Config{RootCAs: ca.Pool()}}); err == nil ||
		!strings.Contains(err.Error(), "credentials are missing") {
		t.Errorf("no certificate: %v", err)
	}
}

func TestAnonymous(t *testing.T) {
	file := writeFile(t, "# no token yet\n")
	p := start(t, nil, "--auth-token-file", file, "--auth-anonymous")
	addr, _ := p.addresses()
	p.waitFor("send load")
	if _, err := connect(t, addr, ""); err != nil {
		t.Errorf("without credentials: %v", err)
	}
	refusedLogin(t, addr, "dmt_x", "unknown, wrong or removed")

	for _, tc := range []struct {
		o        authOptions
		insecure bool
		want     identity.Anonymous
	}{
		{authOptions{}, false, identity.AnonymousNowhere},
		{authOptions{}, true, identity.AnonymousNowhere},
		{authOptions{anonymous: true}, false, identity.AnonymousLoopback},
		{authOptions{anonymous: true}, true, identity.AnonymousAnywhere},
	} {
		if got := tc.o.anonymousFrom(tc.insecure); got != tc.want {
			t.Errorf("%+v, %v: %v, want %v", tc.o, tc.insecure, got, tc.want)
		}
	}
}

func TestBadAuthFlags(t *testing.T) {
	file := writeFile(t, "nonsense")
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--auth-jwt-issuer", "x"}, "--auth-jwt-issuer works only with JWTs"},
		{[]string{"--auth-jwt-keys", file, "--auth-jwks-ca-file", "x"}, "--auth-jwks-ca-file works only with"},
		{[]string{"--auth-callout-secret-file", "x"}, "--auth-callout-secret-file works only with a callout"},
		{[]string{"--auth-callout-url", "http://127.0.0.1:1", "--auth-callout-timeout", "-1s"}, "must be over 0"},
		{[]string{"--auth-jwt-keys", file, "--auth-jwt-leeway", "2h"}, "--auth-jwt-leeway 2h0m0s must be"},
		{[]string{"--auth-anonymous"}, "--auth-anonymous works only with one of"},
		{[]string{"--auth-token-file", file}, "--auth-token-file: " + file + ": line 1: "},
		{[]string{"--auth-token-file", "no-such-file"}, "--auth-token-file: open no-such-file"},
		{[]string{"--auth-cert-rules", file}, "--auth-cert-rules needs --tls-client-ca"},
		{[]string{"--auth-token-file", file, "--listen", "0.0.0.0:0"}, "would carry credentials in plaintext: add --tls-cert"},
		{[]string{"--auth-token-file", file, "--admin-listen", "0.0.0.0:0"}, "--admin-listen 0.0.0.0:0 lets other machines connect"},
		{[]string{"config", "check", writeConfig(t, "auth-token-file: "+file+"\n")}, "--auth-token-file: " + file + ": line 1: "},
		{[]string{"--auth-jwt-keys", file}, "there is no key"},
		{[]string{"--auth-jwks-url", "http://example.com/"}, "want https://"},
		{[]string{"--auth-callout-url", "https://u:hush@example.com/"}, "it contains a user or a password"},
		{[]string{"token", "add", "alice"}, "give the file of tokens"},
		{[]string{"token", "add", "--auth-token-file", file}, "accepts 1 arg(s)"},
		{[]string{"token", "add", "", "--auth-token-file", file}, "the name is empty"},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--ids", "a*b"}, "at the end only"},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--ids", "a", "--no-ids"}, "exclude each other"},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--limit", "fun=1"}, `limits has "fun"`},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--limit", "fun"}, "is not NAME=NUMBER"},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--expires", "soon"}, "is no time"},
		{[]string{"token", "add", "a", "--auth-token-file", file, "--expires", "2020-01-01"}, "is over already"},
	} {
		code, _, stderr := run(t, tc.args...)
		if code != cli.ExitUsage || !strings.Contains(stderr, tc.want) || strings.Contains(stderr, "hush") {
			t.Errorf("%q: exit code %d, %q, want %d and %s", tc.args, code, stderr, cli.ExitUsage, tc.want)
		}
	}
	if code, _, stderr := run(t, "token", "list", "--auth-token-file", file); code != cli.ExitFailure || !strings.Contains(stderr, "line 1: ") {
		t.Errorf("list of a wrong file: %d, %s", code, stderr)
	}
}

func TestParseExpires(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	for text, want := range map[string]string{
		"12h": "2030-01-02T15:04:05Z", "90d": "2030-04-02T03:04:05Z", "2030-12-31": "2030-12-31T00:00:00Z", "2030-12-31T18:00:00+01:00": "2030-12-31T17:00:00Z",
	} {
		if got, err := parseExpires(text, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v, %v, want %s", text, got, err, want)
		}
	}
	if got, err := parseExpires("", now); err != nil || !got.IsZero() {
		t.Errorf("never: %v, %v", got, err)
	}
}
