package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/discovery"
	"distmsg/discovery/dns"
	"distmsg/discovery/zookeeper"
	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/routing"
	"distmsg/routing/redis"
)

// services are the external services of a node.
type services struct {
	manager    *manager
	logins     *logins
	operators  *operators
	source     source            // nil: there is none
	membership engine.Membership // nil: the node is alone
	tls        tlsFiles
}

// source is what --discovery names.
type source interface {
	engine.Membership
	// Err returns why the list of nodes may be out of date, or nil.
	Err() error
	// Skipped names wrong entries in the list.
	Skipped() []string
	Close()
}

var _, _ source = (*zookeeper.Membership)(nil), (*dns.Membership)(nil)

// openSource opens what --discovery names.
func openSource(ctx context.Context, o *options, s secrets, logger *slog.Logger) (source, error) {
	if o.byDNS() {
		found, err := dns.Open(ctx, dns.Config{URL: o.discovery, Logger: component(logger, "discovery")})
		if err != nil {
			wrong := (*dns.ConfigError)(nil)
			return nil, unopened("--discovery", err, errors.As(err, &wrong))
		}
		return found, nil
	}
	found, err := zookeeper.Open(ctx, zookeeper.Config{URL: o.discovery, Auth: s.zkAuth, Logger: component(logger, "discovery")})
	if err != nil {
		wrong := (*zookeeper.ConfigError)(nil)
		return nil, unopened("--discovery", err, errors.As(err, &wrong))
	}
	return found, nil
}

// openServices finds the other nodes as the flags say. newNode opens the registry.
func openServices(ctx context.Context, o options, s secrets, logger *slog.Logger) (*services, error) {
	files, err := o.tls.open(component(logger, "tls"))
	if err != nil {
		return nil, err
	}
	manager, err := newManager(logger)
	if err != nil {
		return nil, err
	}
	logins, err := openLogins(&o.auth, o.insecureListen, component(logger, "auth"))
	if err != nil {
		return nil, err
	}
	operators, err := openOperators(&o, logger)
	if err != nil {
		return nil, err
	}
	v := &services{manager: manager, tls: files, logins: logins, operators: operators}
	switch {
	case o.discovery != "":
		found, err := openSource(ctx, &o, s, logger)
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		v.source, v.membership = found, found
	case o.peers != nil:
		v.membership = discovery.Peers(o.peers...)
	}
	return v, nil
}

// libraryLog receives go-redis's log, which otherwise goes to stderr. The important parts reach us
// as errors, too.
type libraryLog struct{ *slog.Logger }

func (l libraryLog) Printf(ctx context.Context, format string, args ...any) {
	if l.Enabled(ctx, slog.LevelDebug) {
		l.Debug("go-redis: " + fmt.Sprintf(format, args...))
	}
}

func unopened(flag string, err error, usage bool) error {
	err = fmt.Errorf("%s: %w", flag, err)
	if usage {
		return cli.WithCode(cli.ExitUsage, err)
	}
	return err
}

// newNode makes the node, with the registry that the flags name.
func (v *services) newNode(ctx context.Context, cfg engine.Config, o options, s secrets) (*engine.Engine, error) {
	v.tls.apply(&cfg)
	v.logins.apply(&cfg)
	o.setLimits(&cfg)
	if o.registry == memoryRegistry {
		node, err := engine.New(cfg)
		return node, cli.WithCode(cli.ExitUsage, err)
	}
	goredis.SetLogger(libraryLog{component(cfg.Logger, "registry")})
	var notOpen error
	node, err := engine.NewShared(ctx, cfg, func(ctx context.Context, share engine.Share) (routing.Registry, error) {
		registry, err := redis.Open(ctx, redisConfig(o, s, share, component(cfg.Logger, "registry")))
		if err != nil {
			notOpen = unopened("--registry", err, !errors.Is(err, routing.ErrUnavailable))
			return nil, notOpen
		}
		return registry, nil
	})
	if err != nil && notOpen == nil {
		err = cli.WithCode(cli.ExitUsage, err)
	}
	return node, err
}

func redisConfig(o options, s secrets, share engine.Share, logger *slog.Logger) redis.Config {
	return redis.Config{
		URL: o.registry, Username: o.registryUsername, Password: s.registry, SentinelPassword: s.sentinel,
		TLS:    redis.TLS{CA: o.registryCA, Cert: o.registryCert, Key: o.registryKey},
		Prefix: share.Cluster, Fingerprints: share.Fingerprints, Gone: share.Gone, Buckets: o.registryBuckets, ResumeWindow: o.resumeWindow, VerifyPeriod: o.verifyPeriod, Logger: logger,
	}
}

// health returns the problems of the services that the engine does not know.
func (v *services) health() []string {
	troubles := slices.Concat(v.tls.health(), v.logins.authority.health(), v.operators.tokens.health())
	if v.source == nil {
		return troubles
	}
	if err := v.source.Err(); err != nil {
		troubles = append(troubles, "the list of nodes may be out of date: "+err.Error())
	}
	for _, line := range v.source.Skipped() {
		troubles = append(troubles, "the node ignores a wrong entry in the list of nodes: "+line)
	}
	return troubles
}

// close closes the connections. The engine must have ended before.
func (v *services) close() error {
	if v.source != nil {
		v.source.Close()
	}
	return nil
}
