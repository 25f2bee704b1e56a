package identity

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"distmsg/engine"
)

// JWTConfig configures JWT. At least one of KeyFile and JWKSURL must be set.
type JWTConfig struct {
	KeyFile    string // public keys: PEM or a JSON Web Key Set
	JWKSURL    string
	JWKSCAFile string // authorities for JWKSURL; empty: those of the system
	Issuer     string // empty: any
	Audience   string // empty: any
	Leeway     time.Duration
	Now        func() time.Time
	Logger     *slog.Logger // hears when keys change or cannot be had
}

// JWT recognises signed tokens. The claim sub is the name of the identity, exp its end, and the
// claim distmsg has its Rights.
type JWT struct {
	cfg    JWTConfig
	parser *jwt.Parser
	file   *file[keySet] // nil: there is none
	jwks   *jwks         // nil: there is none
	places chan struct{} // how many tokens may be verified at once
}

// NewJWT reads the file of keys. It does not fetch keys yet: the first token that needs them, or
// Chain.Run, does.
func NewJWT(cfg JWTConfig) (*JWT, error) {
	j := &JWT{cfg: cfg, places: make(chan struct{}, max(1, engine.UsableCPUs()/2))}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(slices.Concat(rsaAlgs, []string{"ES256", "ES384", "ES512"}, ed25519Algs)),
		jwt.WithExpirationRequired(), jwt.WithLeeway(cfg.Leeway), jwt.WithTimeFunc(cfg.Now), jwt.WithStrictDecoding(),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	j.parser = jwt.NewParser(options...)
	var err error
	if cfg.KeyFile != "" {
		if j.file, err = openFile(cfg.KeyFile, parseKeys); err != nil {
			return nil, err
		}
	}
	if cfg.JWKSURL != "" {
		service, err := newService(cfg.JWKSURL, cfg.JWKSCAFile, jwksTimeout, maxJWKS)
		if err != nil {
			return nil, err
		}
		j.jwks = &jwks{service: service, now: cfg.Now, log: cfg.Logger}
	}
	return j, nil
}

// claims are the parts of a token that we read.
type claims struct {
	jwt.RegisteredClaims
	Distmsg json.RawMessage `json:"distmsg"`
}

// Way implements Authenticator.
func (*JWT) Way() Way { return ByJWT }

// Authenticate implements Authenticator.
func (j *JWT) Authenticate(ctx context.Context, l engine.Login) (engine.Identity, error) {
	if !bytes.HasPrefix(l.Credentials, []byte("eyJ")) || bytes.Count(l.Credentials, []byte(".")) != 2 {
		return engine.Identity{}, ErrNotMine
	}
	var c claims
	if err := j.verify(ctx, string(l.Credentials), &c); err != nil {
		return engine.Identity{}, whyInvalid(err)
	}
	var rights Rights
	if c.Distmsg != nil {
		if err := decodeStrictly(c.Distmsg, &rights); err != nil {
			return engine.Identity{}, denied("the claim distmsg of the JWT is wrong: " + err.Error())
		}
	}
	who, err := rights.identity(c.Subject, c.ExpiresAt.Add(j.cfg.Leeway))
	if err != nil {
		return engine.Identity{}, denied("the claims of the JWT name no identity: " + err.Error())
	}
	return who, nil
}

// verify reads the token into c and checks its signature, with each key that may have made it. Few
// are checked at once, because strangers may cause it. Whoever waits for keys holds up nobody.
func (j *JWT) verify(ctx context.Context, token string, c *claims) error {
	placed := false
	defer func() {
		if placed {
			<-j.places
		}
	}()
	_, err := j.parser.ParseWithClaims(token, c, func(t *jwt.Token) (any, error) {
		keys, err := j.keysFor(ctx, t)
		if err != nil {
			return nil, err
		}
		select {
		case j.places <- struct{}{}:
			placed = true
			return keys, nil
		case <-ctx.Done():
			return nil, retry("the node checks too many tokens: try again")
		}
	})
	return err
}

// keysFor returns the keys that may have signed the token.
func (j *JWT) keysFor(ctx context.Context, t *jwt.Token) (any, error) {
	if t.Header["crit"] != nil { // extensions that must be understood, and we know none
		return nil, denied("the JWT demands extensions (crit)")
	}
	kid, isText := t.Header["kid"].(string)
	if !isText && t.Header["kid"] != nil {
		return nil, denied("the JWT has a kid that is no text")
	}
	var found []crypto.PublicKey
	if j.file != nil {
		found = j.file.get().find(kid, t.Method.Alg())
	}
	var err error
	if len(found) == 0 && j.jwks != nil {
		if found, err = j.jwks.find(ctx, kid, t.Method.Alg()); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, denied("the key of the JWT is unknown, or not for its algorithm")
	}
	set := jwt.VerificationKeySet{}
	for _, key := range found {
		set.Keys = append(set.Keys, key)
	}
	return set, nil
}

// whyInvalid returns what is wrong with a token, without its content.
func whyInvalid(err error) error {
	var no denied
	var later retry
	switch {
	case errors.As(err, &later):
		return later
	case errors.As(err, &no):
		return no
	case errors.Is(err, jwt.ErrTokenMalformed):
		return denied("the JWT cannot be read")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return denied("the JWT is signed in a way that is unknown")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return denied("the signature of the JWT is wrong")
	case errors.Is(err, jwt.ErrTokenExpired):
		return denied("the JWT has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return denied("the JWT is not valid yet (nbf)")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return denied("the JWT lacks a claim: exp is required, and iss and aud if the node asks for them")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return denied("the JWT is of another issuer (iss)")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return denied("the JWT is for another audience (aud)")
	}
	return denied("the claims of the JWT are wrong")
}

func (j *JWT) run(ctx context.Context) {
	var both sync.WaitGroup
	if j.jwks != nil {
		both.Go(func() { j.jwks.run(ctx) })
	}
	if j.file != nil {
		both.Go(func() { every(ctx, lookPeriod, j.look) })
	}
	both.Wait()
}

// look reads the file of keys if it has changed.
func (j *JWT) look() {
	j.file.check(j.cfg.Logger, "the file of JWT keys is wrong: its last good content stays in force", func(keySet) {
		j.cfg.Logger.Info("read the file of JWT keys again", "keys", len(j.file.get()))
	})
}

// prepare reads the file of keys. commit also begins to fetch the others, so that a key that was
// removed is soon unknown. It does not wait for that: while the server is down, the keys that are
// known stay in force.
func (j *JWT) prepare() (commit func(), err error) {
	install, err := j.file.prepare(unnoticed)
	if err != nil || j.jwks == nil {
		return install, err
	}
	return func() {
		install()
		j.jwks.refresh()
	}, nil
}

func (j *JWT) troubles() (all []string) {
	if j.file != nil {
		all = j.file.troubles()
	}
	if j.jwks != nil {
		all = append(all, j.jwks.troubles()...)
	}
	return all
}
