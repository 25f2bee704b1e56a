package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/engine"
	"distmsg/internal/certs/certstest"
)

const someRules = `
rules:
  - match: {dns: "*.Chat.example.com"}
    name: "chat-{}"
    ids: ["{}:*"]
  - match: {uri: "spiffe://example.com/ns/*/app"}
    name: "{}"
    lookup: false
  - match: {email: "*@example.com"}
    name: "{}"
    ids: []
  - match: {cn: ops}
    name: operations
    ids: ["*"]
    watch: false
`

func shows(leaf *x509.Certificate) engine.Login {
	return engine.Login{TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}}
}

func newRules(t *testing.T, clock *fakeClock, revoked func([]string)) (tokenFile, *Certificates) {
	f := tokenFile{t, filepath.Join(t.TempDir(), "rules.yaml")}
	f.write([]byte(someRules))
	c, err := NewCertificates(CertificatesConfig{Path: f.path, Now: clock.Now, Logger: quiet, Revoked: revoked})
	if err != nil {
		t.Fatal(err)
	}
	return f, c
}

func TestCertificates(t *testing.T) {
	_, rules := newRules(t, &fakeClock{now: time.Now()}, nil)
	ca := certstest.NewCA(t, "ours")
	for name, tc := range map[string]struct {
		request certstest.Request
		want    engine.Identity
		err     error
	}{
		"host":                     {certstest.Request{Names: []string{"n1.other.com", "EU1.chat.example.com"}}, engine.Identity{Name: "chat-eu1", IDs: []string{"eu1:*"}}, nil},
		"two labels":               {certstest.Request{Names: []string{"a.b.chat.example.com"}}, engine.Identity{}, ErrNotMine},
		"no label":                 {certstest.Request{Names: []string{"chat.example.com"}}, engine.Identity{}, ErrNotMine},
		"longer":                   {certstest.Request{Names: []string{"a.chat.example.com.evil.org"}}, engine.Identity{}, ErrNotMine},
		"wildcard":                 {certstest.Request{Names: []string{"*.chat.example.com"}}, engine.Identity{}, ErrNotMine},
		"host as common name":      {certstest.Request{CommonName: "a.chat.example.com"}, engine.Identity{}, ErrNotMine},
		"uri":                      {certstest.Request{URIs: []string{"spiffe://example.com/ns/shop/app"}}, engine.Identity{Name: "shop", NoLookup: true}, nil},
		"two segments":             {certstest.Request{URIs: []string{"spiffe://example.com/ns/shop/x/app"}}, engine.Identity{}, ErrNotMine},
		"email":                    {certstest.Request{Emails: []string{"ann@example.com"}}, engine.Identity{Name: "ann", IDs: []string{}}, nil},
		"common name":              {certstest.Request{CommonName: "ops"}, engine.Identity{Name: "operations", IDs: []string{"*"}, NoWatch: true}, nil},
		"common name, other case":  {certstest.Request{CommonName: "Ops"}, engine.Identity{}, ErrNotMine},
		"first rule of two":        {certstest.Request{CommonName: "ops", Names: []string{"x.chat.example.com"}}, engine.Identity{Name: "chat-x", IDs: []string{"x:*"}}, nil},
		"a name that is too long":  {certstest.Request{URIs: []string{"spiffe://example.com/ns/" + strings.Repeat("x", 300) + "/app"}}, engine.Identity{}, ErrDenied},
		"expired":                  {certstest.Request{CommonName: "ops", NotAfter: time.Now().Add(-time.Minute)}, engine.Identity{}, ErrDenied},
		"placeholder as the match": {certstest.Request{Emails: []string{"{}@example.com"}}, engine.Identity{}, ErrNotMine},
	} {
		leaf := ca.Issue(t, tc.request).Leaf
		got, err := rules.Authenticate(t.Context(), shows(leaf))
		if tc.err == nil {
			tc.want.Expires = leaf.NotAfter
		}
		if !errors.Is(err, tc.err) || !same(got, tc.want) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", name, got, err, tc.want, tc.err)
		}
	}

	// What TLS has not verified counts for nothing.
	leaf := ca.Issue(t, certstest.Request{CommonName: "ops"}).Leaf
	for name, l := range map[string]engine.Login{
		"no TLS":         {},
		"no certificate": {TLS: &tls.ConnectionState{}},
		"unverified":     {TLS: &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}},
	} {
		if _, err := rules.Authenticate(t.Context(), l); !errors.Is(err, ErrNotMine) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRulesChange(t *testing.T) {
	clock := &fakeClock{now: time.Now()}
	var revoked [][]string
	f, rules := newRules(t, clock, func(names []string) { revoked = append(revoked, names) })
	ca := certstest.NewCA(t, "ours")
	for _, r := range []certstest.Request{{CommonName: "ops"}, {Names: []string{"a.chat.example.com"}}, {Emails: []string{"ann@example.com"}}} {
		if _, err := rules.Authenticate(t.Context(), shows(ca.Issue(t, r).Leaf)); err != nil {
			t.Fatal(err)
		}
	}
	f.write([]byte("# the same\n" + someRules))
	settle(rules.look)
	f.write([]byte(strings.Replace(strings.Replace(someRules, "cn: ops", "cn: root", 1), `ids: ["{}:*"]`, `ids: ["{}"]`, 1)))
	settle(rules.look)
	if want := [][]string{{"chat-a", "operations"}}; !slices.EqualFunc(revoked, want, slices.Equal) {
		t.Errorf("revoked %q, want %q", revoked, want)
	}
	f.write([]byte("rules: []"))
	settle(rules.look)
	if troubles := rules.troubles(); len(troubles) != 1 || !strings.Contains(troubles[0], "no rules") {
		t.Errorf("troubles %q", troubles)
	}
}

// Rules that change while a client logs in count for it.
func TestRulesChangeDuringLogin(t *testing.T) {
	f := tokenFile{t, filepath.Join(t.TempDir(), "rules.yaml")}
	f.write([]byte(someRules))
	var c *Certificates
	change := func() {}
	now := func() time.Time {
		change()
		return time.Now()
	}
	c, err := NewCertificates(CertificatesConfig{Path: f.path, Now: now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	leaf := certstest.NewCA(t, "ours").Issue(t, certstest.Request{CommonName: "ops"}).Leaf
	for _, tc := range []struct {
		rules string
		want  engine.Identity
		err   error
	}{
		{strings.Replace(someRules, "name: operations", "name: other", 1), engine.Identity{Name: "other", IDs: []string{"*"}, NoWatch: true, Expires: leaf.NotAfter}, nil},
		{strings.Replace(someRules, "cn: ops", "cn: root", 1), engine.Identity{}, ErrNotMine},
	} {
		change = func() {
			change = func() {}
			f.write([]byte(tc.rules))
			commit, err := c.prepare()
			if err != nil {
				t.Fatal(err)
			}
			commit()
		}
		if got, err := c.Authenticate(t.Context(), shows(leaf)); !errors.Is(err, tc.err) || !same(got, tc.want) {
			t.Errorf("got %+v, %v, want %+v, %v", got, err, tc.want, tc.err)
		}
	}
}

func TestBadRules(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"empty":           {"", "empty"},
		"no rules":        {"rules: []", "no rules"},
		"a text":          {"alice", "line 1"},
		"unknown field":   {strings.Replace(someRules, "lookup", "look-up", 1), "line 8"},
		"twice":           {strings.Replace(someRules, "lookup: false", "name: x", 1), "line 8"},
		"null":            {strings.Replace(someRules, `ids: ["{}:*"]`, "ids:", 1), "line 5: a value is empty"},
		"no name":         {"rules:\n- match: {cn: x}\n", "line 2: the name is empty"},
		"no match":        {"rules:\n- name: x\n", "line 2: match needs"},
		"two matches":     {"rules:\n- match: {cn: x, dns: y}\n  name: x\n", "line 2: match needs"},
		"two stars":       {"rules:\n- match: {cn: x*y*}\n  name: x\n", "line 2: match has"},
		"nothing matched": {"rules:\n- match: {cn: x}\n  name: x\n- match: {cn: y}\n  name: x\n  ids: ['{}']\n", "line 4: {} stands"},
		"bad pattern":     {"rules:\n- match: {cn: 'x*'}\n  name: x\n  ids: ['*{}']\n", "at the end only"},
		"two documents":   {someRules + "---\nrules: []\n", "more than one document"},
	} {
		if _, err := parseRules([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
	if _, err := NewCertificates(CertificatesConfig{Path: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzRules(f *testing.F) {
	f.Add([]byte(someRules), "a.chat.example.com")
	f.Add([]byte("rules:\n- match: {cn: '*'}\n  name: '{}'\n  ids: ['{}*']\n"), "*")
	f.Fuzz(func(t *testing.T, text []byte, name string) {
		rules, err := parseRules(text)
		if err != nil {
			return
		}
		leaf := &x509.Certificate{DNSNames: []string{name}, EmailAddresses: []string{name}}
		leaf.Subject.CommonName = name
		who, err := identify(rules, leaf)
		if err == nil && checkName(who.Name) != nil {
			t.Errorf("the name %q", who.Name)
		}
	})
}
