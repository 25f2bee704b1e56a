package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"distmsg/engine"
	"distmsg/internal/admin"
	"distmsg/internal/cli"
	"distmsg/internal/identity"
)

// operators decide who may use the admin API.
type operators struct {
	tokens authority // without a chain, tokens are not accepted
	certs  bool      // client certificates are accepted
}

// openOperators reads the file that the flag names.
func openOperators(o *options, logger *slog.Logger) (*operators, error) {
	p := &operators{certs: o.tls.admin.CA != ""}
	if o.adminTokenFile == "" {
		return p, nil
	}
	tokens, err := identity.NewTokens(identity.TokensConfig{Path: o.adminTokenFile, Now: time.Now, Logger: logger.With("for", "operators")})
	if err != nil {
		return nil, cli.WithCode(cli.ExitUsage, fmt.Errorf("--admin-token-file: %w", err))
	}
	p.tokens = authority{identity.NewChain(identity.AnonymousNowhere, tokens), "the tokens of operators"}
	return p, nil
}

// access says how operators show who they are.
func (p *operators) access() admin.Access {
	a := admin.Access{ClientCerts: p.certs}
	if chain := p.tokens.chain; chain != nil {
		a.Token = func(ctx context.Context, token string) (string, error) {
			who, err := chain.Authenticate(ctx, engine.Login{Credentials: []byte(token)})
			return who.Name, err
		}
	}
	return a
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
