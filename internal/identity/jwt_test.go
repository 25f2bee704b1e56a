package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/engine"
)

// signer is a private key of a test, by the name that stands as kid in a JWKS.
type signer struct {
	kid     string
	method  jwt.SigningMethod
	private crypto.Signer
}

func newSigner(t testing.TB, kid string, method jwt.SigningMethod) *signer {
	t.Helper()
	s := &signer{kid: kid, method: method}
	var err error
	switch method {
	case jwt.SigningMethodRS256, jwt.SigningMethodPS512:
		s.private, err = rsa.GenerateKey(rand.Reader, 2048)
	case jwt.SigningMethodES256:
		s.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jwt.SigningMethodES384:
		s.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	default:
		_, s.private, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pem returns the public key.
func (s *signer) pem(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(s.private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func (s *signer) jwk() map[string]any {
	key := map[string]any{"kid": s.kid, "use": "sig", "alg": s.method.Alg()}
	switch k := s.private.Public().(type) {
	case *rsa.PublicKey:
		key["kty"], key["n"], key["e"] = "RSA", b64(k.N.Bytes()), b64(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		size := (k.Params().BitSize + 7) / 8
		point, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		key["kty"], key["crv"], key["x"], key["y"] = "EC", k.Params().Name, b64(point[1:1+size]), b64(point[1+size:])
	case ed25519.PublicKey:
		key["kty"], key["crv"], key["x"] = "OKP", "Ed25519", b64(k)
	}
	return key
}

func jwksOf(signers ...*signer) string {
	keys := []any{map[string]any{"kty": "oct", "k": "c2VjcmV0", "kid": "hs"}, map[string]any{"kty": "new", "kid": "of a later time"}}
	for _, s := range signers {
		keys = append(keys, s.jwk())
	}
	text, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// sign returns a token. Nil claims are left out.
func (s *signer) sign(t testing.TB, claims jwt.MapClaims, header map[string]any) string {
	t.Helper()
	claims = maps.Clone(claims)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	token := jwt.NewWithClaims(s.method, claims)
	if s.kid != "" {
		token.Header["kid"] = s.kid
	}
	maps.Copy(token.Header, header)
	text, err := token.SignedString(s.private)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func with(claims jwt.MapClaims, name string, value any) jwt.MapClaims {
	claims = maps.Clone(claims)
	claims[name] = value
	return claims
}

func newJWT(t testing.TB, cfg JWTConfig, keys string) *JWT {
	t.Helper()
	cfg.Logger = quiet
	if keys != "" {
		f := filepath.Join(t.TempDir(), "keys")
		writeFile(t, f, keys)
		cfg.KeyFile = f
	}
	j, err := NewJWT(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

const leeway = 30 * time.Second

// issuer returns a JWT with the key of ours, and claims that it lets in at this time.
func issuer(t *testing.T) (j *JWT, ours *signer, good jwt.MapClaims, now time.Time) {
	t.Helper()
	clock := newClock()
	now = clock.Now()
	ours = newSigner(t, "", jwt.SigningMethodES256)
	j = newJWT(t, JWTConfig{Issuer: "https://id.example.com", Audience: "distmsg", Leeway: leeway, Now: clock.Now}, string(ours.pem(t)))
	return j, ours, jwt.MapClaims{
		"sub": "alice", "iss": "https://id.example.com", "aud": []string{"web", "distmsg"}, "exp": now.Add(time.Hour).Unix(), "nbf": now.Unix(),
		"distmsg": map[string]any{"ids": []string{"alice:*"}, "lookup": false},
	}, now
}

func TestJWT(t *testing.T) {
	j, ours, good, now := issuer(t)
	alice := engine.Identity{Name: "alice", IDs: []string{"alice:*"}, NoLookup: true, Expires: now.Add(time.Hour + leeway)}
	free := engine.Identity{Name: "alice", Expires: now.Add(time.Hour + leeway)}
	late := alice
	late.Expires = now.Add(1 * time.Second)
	for name, tc := range map[string]struct {
		token string
		want  engine.Identity
	}{
		"all claims":         {ours.sign(t, good, nil), alice},
		"no rights":          {ours.sign(t, with(good, "distmsg", nil), nil), free},
		"no nbf":             {ours.sign(t, with(good, "nbf", nil), nil), alice},
		"one audience":       {ours.sign(t, with(good, "aud", "distmsg"), nil), alice},
		"unknown kid":        {ours.sign(t, good, map[string]any{"kid": "any"}), alice},
		"exp within leeway":  {ours.sign(t, with(good, "exp", now.Add(1*time.Second-leeway).Unix()), nil), late},
		"nbf within leeway":  {ours.sign(t, with(good, "nbf", now.Add(leeway).Unix()), nil), alice},
		"claims of others":   {ours.sign(t, with(good, "email", "alice@example.com"), nil), alice},
		"issued in a moment": {ours.sign(t, with(good, "iat", now.Add(time.Minute).Unix()), nil), alice},
	} {
		if got, err := j.Authenticate(t.Context(), login(tc.token)); err != nil || !same(got, tc.want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, tc.want)
		}
	}

	for _, token := range []string{"", "dmt_x", "eyJhbGciOiJub25lIn0", "eyJ.eyJ.a.b.c"} {
		if _, err := j.Authenticate(t.Context(), login(token)); !errors.Is(err, ErrNotMine) {
			t.Errorf("%q: %v", token, err)
		}
	}
}

func TestForgedJWT(t *testing.T) {
	j, ours, good, now := issuer(t)
	other := newSigner(t, "", jwt.SigningMethodES256)
	whole := ours.sign(t, good, nil)
	parts := strings.Split(whole, ".")
	for name, tc := range map[string]struct{ token, want string }{
		"another key":           {other.sign(t, good, nil), "signature"},
		"alg none":              {unsigned(t, good, "none") + ".", "signature"},
		"alg None":              {unsigned(t, good, "None") + ".", "signed in a way"},
		"alg none, signed":      {unsigned(t, good, "none") + "." + parts[2], "signature"},
		"no alg":                {b64([]byte(`{"typ":"JWT"}`)) + "." + parts[1] + "." + parts[2], "signed in a way"},
		"HS256 with the PEM":    {hmacSigned(t, good, ours.pem(t)), "signature"},
		"HS256 with nothing":    {hmacSigned(t, good, nil), "signature"},
		"RS256 in the header":   {unsigned(t, good, "RS256") + "." + parts[2], "unknown, or not for its algorithm"},
		"no signature":          {parts[0] + "." + parts[1] + ".", "signature"},
		"other claims":          {parts[0] + "." + b64([]byte(`{"sub":"root","exp":4000000000}`)) + "." + parts[2], "signature"},
		"key in the header":     {other.sign(t, good, map[string]any{"jwk": other.jwk()}), "signature"},
		"expired":               {ours.sign(t, with(good, "exp", now.Add(-leeway).Unix()), nil), "expired"},
		"expired long ago":      {ours.sign(t, with(good, "exp", 0), nil), "expired"},
		"no exp":                {ours.sign(t, with(good, "exp", nil), nil), "lacks a claim"},
		"exp a text":            {ours.sign(t, with(good, "exp", "tomorrow"), nil), "cannot be read"},
		"future nbf":            {ours.sign(t, with(good, "nbf", now.Add(leeway+time.Second).Unix()), nil), "not valid yet"},
		"other issuer":          {ours.sign(t, with(good, "iss", "https://id.example.com.evil.org"), nil), "issuer"},
		"no issuer":             {ours.sign(t, with(good, "iss", nil), nil), "lacks a claim"},
		"other audience":        {ours.sign(t, with(good, "aud", []string{"web"}), nil), "audience"},
		"no audience":           {ours.sign(t, with(good, "aud", nil), nil), "lacks a claim"},
		"no sub":                {ours.sign(t, with(good, "sub", nil), nil), "name is empty"},
		"sub with a line":       {ours.sign(t, with(good, "sub", "a\nb"), nil), "cannot be printed"},
		"unknown right":         {ours.sign(t, with(good, "distmsg", map[string]any{"id": []string{"a"}}), nil), "unknown field"},
		"ids null":              {ours.sign(t, with(good, "distmsg", map[string]any{"ids": nil}), nil), "ids is null"},
		"lookup null":           {ours.sign(t, with(good, "distmsg", map[string]any{"lookup": nil}), nil), "null"},
		"watch null":            {ours.sign(t, with(good, "distmsg", map[string]any{"watch": nil}), nil), "null"},
		"limits null":           {ours.sign(t, with(good, "distmsg", map[string]any{"limits": nil}), nil), "null"},
		"rights a text":         {ours.sign(t, with(good, "distmsg", "all"), nil), "claim distmsg"},
		"rights null":           {ours.sign(t, with(good, "distmsg", json.RawMessage("null")), nil), "claim distmsg"},
		"critical extension":    {ours.sign(t, good, map[string]any{"crit": []string{"b64"}, "b64": false}), "crit"},
		"kid a number":          {ours.sign(t, good, map[string]any{"kid": 1}), "kid"},
		"garbage":               {"eyJ.eyJ.", "cannot be read"},
		"padding":               {parts[0] + "." + parts[1] + "." + parts[2] + "==", "cannot be read"},
		"garbage in the claims": {parts[0] + "." + b64([]byte("{")) + "." + parts[2], "cannot be read"},
	} {
		got, err := j.Authenticate(t.Context(), login(tc.token))
		if !errors.Is(err, ErrDenied) || errors.Is(err, engine.ErrRetryLogin) || !strings.Contains(err.Error(), tc.want) || got.Name != "" {
			t.Errorf("%s: got %+v, %v, want %s", name, got, err, tc.want)
		}
	}
}

// unsigned returns the header and the claims of a token.
func unsigned(t testing.TB, claims jwt.MapClaims, alg string) string {
	t.Helper()
	body, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return b64([]byte(`{"typ":"JWT","alg":"`+alg+`"}`)) + "." + b64(body)
}

func hmacSigned(t testing.TB, claims jwt.MapClaims, secret []byte) string {
	t.Helper()
	text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Each kind of key works, in PEM and in a JWKS, and only with its own algorithms.
func TestKindsOfKeys(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}
	signers := []*signer{
		newSigner(t, "rs", jwt.SigningMethodRS256), newSigner(t, "ps", jwt.SigningMethodPS512),
		newSigner(t, "es", jwt.SigningMethodES256), newSigner(t, "es384", jwt.SigningMethodES384), newSigner(t, "ed", jwt.SigningMethodEdDSA),
	}
	set := newJWT(t, JWTConfig{Now: clock.Now}, jwksOf(signers...))
	for _, s := range signers {
		pem := newJWT(t, JWTConfig{Now: clock.Now}, string(s.pem(t)))
		for name, j := range map[string]*JWT{"PEM": pem, "JWKS": set} {
			if who, err := j.Authenticate(t.Context(), login(s.sign(t, claims, nil))); err != nil || who.Name != "alice" {
				t.Errorf("%s from %s: %+v, %v", s.kid, name, who, err)
			}
		}
		nameless := *s
		nameless.kid = ""
		if _, err := set.Authenticate(t.Context(), login(nameless.sign(t, claims, nil))); err != nil {
			t.Errorf("%s without kid: %v", s.kid, err)
		}
	}
	// A key that is for one algorithm is not for another, even of its type.
	rs := *signers[0]
	rs.method = jwt.SigningMethodPS256
	if _, err := set.Authenticate(t.Context(), login(rs.sign(t, claims, nil))); !errors.Is(err, ErrDenied) {
		t.Errorf("PS256 with a key for RS256: %v", err)
	}
	// The shared secret of the set is nobody's.
	if _, err := set.Authenticate(t.Context(), login(hmacSigned(t, claims, []byte("secret")))); !errors.Is(err, ErrDenied) {
		t.Errorf("HS256: %v", err)
	}
}

func TestBadKeys(t *testing.T) {
	small := `{"keys":[{"kty":"RSA","n":"` + b64(make([]byte, 128)) + `","e":"AQAB"}]}`
	point := newSigner(t, "p", jwt.SigningMethodES256).jwk()
	point["x"] = b64(make([]byte, 32))
	off, _ := json.Marshal(map[string]any{"keys": []any{point}})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})
	for name, tc := range map[string]struct{ text, want string }{
		"empty":         {"", "no key"},
		"garbage":       {"{", "not JSON"},
		"no keys":       {`{"keys":[]}`, "no key that verifies"},
		"shared secret": {`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, "no key that verifies"},
		"encryption":    {`{"keys":[{"kty":"RSA","use":"enc","n":"AQAB","e":"AQAB"}]}`, "no key that verifies"},
		"small RSA":     {small, "0 bits"},
		"even exponent": {`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAA"}]}`, "no RSA key"},
		"off the curve": {string(off), "no point"},
		"short Ed25519": {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQAB"}]}`, "no Ed25519"},
		"private JWK":   {`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQAB","d":"AQAB"}]}`, "private key"},
		"private PEM":   {string(private), `PRIVATE KEY`},
		"many keys":     {`{"keys":[{}` + strings.Repeat(",{}", maxKeys) + `]}`, "may be"},
	} {
		if _, err := parseKeys([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %s", name, err, tc.want)
		}
	}
}

func TestJWKS(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(24 * time.Hour).Unix()}
	first, second := newSigner(t, "first", jwt.SigningMethodES256), newSigner(t, "second", jwt.SigningMethodES256)
	server := newFakeServer(t)
	server.does(says(http.StatusInternalServerError, ""))
	j := newJWT(t, JWTConfig{JWKSURL: server.URL, Now: clock.Now}, "")
	calls := &countedCalls{RoundTripper: j.jwks.service.client.Transport}
	j.jwks.service.client.Transport = calls
	try := func(s *signer) error {
		_, err := j.Authenticate(t.Context(), login(s.sign(t, claims, nil)))
		return err
	}
	wants := func(what string, s *signer, want error, requests int64) {
		t.Helper()
		if err := try(s); !errors.Is(err, want) || calls.n.Load() != requests {
			t.Errorf("%s: %v after %d requests, want %v after %d", what, err, calls.n.Load(), want, requests)
		}
	}
	wants("down from the beginning", first, engine.ErrRetryLogin, 1)
	wants("again", first, engine.ErrRetryLogin, 1)
	server.does(says(http.StatusOK, jwksOf(first)))
	clock.forward(jwksGap)
	wants("up", first, nil, 2)
	wants("known", first, nil, 2)
	wants("unknown, a moment after a fetch", second, engine.ErrRetryLogin, 2)
	clock.forward(jwksGap)
	wants("unknown", second, ErrDenied, 3)

	// The keys are rotated.
	server.does(says(http.StatusOK, jwksOf(second)))
	clock.forward(jwksGap)
	wants("new", second, nil, 4)
	wants("old", first, engine.ErrRetryLogin, 4)
	clock.forward(jwksGap)
	wants("old, later", first, ErrDenied, 5)

	// The server fails: what is known goes on, and nothing unknown is denied.
	j.jwks.service.timeout = 50 * time.Millisecond
	requests := int64(5)
	for name, does := range map[string]http.HandlerFunc{
		"down": hangsUp, "slow": hangs, "slow inside": hangsInside, "huge": huge, "garbage": says(http.StatusOK, "<html>"),
		"no keys": says(http.StatusOK, `{"keys":[]}`), "not found": says(http.StatusNotFound, jwksOf(first)),
		"redirect": redirects("https://example.com/"), "weak keys": says(http.StatusOK, `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`),
	} {
		server.does(does)
		clock.forward(jwksGap)
		if err := try(first); !errors.Is(err, engine.ErrRetryLogin) || calls.n.Load() == requests {
			t.Errorf("%s, unknown: %v, want retry after another request", name, err)
		}
		requests = calls.n.Load()
		wants(name, second, nil, requests)
		if len(j.troubles()) != 1 {
			t.Errorf("%s: troubles %q", name, j.troubles())
		}
	}
	server.does(says(http.StatusOK, jwksOf(first, second)))
	clock.forward(jwksGap)
	wants("up again", first, nil, requests+1)
	if len(j.troubles()) > 0 {
		t.Errorf("up again: troubles %q", j.troubles())
	}
}

// The keys are fetched now and then, and soon after a failure.
func TestJWKSInTheBackground(t *testing.T) {
	clock := newClock()
	server := newFakeServer(t)
	server.does(says(http.StatusOK, jwksOf(newSigner(t, "k", jwt.SigningMethodES256))))
	j := newJWT(t, JWTConfig{JWKSURL: server.URL, Now: clock.Now}, "").jwks
	ticks := func(what string, want int64) {
		t.Helper()
		j.tick()
		j.mu.Lock()
		f := j.fetching
		j.mu.Unlock()
		if f != nil {
			<-f.done
		}
		if got := server.requests.Load(); got != want {
			t.Errorf("%s: %d requests, want %d", what, got, want)
		}
	}
	ticks("at first", 1)
	clock.forward(jwksPeriod - 1)
	ticks("before it is due", 1)
	clock.forward(1)
	server.does(says(http.StatusBadGateway, ""))
	ticks("due", 2)
	clock.forward(jwksGap)
	ticks("after a failure", 3)
}

// A reload fetches the keys at once, and once more if a fetch is under way that may be too early.
func TestJWKSReload(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}
	removed, stays := newSigner(t, "removed", jwt.SigningMethodES256), newSigner(t, "stays", jwt.SigningMethodES256)
	server := newFakeServer(t)
	server.does(says(http.StatusOK, jwksOf(removed, stays)))
	j := newJWT(t, JWTConfig{JWKSURL: server.URL, Now: clock.Now}, "")
	if _, err := j.Authenticate(t.Context(), login(removed.sign(t, claims, nil))); err != nil {
		t.Fatal(err)
	}
	asked, answer := make(chan struct{}), make(chan struct{})
	server.does(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-answer
		says(http.StatusOK, jwksOf(stays))(w, r)
	})
	for range 3 {
		commit, err := j.prepare()
		if err != nil {
			t.Fatal(err)
		}
		commit()
	}
	for range 2 {
		<-asked
		answer <- struct{}{}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		j.jwks.mu.Lock()
		f := j.jwks.fetching
		j.jwks.mu.Unlock()
		if f == nil {
			break
		}
		<-f.done
		if time.Now().After(deadline) {
			t.Fatal("it goes on fetching")
		}
	}
	if n := server.requests.Load(); n != 3 {
		t.Errorf("%d requests, want 3", n)
	}
	if _, err := j.Authenticate(t.Context(), login(removed.sign(t, claims, nil))); err == nil {
		t.Error("a removed key is accepted")
	}
	if _, err := j.Authenticate(t.Context(), login(stays.sign(t, claims, nil))); err != nil {
		t.Error(err)
	}
}

// Many tokens with unknown keys cause one request.
func TestJWKSFlood(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}
	ours, other := newSigner(t, "ours", jwt.SigningMethodES256), newSigner(t, "other", jwt.SigningMethodES256)
	server := newFakeServer(t)
	server.does(says(http.StatusOK, jwksOf(ours)))
	j := newJWT(t, JWTConfig{JWKSURL: server.URL, Now: clock.Now}, "")
	token := other.sign(t, claims, nil)
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if _, err := j.Authenticate(t.Context(), login(token)); err == nil {
				t.Error("a token of another key was let in")
			}
		})
	}
	all.Wait()
	if n := server.requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
	if _, err := j.Authenticate(t.Context(), login(ours.sign(t, claims, nil))); err != nil {
		t.Errorf("our own key: %v", err)
	}
}

// Few signatures are checked at once. Whoever waits for the server of the keys holds up nobody.
func TestFewSignaturesAtOnce(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}
	ours, other := newSigner(t, "ours", jwt.SigningMethodES256), newSigner(t, "other", jwt.SigningMethodES256)
	server := newFakeServer(t)
	arrived := make(chan struct{})
	server.does(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		hangs(w, r)
	})
	j := newJWT(t, JWTConfig{JWKSURL: server.URL, Now: clock.Now}, jwksOf(ours))
	j.jwks.service.timeout = unhurried
	j.places = make(chan struct{}, 1)
	known, unknown := login(ours.sign(t, claims, nil)), login(other.sign(t, claims, nil))

	waiting, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := j.Authenticate(waiting, unknown)
		ended <- err
	}()
	<-arrived
	for range 2 { // the place is free again after the first
		if _, err := j.Authenticate(t.Context(), known); err != nil {
			t.Errorf("while another token waits for its key: %v", err)
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, engine.ErrRetryLogin) {
		t.Errorf("a token that waits for its key: %v, want retry", err)
	}
	server.CloseClientConnections()

	j.places <- struct{}{}
	if _, err := j.Authenticate(waiting, known); !errors.Is(err, engine.ErrRetryLogin) || errors.Is(err, ErrDenied) {
		t.Errorf("without a place: %v, want retry", err)
	}
}

