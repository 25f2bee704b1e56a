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

// credentials returns what the next hello shows to the node. Config.CredentialsFunc may block, and
// may ignore ctx.
func (k *keepers) credentials(ctx context.Context) ([]byte, error) {
	ask := k.s.cfg.CredentialsFunc
	if ask == nil {
		return k.s.cfg.Credentials, nil
	}
	type given struct {
		credentials []byte
		err         error
	}
	got := make(chan given, 1)
	go func() {
		var g given
		if f := callback.Apart(func() { g.credentials, g.err = ask(ctx) }); f != nil {
			k.s.failed(f, "Config.CredentialsFunc")
			g.err = errors.New("Config.CredentialsFunc " + f.How())
		}
		got <- g
	}()
	select {
	case g := <-got:
		if g.err == nil && len(g.credentials) > maxCredentials {
			g.err = fmt.Errorf("Config.CredentialsFunc returned %d bytes, at most %d are allowed", len(g.credentials), maxCredentials)
		}
		if g.err != nil {
			return nil, fmt.Errorf("%w: %w", errCredentials, g.err)
		}
		return g.credentials, nil
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

// onRelogin returns how long to wait before the session logs in again. That is random, so that the
// clients of one identity do not all do it at once.
func (k *keepers) onRelogin(c *conn, o order) time.Duration {
	wait := rand.N(o.within/renewalShare + 1)
	k.s.cfg.Logger.Info("distmsg: the node asks to log in again", "node", c.node, "reason", o.reason, "within", o.within, "in", wait)
	return wait
}
