package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"distmsg/engine"
)

const (
	maxCalls       = 64              // at once
	maxAnswer      = 64 << 10        // bytes
	maxRemembered  = 100_000         // identities, and as many denials
	maxMemory      = 64 << 20        // bytes of the identities, and of the denials
	denialTime     = 5 * time.Second // how long a denial is remembered
	maxLifetime    = 365 * 24 * 3600 // seconds
	manySilent     = 8               // calls in a row without an answer; then probes
	probePeriod    = time.Second     // between two probes
	calloutTimeout = 1500 * time.Millisecond
)

// CalloutConfig configures Callout.
type CalloutConfig struct {
	URL        string
	CAFile     string        // authorities; empty: those of the system
	SecretFile string        // holds what is sent as Authorization: Bearer …; empty: nothing is
	Timeout    time.Duration // of a call; 0: 1.5 s, because the SDK waits for 2 s
	Now        func() time.Time
	Logger     *slog.Logger // hears when the service fails and when it works again
}

// Callout asks a service of the user's own over HTTP. It recognises all credentials, so it stands
// last in a chain. It remembers identities for their lifetime: while the service is down, slow or
// answers nonsense, they go on, and others hear engine.ErrRetryLogin.
type Callout struct {
	cfg     CalloutConfig
	service *service
	secret  *file[string] // nil: there is none
	mac     [32]byte      // the key of cacheKeys; new in each process
	places  chan struct{} // how many calls may be under way
	calls   singleflight.Group
	known   *cache[answered]
	denials *cache[denied]

	mu      sync.Mutex
	trouble error     // of the last call
	silent  int       // calls in a row that had no answer
	probe   time.Time // when the next call may be tried, if there are many of those
}

// answered is an identity that the service has named.
type answered struct {
	who   engine.Identity
	fresh time.Time // until then, the service need not be asked again
}

// NewCallout reads the files. It does not call the service.
func NewCallout(cfg CalloutConfig) (*Callout, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = calloutTimeout
	}
	service, err := newService(cfg.URL, cfg.CAFile, cfg.Timeout, maxAnswer)
	if err != nil {
		return nil, err
	}
	c := &Callout{
		cfg: cfg, service: service, places: make(chan struct{}, maxCalls),
		known: newCache[answered](maxRemembered, maxMemory), denials: newCache[denied](maxRemembered, maxMemory),
	}
	rand.Read(c.mac[:]) // never fails
	if cfg.SecretFile != "" {
		if c.secret, err = openFile(cfg.SecretFile, parseSecret); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// parseSecret returns the text without the newline at its end. Errors do not quote it.
func parseSecret(text []byte) (string, error) {
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return "", errors.New("it is empty")
	}
	for _, b := range text {
		if b <= ' ' || b >= 0x7f {
			return "", errors.New("the secret has bytes that are no printable ASCII")
		}
	}
	return string(text), nil
}

// question is what the service is asked, as JSON.
type question struct {
	Credentials string     `json:"credentials"`           // base64
	Remote      string     `json:"remote"`                // the IP address; empty if there is none
	Certificate *shownCert `json:"certificate,omitempty"` // that TLS has verified
}

type shownCert struct {
	Subject string   `json:"subject"`
	DNS     []string `json:"dns,omitempty"`
	URIs    []string `json:"uris,omitempty"`
	Emails  []string `json:"emails,omitempty"`
}

// answer is what the service says, as JSON.
type answer struct {
	Name      string `json:"name"`
	ExpiresIn int64  `json:"expires_in"` // seconds
	Rights
}

// Way implements Authenticator.
func (*Callout) Way() Way { return ByCallout }

// Authenticate implements Authenticator.
func (c *Callout) Authenticate(ctx context.Context, l engine.Login) (engine.Identity, error) {
	if len(l.Credentials) == 0 && verified(l) == nil {
		return engine.Identity{}, ErrNotMine
	}
	key := c.keyOf(l)
	now := c.cfg.Now()
	known, isKnown := c.known.get(key, now)
	if isKnown && now.Before(known.fresh) {
		return known.who, nil
	}
	if no, ok := c.denials.get(key, now); ok {
		return engine.Identity{}, no
	}
	who, err := c.callOnce(ctx, key, l)
	if isKnown && errors.Is(err, engine.ErrRetryLogin) {
		return known.who, nil
	}
	return who, err
}

// keyOf returns the key of everything that the service's answer may depend on.
func (c *Callout) keyOf(l engine.Login) (key cacheKey) {
	mac := hmac.New(sha256.New, c.mac[:])
	add := func(part []byte) {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		mac.Write(part)
	}
	add(l.Credentials)
	add([]byte(addrOf(l.Remote).String()))
	if leaf := verified(l); leaf != nil {
		add(leaf.Raw)
	}
	mac.Sum(key[:0])
	return key
}

// callOnce calls the service, or waits for a call that asks the same. It does not end with ctx.
func (c *Callout) callOnce(ctx context.Context, key cacheKey, l engine.Login) (engine.Identity, error) {
	result := c.calls.DoChan(string(key[:]), func() (any, error) {
		who, err := c.call(l)
		c.remember(key, who, err)
		return who, err
	})
	select {
	case r := <-result:
		return r.Val.(engine.Identity), r.Err
	case <-ctx.Done():
		return engine.Identity{}, retry("the service that knows the credentials does not answer")
	}
}

