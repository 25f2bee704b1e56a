package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/engine"
	"distmsg/internal/certs/certstest"
)

// everything is a chain of all authenticators.
type everything struct {
	chain     *Chain
	service   *userService
	tokens    tokenFile
	rules     string
	keys      string
	shopToken string
	aliceJWT  string
	shopCert  *x509.Certificate
}

func newEverything(t *testing.T, anonymous Anonymous) *everything {
	t.Helper()
	clock, dir := &fakeClock{now: time.Now()}, t.TempDir()
	e := &everything{service: newUserService(t), tokens: newTokenFile(t), rules: filepath.Join(dir, "rules"), keys: filepath.Join(dir, "keys")}
	e.shopToken = e.tokens.add("by token", Rights{}, time.Time{})
	writeFile(t, e.rules, "rules:\n- match: {cn: shop}\n  name: by certificate\n")
	s := newSigner(t, "", jwt.SigningMethodEdDSA)
	writeFile(t, e.keys, string(s.pem(t)))
	e.aliceJWT = s.sign(t, map[string]any{"sub": "by JWT", "exp": clock.Now().Add(time.Hour).Unix()}, nil)
	e.shopCert = certstest.NewCA(t, "ours").Issue(t, certstest.Request{CommonName: "shop"}).Leaf

	certificates, err1 := NewCertificates(CertificatesConfig{Path: e.rules, Now: clock.Now, Logger: quiet})
	j, err2 := NewJWT(JWTConfig{KeyFile: e.keys, Now: clock.Now, Logger: quiet})
	callout, err3 := NewCallout(CalloutConfig{URL: e.service.URL, Now: clock.Now, Logger: quiet})
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	e.chain = NewChain(anonymous, certificates, e.tokens.open(clock, nil), j, callout)
	return e
}

// The first authenticator that recognises the credentials decides.
func TestChain(t *testing.T) {
	e := newEverything(t, AnonymousNowhere)
	shown := func(credentials string) engine.Login {
		l := shows(e.shopCert)
		l.Credentials = []byte(credentials)
		return l
	}
	other := certstest.NewCA(t, "ours").Issue(t, certstest.Request{CommonName: "other"}).Leaf
	withOther := shows(other)
	withOther.Credentials = []byte(e.shopToken)
	unverified := shown(e.shopToken)
	unverified.TLS.VerifiedChains = nil
	for name, tc := range map[string]struct {
		login engine.Login
		want  string // a name, or the text of a denial
		asked int64
	}{
		"certificate":                      {shown(""), "by certificate", 0},
		"certificate and wrong token":      {shown("dmt_x"), "by certificate", 0},
		"token":                            {login(e.shopToken), "by token", 0},
		"token and certificate of no rule": {withOther, "by token", 0},
		"token and unverified certificate": {unverified, "by token", 0},
		"wrong token":                      {login("dmt_x"), "unknown, wrong or removed", 0},
		"JWT":                              {login(e.aliceJWT), "by JWT", 0},
		"wrong JWT":                        {login(e.aliceJWT + "x"), "JWT", 0},
		"callout":                          {login("let me in"), "me", 1},
		"refused by the callout":           {login("let me"), "are refused", 1},
		"certificate of no rule":           {shows(other), "are refused", 1},
		"nothing":                          {login(""), "credentials are missing", 0},
	} {
		before := e.service.requests.Load()
		who, err := e.chain.Authenticate(t.Context(), tc.login)
		as := err == nil && who.Name == tc.want || errors.Is(err, ErrDenied) && strings.Contains(err.Error(), tc.want)
		if !as || e.service.requests.Load()-before != tc.asked {
			t.Errorf("%s: %+v, %v after %d calls, want %s after %d", name, who, err, e.service.requests.Load()-before, tc.want, tc.asked)
		}
	}
	want := map[string]uint64{
		"certificate accepted": 2, "token accepted": 3, "token refused": 1, "jwt accepted": 1, "jwt refused": 1,
		"callout accepted": 1, "callout refused": 2, "anonymous refused": 1,
	}
	checkCounts(t, e.chain, want)
}

