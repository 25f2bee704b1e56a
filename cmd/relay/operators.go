package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"distmsg/internal/admin"
	"distmsg/internal/cli"
	"distmsg/internal/identity"
)

// operators decide who may use the admin API.
type operators struct {
	tokens     authority // without a chain, tokens are not accepted
	lines      *identity.Tokens
	certs      bool     // client certificates are accepted
	ordersFrom []string // common names of certificates that may give orders; none: each may
}

// openOperators reads the file that the flag names.
func openOperators(o *options, logger *slog.Logger) (*operators, error) {
	p := &operators{certs: o.tls.admin.CA != "", ordersFrom: o.tls.adminOrders}
	if o.adminTokenFile == "" {
		return p, nil
	}
	tokens, err := identity.NewTokens(identity.TokensConfig{Path: o.adminTokenFile, Now: time.Now, Logger: logger.With("for", "operators")})
	if err != nil {
		return nil, cli.WithCode(cli.ExitUsage, fmt.Errorf("--admin-token-file: %w", err))
	}
	p.lines = tokens
	p.tokens = authority{identity.NewChain(identity.AnonymousNowhere, tokens), "the tokens of operators"}
	return p, nil
}

// access says how operators show who they are.
func (p *operators) access() admin.Access {
	a := admin.Access{ClientCerts: p.certs}
	if p.lines != nil {
		a.Token = func(ctx context.Context, token string) (admin.Caller, error) {
			line, err := p.lines.Line(ctx, token)
			return admin.Caller{Name: line.Name, MayOrder: line.MayOrder()}, err
		}
	}
	if len(p.ordersFrom) > 0 {
		a.CertOrders = func(name string) bool {
			return slices.ContainsFunc(p.ordersFrom, func(pattern string) bool { return matches(pattern, name) })
		}
	}
	return a
}

// matches reports whether a pattern names a common name: it is the same, or its beginning and a *.
func matches(pattern, name string) bool {
	prefix, open := strings.CutSuffix(pattern, "*")
	return pattern == name || open && strings.HasPrefix(name, prefix)
}

// warnOpen says who can use the API of a server that listens there, where that may surprise.
func (p *operators) warnOpen(listens net.Addr, overTLS bool, logger *slog.Logger) {
	switch tcp, _ := listens.(*net.TCPAddr); {
	case tcp == nil || tcp.IP.IsLoopback():
	case !p.access().Needed():
		logger.Warn("nobody may use the admin API at this address, where other machines connect: only the probes and /metrics are served. "+
			"To open it, "+admin.Enable, "admin", listens.String())
	case !overTLS:
		logger.Warn("operators send their tokens in plaintext to the admin port: add --admin-tls-cert and --admin-tls-key", "admin", listens.String())
	}
}
