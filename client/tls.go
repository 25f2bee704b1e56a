package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"distmsg/internal/tlsline"
)

// keptTickets is how many nodes the session can return to with a shorter handshake, if Config.TLS
// has no cache of its own.
const keptTickets = 64

// secured returns the session's copy of Config.TLS. It returns nil without TLS.
func secured(given *tls.Config) *tls.Config {
	c := tlsline.Prepare(given)
	if c != nil && c.ClientSessionCache == nil {
		c.ClientSessionCache = tls.NewLRUClientSessionCache(keptTickets)
	}
	return c
}

// open opens a connection to a node, and exchanges TLS handshakes if the session uses TLS.
func (k *keepers) open(ctx context.Context, addr string) (net.Conn, error) {
	nc, err := k.dialer.Open(ctx, addr)
	if err != nil || k.s.cfg.TLS == nil {
		return nc, err
	}
	config := k.s.cfg.TLS
	if config.ServerName == "" {
		config = config.Clone()
		if config.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			config.ServerName = addr // the Dialer may know addresses without a port
		}
	}
	secure := tls.Client(nc, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, explainTLS(err)
	}
	return secure, nil
}

// explainTLS says what a failed TLS handshake means for whoever configures it.
func explainTLS(err error) error {
	if header := (tls.RecordHeaderError{}); errors.As(err, &header) {
		return fmt.Errorf("the node does not use TLS at this address: leave Config.TLS nil, or give the address of a node that uses it: %w", err)
	}
	if wrong := (*tls.CertificateVerificationError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("the node's certificate is not valid for this address or these authorities, see Config.TLS: %w", err)
	}
	return fmt.Errorf("TLS handshake: %w", explainAlert(err))
}

// explainAlert says what it means that the node has refused the TLS handshake. With TLS 1.3, a
// client hears that only when it reads.
func explainAlert(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "remote error" {
		return fmt.Errorf("the node refuses the TLS handshake; if it asks for a certificate, Config.TLS must have one that it accepts: %w", err)
	}
	return err
}

// errWantsTLS is the error of a session without TLS whose node has answered with a TLS record.
var errWantsTLS = errors.New("the node uses TLS at this address: set Config.TLS")
