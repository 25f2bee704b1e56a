package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"distmsg/engine"
)

// TokensConfig configures Tokens.
type TokensConfig struct {
	Path   string
	Now    func() time.Time
	Logger *slog.Logger // hears when the file changes or is wrong
	// Revoked hears the names of identities that lost a token, or whose token got other rights.
	// Their connections may have rights that have ended. Nil: nobody hears it.
	Revoked func(names []string)
}

// trustTime is how long a checked token need not be hashed again.
const trustTime = 10 * time.Minute

// Tokens recognises tokens from a file of salted hashes.
type Tokens struct {
	cfg    TokensConfig
	file   *file[*tokenSet]
	mac    [32]byte      // the key of the sums of checked tokens; new in each process
	places chan struct{} // how many hashes may be computed at once
}

// NewTokens reads the file.
func NewTokens(cfg TokensConfig) (*Tokens, error) {
	t := &Tokens{cfg: cfg, places: make(chan struct{}, max(1, engine.UsableCPUs()/2))}
	rand.Read(t.mac[:]) // never fails
	var err error
	t.file, err = openFile(cfg.Path, parseTokenFile)
	return t, err
}

// tokenEntry is a line of the file in force.
type tokenEntry struct {
	line TokenLine
	hash hash
	who  engine.Identity

	turn    chan struct{} // one place: one check of this token at a time
	checked atomic.Pointer[checkedToken]
}

// checkedToken says that the token with this sum has the right secret.
type checkedToken struct {
	sum   [sha256.Size]byte
	until time.Time
}

const badToken = denied("the token is unknown, wrong or removed")

// Way implements Authenticator.
func (*Tokens) Way() Way { return ByToken }

// Authenticate implements Authenticator.
func (t *Tokens) Authenticate(ctx context.Context, l engine.Login) (engine.Identity, error) {
	entry, err := t.find(ctx, l.Credentials)
	if err != nil {
		return engine.Identity{}, err
	}
	return entry.who, nil
}

// Line returns the line of a token, for those who need more than an identity. It returns an error
// if the token is not valid.
func (t *Tokens) Line(ctx context.Context, token string) (TokenLine, error) {
	entry, err := t.find(ctx, []byte(token))
	switch {
	case errors.Is(err, ErrNotMine):
		return TokenLine{}, badToken
	case err != nil:
		return TokenLine{}, err
	}
	return entry.line, nil
}

// find returns the entry of a valid token.
func (t *Tokens) find(ctx context.Context, credentials []byte) (*tokenEntry, error) {
	if !bytes.HasPrefix(credentials, []byte(tokenPrefix)) {
		return nil, ErrNotMine
	}
	key, secret, ok := splitToken(credentials)
	if !ok {
		return nil, badToken
	}
	entry := t.file.get().byKey[key]
	if entry == nil {
		return nil, badToken
	}
	right, err := t.check(ctx, entry, secret)
	switch {
	case err != nil:
		return nil, err
	case !right:
		return nil, badToken
	case !entry.who.Expires.IsZero() && !t.cfg.Now().Before(entry.who.Expires):
		return nil, denied("the token has expired")
	}
	return entry, nil
}

// check reports whether secret is that of the entry. It computes the hash only if the token was not
// checked shortly before. Checks of one token take turns, so that many clients with the same token
// cause one hash, and wrong secrets for one token do not hold up the others.
func (t *Tokens) check(ctx context.Context, entry *tokenEntry, secret []byte) (bool, error) {
	mac := hmac.New(sha256.New, t.mac[:])
	mac.Write(secret)
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	if entry.trusts(sum, t.cfg.Now()) {
		return true, nil
	}
	for _, place := range []chan struct{}{entry.turn, t.places} {
		select {
		case place <- struct{}{}:
			defer func() { <-place }()
		case <-ctx.Done():
			return false, retry("the node checks too many tokens: try again")
		}
		if entry.trusts(sum, t.cfg.Now()) { // another client had the same token
			return true, nil
		}
	}
	if !entry.hash.matches(secret) {
		return false, nil
	}
	entry.checked.Store(&checkedToken{sum: sum, until: t.cfg.Now().Add(trustTime)})
	return true, nil
}

func (e *tokenEntry) trusts(sum [sha256.Size]byte, now time.Time) bool {
	c := e.checked.Load()
	return c != nil && now.Before(c.until) && hmac.Equal(c.sum[:], sum[:])
}

func (t *Tokens) run(ctx context.Context) { every(ctx, lookPeriod, t.look) }

// look reads the file if it has changed.
func (t *Tokens) look() {
	t.file.check(t.cfg.Logger, "the token file is wrong: its last good content stays in force", t.changed)
}

func (t *Tokens) prepare() (commit func(), err error) { return t.file.prepare(t.changed) }

// changed reports which identities the new content has changed. Lines that are as before need no
// new hash.
func (t *Tokens) changed(old *tokenSet) {
	now := t.file.get()
	for key, is := range now.byKey {
		if was := old.byKey[key]; was != nil && reflect.DeepEqual(was.line, is.line) {
			is.checked.CompareAndSwap(nil, was.checked.Load())
		}
	}
	names := revokedNames(old, now)
	t.cfg.Logger.Info("read the token file again", "tokens", len(now.order), "revoked", names)
	if len(names) > 0 && t.cfg.Revoked != nil {
		t.cfg.Revoked(names)
	}
}

// revokedNames returns the names that have a line in old which is missing or different in now.
func revokedNames(old, now *tokenSet) []string {
	names := make(map[string]bool)
	for key, was := range old.byKey {
		is := now.byKey[key]
		if is == nil || !reflect.DeepEqual(was.line, is.line) {
			names[was.who.Name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func (t *Tokens) troubles() []string { return t.file.troubles() }