// checkCounts checks the counts that are not 0.
func checkCounts(t *testing.T, c *Chain, want map[string]uint64) {
	t.Helper()
	got := make(map[string]uint64)
	for _, n := range c.Counts() {
		if n.Times > 0 {
			got[n.Way.String()+" "+n.Result.String()] = n.Times
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("counts %v, want %v", got, want)
	}
}

// A service that does not answer is nobody's fault: the client comes again, and that is counted.
func TestCountOfRetries(t *testing.T) {
	e := newEverything(t, AnonymousNowhere)
	e.service.Close()
	if _, err := e.chain.Authenticate(t.Context(), login("let me in")); !errors.Is(err, engine.ErrRetryLogin) {
		t.Errorf("%v, want ErrRetryLogin", err)
	}
	checkCounts(t, e.chain, map[string]uint64{"callout retry": 1})
	checkCounts(t, nil, map[string]uint64{})
}

func TestWhoMayComeWithoutCredentials(t *testing.T) {
	tokens := newTokenFile(t)
	tokens.add("x", Rights{}, time.Time{})
	addr := func(text string) net.Addr {
		a, err := net.ResolveTCPAddr("tcp", text)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	leaf := certstest.NewCA(t, "ours").Issue(t, certstest.Request{}).Leaf
	for _, tc := range []struct {
		anonymous Anonymous
		remote    net.Addr
		ok        bool
	}{
		{AnonymousNowhere, addr("127.0.0.1:1"), false},
		{AnonymousLoopback, addr("127.0.0.1:1"), true},
		{AnonymousLoopback, addr("[::1]:1"), true},
		{AnonymousLoopback, addr("[::ffff:127.0.0.1]:1"), true},
		{AnonymousLoopback, addr("10.0.0.1:1"), false},
		{AnonymousLoopback, &net.UnixAddr{Name: "x"}, false},
		{AnonymousLoopback, nil, false},
		{AnonymousAnywhere, addr("10.0.0.1:1"), true},
	} {
		c := NewChain(tc.anonymous, tokens.open(newClock(), nil))
		who, err := c.Authenticate(t.Context(), engine.Login{Remote: tc.remote})
		if (err == nil) != tc.ok || !same(who, engine.Identity{}) {
			t.Errorf("%v from %v: %+v, %v", tc.anonymous, tc.remote, who, err)
		}
		if _, err := c.Authenticate(t.Context(), engine.Login{Remote: tc.remote, Credentials: []byte("x")}); !errors.Is(err, ErrDenied) {
			t.Errorf("%v from %v with credentials that nobody knows: %v", tc.anonymous, tc.remote, err)
		}
		l := shows(leaf)
		l.Remote = tc.remote
		if _, err := c.Authenticate(t.Context(), l); (err == nil) != tc.ok {
			t.Errorf("%v from %v with a certificate of no rule: %v", tc.anonymous, tc.remote, err)
		}
	}
}

// If one file is wrong, a reload changes nothing.
func TestPrepareIsAllOrNothing(t *testing.T) {
	e := newEverything(t, AnonymousNowhere)
	added := e.tokens.add("added", Rights{}, time.Time{})
	writeFile(t, e.keys, "nonsense")
	if _, err := e.chain.Prepare(); err == nil || !strings.Contains(err.Error(), e.keys) {
		t.Errorf("a wrong file of keys: %v", err)
	}
	if _, err := e.chain.Authenticate(t.Context(), login(added)); !errors.Is(err, ErrDenied) {
		t.Errorf("half of a reload is in force: %v", err)
	}
	writeFile(t, e.keys, string(newSigner(t, "", jwt.SigningMethodEdDSA).pem(t)))
	commit, err := e.chain.Prepare()
	if err != nil {
		t.Fatal(err)
	}
	commit()
	if _, err := e.chain.Authenticate(t.Context(), login(added)); err != nil {
		t.Errorf("after a reload: %v", err)
	}
	if _, err := e.chain.Authenticate(t.Context(), login(e.aliceJWT)); !errors.Is(err, ErrDenied) {
		t.Errorf("a JWT of a key that has gone: %v", err)
	}
	if troubles := e.chain.Troubles(); len(troubles) > 0 {
		t.Errorf("troubles %q", troubles)
	}
	e.service.does(says(http.StatusBadGateway, ""))
	e.chain.Authenticate(t.Context(), login("let me in"))
	if troubles := e.chain.Troubles(); len(troubles) != 1 || !strings.Contains(troubles[0], "502") {
		t.Errorf("troubles %q", troubles)
	}
}

// Run sees that a file changes, and ends with its context.
func TestRun(t *testing.T) {
	tokens := newTokenFile(t)
	tokens.add("stays", Rights{}, time.Time{})
	goes := tokens.add("goes", Rights{}, time.Time{})
	revoked := make(chan []string, 1)
	c := NewChain(AnonymousNowhere, tokens.open(newClock(), func(names []string) { revoked <- names }))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx)
	}()
	if _, err := RemoveToken(tokens.path, "goes"); err != nil {
		t.Fatal(err)
	}
	if names := <-revoked; len(names) != 1 || names[0] != "goes" {
		t.Errorf("revoked %q", names)
	}
	if _, err := c.Authenticate(t.Context(), login(goes)); !errors.Is(err, ErrDenied) {
		t.Errorf("a removed token: %v", err)
	}
	stop()
	<-ended
}
