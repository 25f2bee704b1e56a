package identity

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	jwksTimeout = 5 * time.Second
	maxJWKS     = 256 << 10        // bytes
	jwksPeriod  = 10 * time.Minute // between two fetches
	jwksGap     = 10 * time.Second // the same, when an unknown key or a failure asks for one
)

// jwks has the keys of a JSON Web Key Set that is fetched by URL. While it cannot be fetched, the
// keys that are known stay in force.
type jwks struct {
	service *service
	now     func() time.Time
	log     *slog.Logger

	mu       sync.Mutex
	keys     keySet
	began    time.Time // of the last fetch
	fetching *fetch    // nil: none is under way
	again    bool      // another one has to follow it
	trouble  error     // of the last fetch
}

// fetch is one fetch of the keys. keys and err are set when done is closed.
type fetch struct {
	done chan struct{}
	err  error
}

// find returns the keys that may have signed a token with this header. If it knows none, it fetches
// them. It returns an error if nobody can say now whether there is such a key.
func (j *jwks) find(ctx context.Context, kid, alg string) ([]crypto.PublicKey, error) {
	j.mu.Lock()
	known := j.keys.find(kid, alg)
	j.mu.Unlock()
	if len(known) > 0 {
		return known, nil
	}
	f, fresh := j.fetch()
	if f == nil {
		return nil, retry("the key of the token is unknown, and the keys were fetched a moment ago")
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, retry("the keys are being fetched")
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	known = j.keys.find(kid, alg)
	switch {
	case len(known) > 0:
		return known, nil
	case f.err != nil:
		return nil, retry("the keys cannot be fetched")
	case !fresh: // the key may have come after that fetch had begun
		return nil, retry("the key of the token is unknown, and the keys were fetched a moment ago")
	}
	return nil, nil
}

// fetch begins a fetch, or joins the one that is under way: then fresh is false. It returns nil if
// the last one began a moment ago.
func (j *jwks) fetch() (f *fetch, fresh bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	switch {
	case j.fetching != nil:
		return j.fetching, false
	case !j.began.IsZero() && now.Sub(j.began) < jwksGap:
		return nil, false
	}
	return j.begin(now), true
}

// begin begins a fetch. The caller holds mu, and none is under way.
func (j *jwks) begin(now time.Time) *fetch {
	f := &fetch{done: make(chan struct{})}
	j.fetching, j.began = f, now
	go j.do(f)
	return f
}

// refresh begins a fetch at once. If one is under way, which may have missed the latest change, it
// begins when that has ended.
func (j *jwks) refresh() {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetching != nil {
		j.again = true
		return
	}
	j.begin(j.now())
}

// do fetches the keys. It ends after jwksTimeout at the latest.
func (j *jwks) do(f *fetch) {
	keys, err := j.get()
	log := j.end(f, keys, err)
	log()
}

// end takes the keys of a fetch, unless err says that there are none. The caller then calls log.
func (j *jwks) end(f *fetch, keys keySet, err error) (log func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer close(f.done)
	failed := j.trouble != nil
	if err == nil {
		j.keys = keys
	}
	f.err, j.trouble, j.fetching = err, err, nil
	if j.again {
		j.again = false
		j.begin(j.now())
	}
	known := len(j.keys)
	switch {
	case err != nil && !failed:
		return func() {
			j.log.Error("the JWKS cannot be fetched: the keys that are known stay in force", "error", err, "keys", known)
		}
	case err == nil && failed:
		return func() { j.log.Info("the JWKS can be fetched again", "keys", known) }
	}
	return func() {}
}

func (j *jwks) get() (keySet, error) {
	r, err := http.NewRequest(http.MethodGet, j.service.url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "application/jwk-set+json, application/json")
	status, body, err := j.service.ask(context.Background(), r)
	switch {
	case err != nil:
		return nil, err
	case status != http.StatusOK:
		return nil, fmt.Errorf("the answer has the status %d", status)
	}
	keys, wrong, err := parseJWKS(body)
	if len(wrong) > 0 {
		j.log.Warn("the JWKS has keys that cannot be used", "error", errors.Join(wrong...))
	}
	if err == nil && len(keys) == 0 {
		err = errors.New("none of its keys can be used")
	}
	return keys, err
}

// run fetches the keys now and then, and soon again after a failure.
func (j *jwks) run(ctx context.Context) {
	j.fetch()
	every(ctx, jwksGap, j.tick)
}

// tick fetches the keys if they are old, or if the last fetch failed.
func (j *jwks) tick() {
	j.mu.Lock()
	due := j.trouble != nil || j.now().Sub(j.began) >= jwksPeriod
	j.mu.Unlock()
	if due {
		j.fetch()
	}
}

func (j *jwks) troubles() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.trouble == nil {
		return nil
	}
	return []string{fmt.Sprintf("the JWKS cannot be fetched, %d known keys stay in force: %v", len(j.keys), j.trouble)}
}
