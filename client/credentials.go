package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"distmsg/codec"
	"distmsg/internal/callback"
)

// errCredentials is wrapped by the errors of attempts that failed because Config.CredentialsFunc
// returned no credentials. Another node would not help.
var errCredentials = errors.New("client: no credentials")

// given is what Config.CredentialsFunc has returned.
type given struct {
	credentials []byte
	err         error // wraps errCredentials
}

// askCredentials asks for what the next hello shows to the node. Config.CredentialsFunc may block,
// and may ignore ctx, so it runs on a goroutine of its own.
func (k *keepers) askCredentials(ctx context.Context) <-chan given {
	got := make(chan given, 1)
	ask := k.s.cfg.CredentialsFunc
	if ask == nil {
		got <- given{credentials: k.s.cfg.Credentials}
		return got
	}
	go func() {
		var g given
		if f := callback.Apart(func() { g.credentials, g.err = ask(ctx) }); f != nil {
			k.s.failed(f, "Config.CredentialsFunc")
			g.err = errors.New("Config.CredentialsFunc " + f.How())
		}
		if g.err == nil && len(g.credentials) > maxCredentials {
			g.err = fmt.Errorf("Config.CredentialsFunc returned %d bytes, at most %d are allowed", len(g.credentials), maxCredentials)
		}
		if g.err != nil {
			g = given{err: fmt.Errorf("%w: %w", errCredentials, g.err)}
		}
		got <- g
	}()
	return got
}

// asker asks for the credentials of each hello of one attempt to attach.
type asker struct {
	k      *keepers
	ready  *given        // for the first hello; nil: ask
	within time.Duration // bounds how long it waits; 0: as long as the context allows
}

// next returns the credentials for the next hello.
func (a *asker) next(ctx context.Context) ([]byte, error) {
	if g := a.ready; g != nil {
		a.ready = nil
		return g.credentials, g.err
	}
	var late <-chan time.Time
	if a.within > 0 {
		late = time.After(a.within)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	select {
	case g := <-a.k.askCredentials(ctx):
		return g.credentials, g.err
	case <-late:
		return nil, fmt.Errorf("%w: Config.CredentialsFunc has not returned within %v", errCredentials, a.within)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// order is what a node says when the session must log in again on another connection.
type order struct {
	within time.Duration
	reason string
}

func (c *conn) onRelogin(body []byte) error {
	within, reason, err := codec.DecodeRelogin(body)
	if err != nil {
		return err
	}
	c.renewing.Store(true)
	select {
	case c.relogin <- order{time.Duration(min(within, maxWithin)) * time.Millisecond, string(reason)}:
	default: // one is enough
	}
	return nil
}

// renewalShare is the part of the time that the node allows in which the session begins to log in
// again. The rest is for credentials and further attempts.
const renewalShare = 4

// renewalWait returns how long to wait before the session logs in again. That is random, so that
// the clients of one identity do not all do it at once.
func (k *keepers) renewalWait(c *conn, o order) time.Duration {
	wait := rand.N(o.within/renewalShare + 1)
	k.s.cfg.Logger.Info("distmsg: the node asks to log in again", "node", c.node, "reason", o.reason, "within", o.within, "in", wait)
	return wait
}
