package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/internal/identity"
)

// authOptions are the flags about who clients are.
type authOptions struct {
	certRules                                string
	tokenFile                                string
	jwtKeys, jwksURL, jwksCA                 string
	jwtIssuer, jwtAudience                   string
	jwtLeeway                                time.Duration
	calloutURL, calloutCA, calloutSecretFile string
	calloutTimeout                           time.Duration
	anonymous                                bool
}

func (o *authOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&o.certRules, "auth-cert-rules", "", "YAML `file` with rules: which client certificate is which identity")
	f.StringVar(&o.tokenFile, "auth-token-file", "", "`file` with the hashes and rights of tokens; relay token add makes one")
	f.StringVar(&o.jwtKeys, "auth-jwt-keys", "", "`file` with the public keys of JWTs: PEM, or a JSON Web Key Set")
	f.StringVar(&o.jwksURL, "auth-jwks-url", "", "`URL` of a JSON Web Key Set with the public keys of JWTs")
	f.StringVar(&o.jwksCA, "auth-jwks-ca-file", "", "PEM `file` with the authorities that sign that server's certificate (default: those that the system trusts)")
	f.StringVar(&o.jwtIssuer, "auth-jwt-issuer", "", "`text` that a JWT must have as iss (default: any)")
	f.StringVar(&o.jwtAudience, "auth-jwt-audience", "", "`text` that a JWT must have in aud (default: any)")
	f.DurationVar(&o.jwtLeeway, "auth-jwt-leeway", 30*time.Second, "how much the clocks of the node and of who signs JWTs may differ")
	f.StringVar(&o.calloutURL, "auth-callout-url", "", "`URL` of a service of yours that knows all other credentials; the node sends them there (POST)")
	f.StringVar(&o.calloutCA, "auth-callout-ca-file", "", "PEM `file` with the authorities that sign that service's certificate (default: those that the system trusts)")
	f.StringVar(&o.calloutSecretFile, "auth-callout-secret-file", "", "`file` with a secret that the node shows to that service (Authorization: Bearer)")
	f.DurationVar(&o.calloutTimeout, "auth-callout-timeout", 1500*time.Millisecond, "how long the node waits for that service; the SDK waits 2s for the node")
	f.BoolVar(&o.anonymous, "auth-anonymous", false, "with the flags above, let clients of this machine in without credentials, too, and with every right;\n"+
		"with --insecure-listen, clients from everywhere")
}

// on reports whether clients have to say who they are.
func (o *authOptions) on() bool {
	return o.certRules != "" || o.tokenFile != "" || o.jwt() || o.calloutURL != ""
}

func (o *authOptions) jwt() bool { return o.jwtKeys != "" || o.jwksURL != "" }

// check rejects flags that would have no effect. It reads no file.
func (o *authOptions) check() error {
	if o.jwksURL == "" {
		if err := needless("works only with a JWKS by URL: add --auth-jwks-url", flagValue{"--auth-jwks-ca-file", o.jwksCA}); err != nil {
			return err
		}
	}
	if !o.jwt() {
		if err := needless("works only with JWTs: add --auth-jwt-keys or --auth-jwks-url",
			flagValue{"--auth-jwt-issuer", o.jwtIssuer}, flagValue{"--auth-jwt-audience", o.jwtAudience}); err != nil {
			return err
		}
	}
	if o.calloutURL == "" {
		if err := needless("works only with a callout: add --auth-callout-url",
			flagValue{"--auth-callout-ca-file", o.calloutCA}, flagValue{"--auth-callout-secret-file", o.calloutSecretFile}); err != nil {
			return err
		}
	}
	switch {
	case o.jwtLeeway < 0 || o.jwtLeeway > time.Hour:
		return cli.Usagef("--auth-jwt-leeway %v must be 0 to 1h", o.jwtLeeway)
	case o.calloutTimeout <= 0:
		return cli.Usagef("--auth-callout-timeout %v must be over 0", o.calloutTimeout)
	case o.anonymous && !o.on():
		return cli.Usagef("--auth-anonymous works only with one of --auth-cert-rules, --auth-token-file, --auth-jwt-keys, " +
			"--auth-jwks-url and --auth-callout-url: without them, nobody has to say who they are")
	}
	return nil
}

