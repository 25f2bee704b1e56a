package identity

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"distmsg/engine"
)

// CertificatesConfig configures Certificates.
type CertificatesConfig struct {
	Path   string // of the rules
	Now    func() time.Time
	Logger *slog.Logger // hears when the file changes or is wrong
	// Revoked hears the names of identities whose certificate has other rights now. May be nil.
	Revoked func(names []string)
}

// Certificates recognises client certificates that TLS has verified and that match a rule. The
// first rule that matches decides. A certificate without a rule counts as none.
type Certificates struct {
	cfg  CertificatesConfig
	file *file[[]rule]

	mu    sync.Mutex
	given map[[sha256.Size]byte]given // by fingerprint
	tidy  int                         // size of given at which those that have expired leave it
}

// given is an identity that a certificate had at its last login.
type given struct {
	leaf *x509.Certificate
	who  engine.Identity
}

const firstTidy = 1024

// NewCertificates reads the rules.
func NewCertificates(cfg CertificatesConfig) (*Certificates, error) {
	c := &Certificates{cfg: cfg, given: make(map[[sha256.Size]byte]given), tidy: firstTidy}
	var err error
	c.file, err = openFile(cfg.Path, parseRules)
	return c, err
}

// Way implements Authenticator.
func (*Certificates) Way() Way { return ByCertificate }

// Authenticate implements Authenticator.
func (c *Certificates) Authenticate(_ context.Context, l engine.Login) (engine.Identity, error) {
	leaf := verified(l)
	if leaf == nil {
		return engine.Identity{}, ErrNotMine
	}
	for {
		rules := c.file.value.Load()
		who, err := identify(*rules, leaf)
		if err != nil {
			return engine.Identity{}, err
		}
		if !c.cfg.Now().Before(leaf.NotAfter) { // TLS may have resumed a connection from before
			return engine.Identity{}, denied("the client certificate has expired")
		}
		if c.note(rules, leaf, who) {
			return who, nil
		}
	}
}

// identify returns what the first rule that matches says.
func identify(rules []rule, leaf *x509.Certificate) (engine.Identity, error) {
	for _, r := range rules {
		part, ok := r.match(leaf)
		if !ok {
			continue
		}
		who, err := r.identify(part, leaf.NotAfter)
		if err != nil {
			return engine.Identity{}, denied("the client certificate has a name that cannot be an identity")
		}
		return who, nil
	}
	return engine.Identity{}, ErrNotMine
}

// note remembers who has logged in, for when the rules change. It returns false if they have
// changed meanwhile: changed may not see this login then.
func (c *Certificates) note(rules *[]rule, leaf *x509.Certificate, who engine.Identity) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.file.value.Load() != rules {
		return false
	}
	c.given[sha256.Sum256(leaf.Raw)] = given{leaf, who}
	if len(c.given) >= c.tidy {
		now := c.cfg.Now()
		maps.DeleteFunc(c.given, func(_ [sha256.Size]byte, g given) bool { return now.After(g.leaf.NotAfter) })
		c.tidy = max(firstTidy, 2*len(c.given))
	}
	return true
}

func (c *Certificates) run(ctx context.Context) { every(ctx, lookPeriod, c.look) }

// look reads the rules if they have changed.
func (c *Certificates) look() {
	c.file.check(c.cfg.Logger, "the rules for client certificates are wrong: the last good ones stay in force", c.changed)
}

func (c *Certificates) prepare() (commit func(), err error) { return c.file.prepare(c.changed) }

// changed reports which identities the new rules have changed.
func (c *Certificates) changed([]rule) {
	names := make(map[string]bool)
	c.mu.Lock()
	rules := c.file.get()
	for fingerprint, g := range c.given {
		who, err := identify(rules, g.leaf)
		if err != nil || !reflect.DeepEqual(who, g.who) {
			names[g.who.Name] = true
			delete(c.given, fingerprint)
		}
	}
	c.mu.Unlock()
	revoked := slices.Sorted(maps.Keys(names))
	c.cfg.Logger.Info("read the rules for client certificates again", "rules", len(rules), "revoked", revoked)
	if len(revoked) > 0 && c.cfg.Revoked != nil {
		c.cfg.Revoked(revoked)
	}
}

func (c *Certificates) troubles() []string { return c.file.troubles() }
