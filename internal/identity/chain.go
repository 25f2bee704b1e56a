package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"distmsg/engine"
)

// Authenticator is one way to prove an identity.
type Authenticator interface {
	// Authenticate decides on a login. It returns ErrNotMine if the login has no credentials of its
	// kind. It may block, until ctx ends at the latest.
	Authenticate(ctx context.Context, l engine.Login) (engine.Identity, error)
	// Way is the way to prove it.
	Way() Way
}

// ErrNotMine means that the login has no credentials of the authenticator's kind.
var ErrNotMine = errors.New("the credentials are of another kind")

// ErrDenied is wrapped by each error that refuses a login for good: the same credentials would be
// refused again.
var ErrDenied = errors.New("denied")

// denied is a refusal. Its text goes to the client.
type denied string

func (d denied) Error() string { return string(d) }
func (d denied) Unwrap() error { return ErrDenied }

// retry means that nobody can decide now. Its text goes to the client.
type retry string

func (r retry) Error() string { return string(r) }
func (r retry) Unwrap() error { return engine.ErrRetryLogin }

// Anonymous says from where clients may come without credentials.
type Anonymous int

const (
	AnonymousNowhere  Anonymous = iota
	AnonymousLoopback           // from this machine
	AnonymousAnywhere
)

// Chain asks several authenticators.
type Chain struct {
	links     []Authenticator
	anonymous Anonymous
	counts    counts
}

// NewChain returns a chain that asks the authenticators in this order.
func NewChain(anonymous Anonymous, links ...Authenticator) *Chain {
	return &Chain{links: slices.Clone(links), anonymous: anonymous}
}

// Authenticate returns the verdict of the first authenticator that recognises the credentials. It
// is an engine.Hooks.Authenticate.
func (c *Chain) Authenticate(ctx context.Context, l engine.Login) (engine.Identity, error) {
	for _, link := range c.links {
		who, err := link.Authenticate(ctx, l)
		if !errors.Is(err, ErrNotMine) {
			c.counts.add(link.Way(), resultOf(err))
			return who, err
		}
	}
	if len(l.Credentials) > 0 {
		c.counts.add(ByUnknown, Refused)
		return engine.Identity{}, denied("this node does not know credentials of this kind")
	}
	err := c.admitAnonymous(l)
	c.counts.add(Anonymously, resultOf(err))
	return engine.Identity{}, err
}

// admitAnonymous returns why a client without credentials may not log in, or nil if it may.
func (c *Chain) admitAnonymous(l engine.Login) error {
	switch {
	case c.anonymous == AnonymousAnywhere, c.anonymous == AnonymousLoopback && addrOf(l.Remote).IsLoopback():
		return nil
	case verified(l) != nil:
		return denied("no rule names an identity for the client certificate, and there are no credentials")
	}
	return denied("credentials are missing")
}

// background is an authenticator with work to do while nobody logs in.
type background interface{ run(ctx context.Context) }

// Run keeps files and keys up to date until ctx ends. Call it once, in a goroutine of its own.
func (c *Chain) Run(ctx context.Context) {
	var all sync.WaitGroup
	for _, link := range c.links {
		if b, ok := link.(background); ok {
			all.Go(func() { b.run(ctx) })
		}
	}
	all.Wait()
}

// reloader is an authenticator that depends on a file.
type reloader interface {
	prepare() (commit func(), err error)
}

// Prepare reads all files again, whether they have changed or not. Nothing changes before the
// caller calls commit. An error means that a file is wrong, and says which and where.
func (c *Chain) Prepare() (commit func(), err error) {
	var commits []func()
	for _, link := range c.links {
		r, ok := link.(reloader)
		if !ok {
			continue
		}
		commit, err := r.prepare()
		if err != nil {
			return nil, err
		}
		commits = append(commits, commit)
	}
	return func() {
		for _, commit := range commits {
			commit()
		}
	}, nil
}

// troubled is an authenticator that depends on something that may fail.
type troubled interface{ troubles() []string }

// Troubles says what does not work as it should, for operators.
func (c *Chain) Troubles() []string {
	var all []string
	for _, link := range c.links {
		if t, ok := link.(troubled); ok {
			all = append(all, t.troubles()...)
		}
	}
	return all
}

// verified returns the client certificate that TLS has verified, or nil.
func verified(l engine.Login) *x509.Certificate {
	if l.TLS == nil || len(l.TLS.VerifiedChains) == 0 || len(l.TLS.VerifiedChains[0]) == 0 {
		return nil
	}
	return l.TLS.VerifiedChains[0][0]
}

// addrOf returns the IP address of a, or the zero Addr if a has none.
func addrOf(a net.Addr) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// every calls f once in each period until ctx ends.
func every(ctx context.Context, period time.Duration, f func()) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}
