package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/engine"
	"distmsg/internal/certs/certstest"
)

// userService is a callout service that knows some passwords.
type userService struct {
	*fakeServer
	mu   sync.Mutex
	last question
	auth string
}

func newUserService(t *testing.T) *userService {
	s := &userService{fakeServer: newFakeServer(t)}
	s.does(s.answer)
	return s
}

// answer lets in who shows "let NAME in", for ten minutes.
func (s *userService) answer(w http.ResponseWriter, r *http.Request) {
	var q struct {
		question
		Credentials []byte `json:"credentials"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.last, s.auth = q.question, r.Header.Get("Authorization")
	s.mu.Unlock()
	name, ok := strings.CutPrefix(string(q.Credentials), "let ")
	if name, ok2 := strings.CutSuffix(name, " in"); ok && ok2 {
		fmt.Fprintf(w, `{"name":%q,"ids":[%q],"watch":false,"expires_in":600}`, name, name+":*")
		return
	}
	w.WriteHeader(http.StatusForbidden)
	io.WriteString(w, "secret reasons")
}

func (s *userService) asked() (question, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.auth
}

func newCallout(t *testing.T, cfg CalloutConfig) *Callout {
	t.Helper()
	cfg.Logger = quiet
	c, err := NewCallout(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func from(addr, credentials string) engine.Login {
	l := login(credentials)
	l.Remote, _ = net.ResolveTCPAddr("tcp", addr)
	return l
}

func TestCallout(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "open sesame\n")
	if _, err := NewCallout(CalloutConfig{URL: service.URL, SecretFile: secret, Logger: quiet}); err == nil {
		t.Error("a secret with a space was taken")
	}
	writeFile(t, secret, "opensesame\n")
	c := newCallout(t, CalloutConfig{URL: service.URL, SecretFile: secret, Now: clock.Now})
	began := clock.Now()
	alice := engine.Identity{Name: "alice", IDs: []string{"alice:*"}, NoWatch: true, Expires: began.Add(10 * time.Minute)}
	asks := func(what string, l engine.Login, want engine.Identity, wantErr error, requests int64) {
		t.Helper()
		got, err := c.Authenticate(t.Context(), l)
		if !errors.Is(err, wantErr) || !same(got, want) || service.requests.Load() != requests {
			t.Errorf("%s: got %+v, %v after %d requests, want %+v, %v after %d", what, got, err, service.requests.Load(), want, wantErr, requests)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has what the service says: %v", what, err)
		}
	}
	asks("new", from("10.1.2.3:4000", "let alice in"), alice, nil, 1)
	if q, auth := service.asked(); q.Remote != "10.1.2.3" || q.Certificate != nil || auth != "Bearer opensesame" {
		t.Errorf("the service was asked %+v with %s", q, auth)
	}
	asks("known", from("10.1.2.3:4001", "let alice in"), alice, nil, 1)
	asks("another address", from("10.1.2.4:4001", "let alice in"), alice, nil, 2)
	clock.forward(5*time.Minute - 1)
	asks("half of the lifetime", from("10.1.2.3:4001", "let alice in"), alice, nil, 2)
	clock.forward(1)
	alice.Expires = clock.Now().Add(10 * time.Minute)
	asks("after that", from("10.1.2.3:4001", "let alice in"), alice, nil, 3)

	asks("wrong", login("let me"), engine.Identity{}, ErrDenied, 4)
	asks("wrong again", login("let me"), engine.Identity{}, ErrDenied, 4)
	clock.forward(denialTime)
	asks("wrong, later", login("let me"), engine.Identity{}, ErrDenied, 5)

	// A client certificate is shown to the service, and is enough.
	leaf := certstest.NewCA(t, "ours").Issue(t, certstest.Request{CommonName: "ops", Names: []string{"a.example.com"}, URIs: []string{"spiffe://a/b"}, Emails: []string{"a@b"}}).Leaf
	asks("certificate", shows(leaf), engine.Identity{}, ErrDenied, 6)
	if q, _ := service.asked(); q.Certificate == nil || fmt.Sprint(*q.Certificate) != "{CN=ops [a.example.com] [spiffe://a/b] [a@b]}" {
		t.Errorf("the service was asked about %+v", q.Certificate)
	}
	asks("nothing", engine.Login{}, engine.Identity{}, ErrNotMine, 6)
	both := shows(leaf)
	both.Credentials = []byte("let bob in")
	asks("both", both, engine.Identity{Name: "bob", IDs: []string{"bob:*"}, NoWatch: true, Expires: clock.Now().Add(10 * time.Minute)}, nil, 7)
	leafless := login("let bob in")
	asks("credentials only", leafless, engine.Identity{Name: "bob", IDs: []string{"bob:*"}, NoWatch: true, Expires: clock.Now().Add(10 * time.Minute)}, nil, 8)
}

// Who is known goes on, and nobody is denied, whatever the service does.
func TestCalloutFails(t *testing.T) {
	lies := map[string]http.HandlerFunc{
		"down": hangsUp, "slow": hangs, "slow inside": hangsInside, "huge": huge, "garbage": says(http.StatusOK, "<html>"), "empty": says(http.StatusOK, ""),
		"error": says(http.StatusInternalServerError, `{"name":"root","expires_in":60}`), "not found": says(http.StatusNotFound, ""),
		"too many": says(http.StatusTooManyRequests, ""), "no content": says(http.StatusNoContent, ""),
		"no name": says(http.StatusOK, `{"expires_in":60}`), "no lifetime": says(http.StatusOK, `{"name":"root"}`),
		"negative lifetime": says(http.StatusOK, `{"name":"root","expires_in":-1}`), "endless lifetime": says(http.StatusOK, `{"name":"root","expires_in":9223372036854775807}`),
		"unknown field": says(http.StatusOK, `{"name":"root","expires_in":60,"id":["a"]}`), "ids null": says(http.StatusOK, `{"name":"root","expires_in":60,"ids":null}`),
		"lookup null": says(http.StatusOK, `{"name":"root","expires_in":60,"lookup":null}`), "limits null": says(http.StatusOK, `{"name":"root","expires_in":60,"limits":null}`),
		"ids a text": says(http.StatusOK, `{"name":"root","expires_in":60,"ids":"a"}`), "two answers": says(http.StatusOK, `{"name":"root","expires_in":60}{}`),
		"a list": says(http.StatusOK, `[{"name":"root","expires_in":60}]`), "null": says(http.StatusOK, "null"),
		"no UTF-8": says(http.StatusOK, "{\"name\":\"\xff\",\"expires_in\":60}"),
	}
	var stolen sync.Map
	thief := newFakeServer(t)
	thief.does(func(w http.ResponseWriter, r *http.Request) {
		stolen.Store("credentials", true)
		says(http.StatusOK, `{"name":"root","expires_in":60}`)(w, r)
	})
	lies["redirect"] = redirects(thief.URL)
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			clock, service := newClock(), newUserService(t)
			c := newCallout(t, CalloutConfig{URL: service.URL, Timeout: unhurried, Now: clock.Now})
			known, err := c.Authenticate(t.Context(), login("let alice in"))
			if err != nil {
				t.Fatal(err)
			}
			service.does(lie)
			if strings.HasPrefix(name, "slow") {
				c.service.timeout = 20 * time.Millisecond
			}
			if who, err := c.Authenticate(t.Context(), login("let bob in")); !errors.Is(err, engine.ErrRetryLogin) || errors.Is(err, ErrDenied) || who.Name != "" {
				t.Errorf("unknown: %+v, %v, want retry", who, err)
			}
			if troubles := c.troubles(); len(troubles) != 1 {
				t.Errorf("troubles %q", troubles)
			}
			// the second time, the service is asked in vain
			for _, age := range []time.Duration{0, 5 * time.Minute, 5*time.Minute - 1} {
				clock.forward(age)
				if who, err := c.Authenticate(t.Context(), login("let alice in")); err != nil || !same(who, known) {
					t.Errorf("known: %+v, %v", who, err)
				}
			}
			clock.forward(1)
			if _, err := c.Authenticate(t.Context(), login("let alice in")); !errors.Is(err, engine.ErrRetryLogin) {
				t.Errorf("known, at the end of the lifetime: %v, want retry", err)
			}
			service.does(service.answer)
			clock.forward(probePeriod)
			c.service.timeout = unhurried
			if _, err := c.Authenticate(t.Context(), login("let bob in")); err != nil || len(c.troubles()) > 0 {
				t.Errorf("afterwards: %v, troubles %q", err, c.troubles())
			}
		})
	}
	if _, ok := stolen.Load("credentials"); ok {
		t.Error("the credentials followed a redirect")
	}
}

// unhurried is longer than any call takes that a test waits for.
const unhurried = time.Minute

// Who is denied is not let in by what the node remembers.
func TestCalloutForgets(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	c := newCallout(t, CalloutConfig{URL: service.URL, Now: clock.Now})
	if _, err := c.Authenticate(t.Context(), login("let alice in")); err != nil {
		t.Fatal(err)
	}
	clock.forward(5 * time.Minute)
	service.does(says(http.StatusUnauthorized, ""))
	if _, err := c.Authenticate(t.Context(), login("let alice in")); !errors.Is(err, ErrDenied) {
		t.Errorf("denied: %v", err)
	}
	service.does(says(http.StatusBadGateway, ""))
	clock.forward(denialTime)
	if _, err := c.Authenticate(t.Context(), login("let alice in")); !errors.Is(err, engine.ErrRetryLogin) {
		t.Errorf("denied, then down: %v, want retry", err)
	}
}

// A logger may be slow. It holds up nobody.
func TestLoggersHoldNoLock(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	c := newCallout(t, CalloutConfig{URL: service.URL, Now: clock.Now})
	key := newSigner(t, "k", jwt.SigningMethodES256)
	token := key.sign(t, jwt.MapClaims{"sub": "alice", "exp": clock.Now().Add(time.Hour).Unix()}, nil)
	j := newJWT(t, JWTConfig{JWKSURL: service.URL, Now: clock.Now}, "")
	logs := make(chan string, 10)
	c.cfg.Logger = slog.New(askingLog{quiet.Handler(), t, c.troubles, logs})
	j.jwks.log = slog.New(askingLog{quiet.Handler(), t, j.troubles, logs})

	service.does(hangsUp)
	c.Authenticate(t.Context(), login("let alice in"))
	j.Authenticate(t.Context(), login(token))
	service.does(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			service.answer(w, r)
			return
		}
		io.WriteString(w, jwksOf(key))
	})
	clock.forward(jwksGap)
	c.Authenticate(t.Context(), login("let alice in"))
	j.Authenticate(t.Context(), login(token))
	for range 4 {
		<-logs
	}
}

// askingLog asks for the troubles whenever something is logged.
type askingLog struct {
	slog.Handler
	t        *testing.T
	troubles func() []string
	logs     chan<- string
}

func (l askingLog) Handle(_ context.Context, r slog.Record) error {
	answered := make(chan struct{})
	go func() {
		l.troubles()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		l.t.Errorf("%q is logged while a lock is held", r.Message)
	}
	l.logs <- r.Message
	return nil
}

func (askingLog) Enabled(context.Context, slog.Level) bool { return true }

// While the service hangs, few logins wait for it.
func TestCalloutSilence(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	c := newCallout(t, CalloutConfig{URL: service.URL, Now: clock.Now})
	c.service.timeout = 20 * time.Millisecond
	service.does(hangs)
	calls := &countedCalls{RoundTripper: c.service.client.Transport}
	c.service.client.Transport = calls
	tries := func(n int) {
		for i := range n {
			if _, err := c.Authenticate(t.Context(), login(fmt.Sprint("let ", i, " in"))); !errors.Is(err, engine.ErrRetryLogin) {
				t.Errorf("try %d: %v", i, err)
			}
		}
	}
	tries(100)
	if n := calls.n.Load(); n != manySilent {
		t.Errorf("%d requests, want %d", n, manySilent)
	}
	clock.forward(probePeriod)
	tries(100)
	if n := calls.n.Load(); n != manySilent+1 {
		t.Errorf("%d requests with one probe, want %d", n, manySilent+1)
	}
	clock.forward(probePeriod)
	service.does(service.answer)
	c.service.timeout = unhurried
	for i := range 3 {
		if _, err := c.Authenticate(t.Context(), login(fmt.Sprint("let ", i, " in"))); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// countedCalls counts the calls on the side that makes them: a service on a busy machine may not
// see one before it is given up.
type countedCalls struct {
	http.RoundTripper
	n atomic.Int64
}

func (c *countedCalls) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.RoundTripper.RoundTrip(r)
}

// Many clients with the same credentials cause one call, and at most maxCalls run at once.
func TestCalloutFlood(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	c := newCallout(t, CalloutConfig{URL: service.URL, Timeout: unhurried, Now: clock.Now})
	const few = 4
	c.places = make(chan struct{}, few)
	arrived, release := make(chan struct{}, 1000), make(chan struct{})
	service.does(func(w http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-release
		service.answer(w, r)
	})
	var all sync.WaitGroup
	const names, each = 10, 20
	for i := range names * each {
		all.Go(func() {
			if _, err := c.Authenticate(t.Context(), login(fmt.Sprint("let ", i%names, " in"))); err != nil {
				t.Error(err)
			}
		})
	}
	for range few {
		<-arrived
	}
	if n := service.requests.Load(); n != few {
		t.Errorf("%d calls at once, want %d", n, few)
	}
	close(release)
	all.Wait()
	if n := service.requests.Load(); n != names {
		t.Errorf("%d calls for %d credentials", n, names)
	}
}

func TestCalloutTLS(t *testing.T) {
	ca := certstest.NewCA(t, "ours")
	service := newUserService(t)
	secure := newTLSServer(t, ca, http.HandlerFunc(service.answer))
	clock := newClock()
	c := newCallout(t, CalloutConfig{URL: secure.URL, CAFile: ca.Write(t, t.TempDir()), Now: clock.Now})
	if who, err := c.Authenticate(t.Context(), login("let alice in")); err != nil || who.Name != "alice" {
		t.Errorf("with our CA: %+v, %v", who, err)
	}
	c = newCallout(t, CalloutConfig{URL: secure.URL, CAFile: certstest.NewCA(t, "other").Write(t, t.TempDir()), Now: clock.Now})
	if _, err := c.Authenticate(t.Context(), login("let alice in")); !errors.Is(err, engine.ErrRetryLogin) {
		t.Errorf("with another CA: %v", err)
	}
	if _, err := NewCallout(CalloutConfig{URL: secure.URL, CAFile: "callout_test.go"}); err == nil {
		t.Error("a CA file without certificates was taken")
	}
}

func TestCacheForgets(t *testing.T) {
	now := newClock().Now()
	c := newCache[int](3, 100)
	put := func(i int) { c.put(cacheKey{byte(i)}, i, 1, now.Add(time.Minute)) }
	for i := range 3 {
		put(i)
	}
	c.get(cacheKey{0}, now)
	put(1)
	put(3)
	for i, want := range []bool{true, true, false, true} {
		if v, ok := c.get(cacheKey{byte(i)}, now); ok != want || ok && v != i {
			t.Errorf("%d: %d, %v", i, v, ok)
		}
	}
	if _, ok := c.get(cacheKey{0}, now.Add(time.Minute)); ok || len(c.byKey) != 2 || c.order.Len() != 2 {
		t.Errorf("after its time: %v, %d and %d are left", ok, len(c.byKey), c.order.Len())
	}
	c.put(cacheKey{4}, 4, 99, now.Add(time.Minute)) // with the last one, that makes 100 bytes
	if len(c.byKey) != 2 || c.bytes != 100 {
		t.Errorf("%d values have %d bytes, want 2 and 100", len(c.byKey), c.bytes)
	}
	c.drop(cacheKey{4})
	if c.bytes != 1 {
		t.Errorf("%d bytes are left of one value, want 1", c.bytes)
	}
}

// Long answers fill the memory no further than many short ones.
func TestCalloutMemory(t *testing.T) {
	clock, service := newClock(), newUserService(t)
	c := newCallout(t, CalloutConfig{URL: service.URL, Timeout: unhurried, Now: clock.Now})
	c.known.mostBytes = 64 << 10
	long, _ := json.Marshal(slices.Repeat([]string{strings.Repeat("x", 100)}, MaxPatterns))
	service.does(says(http.StatusOK, `{"name":"root","expires_in":60,"ids":`+string(long)+`}`))
	for i := range 5 {
		if _, err := c.Authenticate(t.Context(), login(fmt.Sprint("client ", i))); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.known.byKey); n != 2 {
		t.Errorf("%d answers of 30 KB are remembered in 64 KiB, want 2", n)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"name":"alice","ids":["a*"],"lookup":false,"limits":{},"expires_in":600}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		began := newClock().Now()
		who, err := parseAnswer(body, began)
		if err == nil && (checkName(who.Name) != nil || !who.Expires.After(began)) {
			t.Errorf("%+v", who)
		}
	})
}