func TestKeyFileChanges(t *testing.T) {
	clock := newClock()
	claims := jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}
	first, second := newSigner(t, "first", jwt.SigningMethodES256), newSigner(t, "second", jwt.SigningMethodEdDSA)
	j := newJWT(t, JWTConfig{Now: clock.Now}, jwksOf(first))
	if _, err := j.Authenticate(t.Context(), login(second.sign(t, claims, nil))); !errors.Is(err, ErrDenied) {
		t.Errorf("a key that is not there: %v", err)
	}
	writeFile(t, j.cfg.KeyFile, string(second.pem(t)))
	settle(j.look)
	if _, err := j.Authenticate(t.Context(), login(second.sign(t, claims, nil))); err != nil {
		t.Errorf("a new key: %v", err)
	}
	writeFile(t, j.cfg.KeyFile, "no keys")
	settle(j.look)
	if _, err := j.Authenticate(t.Context(), login(second.sign(t, claims, nil))); err != nil || len(j.troubles()) != 1 {
		t.Errorf("a wrong file: %v, troubles %q", err, j.troubles())
	}
}

func FuzzJWT(f *testing.F) {
	clock := newClock()
	s := newSigner(f, "", jwt.SigningMethodEdDSA)
	j := newJWT(f, JWTConfig{Now: clock.Now}, string(s.pem(f)))
	f.Add([]byte(`{"sub":"alice","exp":1e300,"distmsg":{"ids":["a*"],"limits":{}}}`), "eyJ.eyJ.")
	f.Add([]byte(`{"sub":"alice","exp":1893999999.5}`), s.sign(f, jwt.MapClaims{"sub": "x"}, nil))
	header := b64([]byte(`{"alg":"EdDSA"}`))
	f.Fuzz(func(t *testing.T, claims []byte, token string) {
		if _, err := j.Authenticate(t.Context(), login(token)); err == nil {
			t.Errorf("%q was let in", token)
		}
		text := header + "." + b64(claims)
		sum, err := s.method.Sign(text, s.private)
		if err != nil {
			t.Fatal(err)
		}
		if who, err := j.Authenticate(t.Context(), login(text+"."+b64(sum))); err == nil && !who.Expires.After(clock.Now()) {
			t.Errorf("let in until %v", who.Expires)
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add([]byte(jwksOf(newSigner(f, "a", jwt.SigningMethodES256), newSigner(f, "b", jwt.SigningMethodEdDSA))))
	f.Add(newSigner(f, "", jwt.SigningMethodES384).pem(f))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := parseKeys(text)
		if err == nil && len(keys) == 0 {
			t.Error("no keys and no error")
		}
	})
}