// remember notes the verdict of the service, if there is one.
func (c *Callout) remember(key cacheKey, who engine.Identity, err error) {
	var no denied
	now := c.cfg.Now()
	switch {
	case errors.As(err, &no):
		c.known.drop(key)
		c.denials.put(key, no, len(no), now.Add(denialTime))
	case err == nil:
		c.known.put(key, answered{who: who, fresh: now.Add(who.Expires.Sub(now) / 2)}, bytesOf(who), who.Expires)
	}
}

// bytesOf returns what the texts of an identity take in memory, and 16 bytes for each ID besides.
func bytesOf(who engine.Identity) int {
	n := len(who.Name)
	for _, id := range who.IDs {
		n += len(id) + 16
	}
	return n
}

// call asks the service, if there is a place and the service is not known to fail.
func (c *Callout) call(l engine.Login) (engine.Identity, error) {
	const unable = retry("the service that knows the credentials does not answer")
	if !c.mayCall() {
		return engine.Identity{}, unable
	}
	waiting := time.NewTimer(c.cfg.Timeout)
	defer waiting.Stop()
	select {
	case c.places <- struct{}{}:
		defer func() { <-c.places }()
	case <-waiting.C:
		return engine.Identity{}, unable
	}
	who, err := c.ask(l)
	var no denied
	if err != nil && !errors.As(err, &no) {
		c.failed(err)
		return engine.Identity{}, unable
	}
	c.worked()
	return who, err
}

// ask sends the question and reads the answer. An error that is not denied means that the service
// does not work.
func (c *Callout) ask(l engine.Login) (engine.Identity, error) {
	r, err := c.request(l)
	if err != nil {
		return engine.Identity{}, err
	}
	began := c.cfg.Now()
	status, body, err := c.service.ask(context.Background(), r)
	switch {
	case err != nil:
		return engine.Identity{}, err
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return engine.Identity{}, denied("the credentials are refused")
	case status != http.StatusOK:
		return engine.Identity{}, wrongAnswer(fmt.Sprintf("the answer has the status %d", status))
	}
	return parseAnswer(body, began)
}

func (c *Callout) request(l engine.Login) (*http.Request, error) {
	q := question{Credentials: base64.StdEncoding.EncodeToString(l.Credentials)}
	if addr := addrOf(l.Remote); addr.IsValid() {
		q.Remote = addr.String()
	}
	if leaf := verified(l); leaf != nil {
		q.Certificate = &shownCert{Subject: leaf.Subject.String(), DNS: leaf.DNSNames, Emails: leaf.EmailAddresses}
		for _, u := range leaf.URIs {
			q.Certificate.URIs = append(q.Certificate.URIs, u.String())
		}
	}
	body, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequest(http.MethodPost, c.service.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	if c.secret != nil {
		r.Header.Set("Authorization", "Bearer "+c.secret.get())
	}
	return r, nil
}

// wrongAnswer is an answer that is neither an identity nor a denial.
type wrongAnswer string

func (w wrongAnswer) Error() string { return string(w) }

// parseAnswer reads an answer to a question that was asked at began.
func parseAnswer(body []byte, began time.Time) (engine.Identity, error) {
	var a answer
	if err := decodeStrictly(body, &a); err != nil {
		return engine.Identity{}, wrongAnswer("the answer is wrong: " + err.Error())
	}
	if a.ExpiresIn < 1 || a.ExpiresIn > maxLifetime {
		return engine.Identity{}, wrongAnswer(fmt.Sprintf("the answer is wrong: expires_in is %d, and must be 1 to %d (seconds)", a.ExpiresIn, maxLifetime))
	}
	who, err := a.identity(a.Name, began.Add(time.Duration(a.ExpiresIn)*time.Second))
	if err != nil {
		return engine.Identity{}, wrongAnswer("the answer is wrong: " + err.Error())
	}
	return who, nil
}

// mayCall reports whether the service may be called. After many calls in a row without an answer,
// it is called only now and then, so that logins do not wait for it in vain. Wrong answers do not
// count: some client's credentials may cause them.
func (c *Callout) mayCall() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	if c.silent < manySilent {
		return true
	}
	if now.Before(c.probe) {
		return false
	}
	c.probe = now.Add(probePeriod)
	return true
}

// failed notes that a call has failed.
func (c *Callout) failed(err error) {
	if c.count(err) {
		c.cfg.Logger.Error("the callout fails: known identities continue, others must try again", "error", err)
	}
}

// count counts a call that has failed. It reports whether the call before had not.
func (c *Callout) count(err error) (news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	news = c.trouble == nil
	c.trouble = err
	var wrong wrongAnswer
	if errors.As(err, &wrong) {
		c.silent = 0
		return news
	}
	c.silent++
	if c.silent == manySilent {
		c.probe = c.cfg.Now().Add(probePeriod)
	}
	return news
}

// worked notes that a call has not failed.
func (c *Callout) worked() {
	c.mu.Lock()
	news := c.trouble != nil
	c.silent, c.trouble = 0, nil
	c.mu.Unlock()
	if news {
		c.cfg.Logger.Info("the callout works again")
	}
}

func (c *Callout) run(ctx context.Context) {
	if c.secret == nil {
		return
	}
	every(ctx, lookPeriod, func() {
		c.secret.check(c.cfg.Logger, "the secret of the callout cannot be read: the last good one stays in force", unnoticed)
	})
}

func (c *Callout) prepare() (commit func(), err error) { return c.secret.prepare(unnoticed) }

func (c *Callout) troubles() (all []string) {
	if c.secret != nil {
		all = c.secret.troubles()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.trouble != nil {
		all = append(all, fmt.Sprintf("the callout fails: %v", c.trouble))
	}
	return all
}