func (o *options) checkAuth() error {
	if o.auth.certRules != "" && o.tls.clients.CA == "" {
		return cli.Usagef("--auth-cert-rules needs --tls-client-ca: without it, no client is asked for a certificate")
	}
	return o.auth.check()
}

// authority says who somebody is, by files and keys that change.
type authority struct {
	chain *identity.Chain // nil: nobody has to say who they are
	files string          // what SIGHUP reads again, in the words of the log
}

// run keeps the files and keys up to date until ctx ends.
func (a authority) run(ctx context.Context) {
	if a.chain != nil {
		a.chain.Run(ctx)
	}
}

// addPart lets SIGHUP read the files at once.
func (a authority) addPart(reloads *reloader) {
	if a.chain == nil {
		return
	}
	reloads.add(part{
		what:    a.files,
		prepare: func(context.Context, *options) (func(), error) { return a.chain.Prepare() },
	})
}

// health says what does not work as it should.
func (a authority) health() []string {
	if a.chain == nil {
		return nil
	}
	return a.chain.Troubles()
}

// logins decide who clients are.
type logins struct {
	authority authority
	node      *engine.Engine // set before authority runs
}

// openLogins reads the files that the flags name.
func openLogins(o *authOptions, insecure bool, logger *slog.Logger) (*logins, error) {
	l := &logins{}
	if !o.on() {
		return l, nil
	}
	var links []identity.Authenticator
	for _, kind := range []struct {
		flag string
		used bool
		open func() (identity.Authenticator, error)
	}{
		{"--auth-cert-rules", o.certRules != "", func() (identity.Authenticator, error) {
			return identity.NewCertificates(identity.CertificatesConfig{Path: o.certRules, Now: time.Now, Logger: logger, Revoked: l.revoke})
		}},
		{"--auth-token-file", o.tokenFile != "", func() (identity.Authenticator, error) {
			return identity.NewTokens(identity.TokensConfig{Path: o.tokenFile, Now: time.Now, Logger: logger, Revoked: l.revoke})
		}},
		{"--auth-jwt-keys or --auth-jwks-url", o.jwt(), func() (identity.Authenticator, error) {
			return identity.NewJWT(identity.JWTConfig{
				KeyFile: o.jwtKeys, JWKSURL: o.jwksURL, JWKSCAFile: o.jwksCA, Issuer: o.jwtIssuer, Audience: o.jwtAudience,
				Leeway: o.jwtLeeway, Now: time.Now, Logger: logger,
			})
		}},
		{"--auth-callout-url", o.calloutURL != "", func() (identity.Authenticator, error) {
			return identity.NewCallout(identity.CalloutConfig{
				URL: o.calloutURL, CAFile: o.calloutCA, SecretFile: o.calloutSecretFile, Timeout: o.calloutTimeout, Now: time.Now, Logger: logger,
			})
		}},
	} {
		if !kind.used {
			continue
		}
		link, err := kind.open()
		if err != nil {
			return nil, cli.WithCode(cli.ExitUsage, fmt.Errorf("%s: %w", kind.flag, err))
		}
		links = append(links, link)
	}
	if o.calloutSecretFile != "" {
		warnReadable("--auth-callout-secret-file", o.calloutSecretFile, logger)
	}
	l.authority = authority{identity.NewChain(o.anonymousFrom(insecure), links...), "the files about who clients are"}
	return l, nil
}

func (o *authOptions) anonymousFrom(insecure bool) identity.Anonymous {
	switch {
	case !o.anonymous:
		return identity.AnonymousNowhere
	case insecure:
		return identity.AnonymousAnywhere
	}
	return identity.AnonymousLoopback
}

// apply makes a node ask who its clients are.
func (l *logins) apply(cfg *engine.Config) {
	if chain := l.authority.chain; chain != nil {
		cfg.Hooks.Authenticate = chain.Authenticate
	}
}

// revoke notifies the node whose rights have changed.
func (l *logins) revoke(names []string) { l.node.Revoke(names...) }
