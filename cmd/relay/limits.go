package main

import (
	"context"
	"log/slog"

	"github.com/spf13/pflag"

	"distmsg/engine"
	"distmsg/internal/cli"
)

// limitOptions are the flags for what one connection, one identity and one address may use. 0 means
// the engine's default.
type limitOptions struct {
	connMessages, identityMessages               int
	connLookups, identityLookups                 int
	connBytes, identityBytes                     byteSize
	identityPendingBytes                         byteSize
	identityConns, identitySessions, identityIDs int
	identityWatched, identityInFlight            int
	addressConns, addressHandshakes              int
}

// limitFlag is a flag that counts something.
type limitFlag struct {
	name, help string
	value      *int
}

func (o *limitOptions) counts() []limitFlag {
	return []limitFlag{
		{"max-conn-messages", "one connection may send `n` messages in a second (default 2000000)", &o.connMessages},
		{"max-identity-messages", "all connections of an identity may send `n` messages in a second (default 5000000)", &o.identityMessages},
		{"max-conn-lookups", "one connection may look up `n` IDs in a second (default 50000)", &o.connLookups},
		{"max-identity-lookups", "all connections of an identity may look up `n` IDs in a second (default 200000)", &o.identityLookups},
		{"max-identity-conns", "an identity may have `n` connections (default: as many as the node)", &o.identityConns},
		{"max-identity-sessions", "an identity may have `n` sessions (default: any number)", &o.identitySessions},
		{"max-identity-ids", "all sessions of an identity may bind `n` IDs (default: as many as the node)", &o.identityIDs},
		{"max-identity-watched", "all connections of an identity may watch `n` IDs (default: as many as the node)", &o.identityWatched},
		{"max-identity-in-flight", "`n` sends of all connections of an identity may wait for an ack (default: as many as its connections may have)", &o.identityInFlight},
		{"max-address-conns", "`n` connections may come from one address (default: as many as the node has)", &o.addressConns},
		{"max-address-handshakes", "`n` connections from one address may begin in a second (default: any number)", &o.addressHandshakes},
	}
}

func (o *limitOptions) addFlags(f *pflag.FlagSet) {
	for _, c := range o.counts() {
		f.IntVar(c.value, c.name, 0, c.help)
	}
	f.Var(&o.connBytes, "max-conn-bytes", "one connection may send `size` bytes in a second, such as 10MiB (default 2GiB)")
	f.Var(&o.identityBytes, "max-identity-bytes", "all connections of an identity may send `size` bytes in a second (default 4GiB)")
	f.Var(&o.identityPendingBytes, "max-identity-pending-bytes", "`size` of what may wait to be read by all connections of an identity, beyond 64KiB for each\n"+
		"(default: what the limits of the connections and --memory-budget allow)")
}

func (o *limitOptions) check() error {
	for _, c := range o.counts() {
		if *c.value < 0 {
			return cli.Usagef("--%s %d must be over 0", c.name, *c.value)
		}
	}
	return nil
}

// set puts the limits into the engine's configuration. What comes in a second may come at once.
func (o *limitOptions) set(c *engine.Config) {
	c.ConnMessages, c.ConnBytes = perSecond(o.connMessages), perSecond(int(o.connBytes))
	c.ConnLookups = perSecond(o.connLookups)
	c.IdentityLimits = engine.Limits{
		Messages: perSecond(o.identityMessages), Bytes: perSecond(int(o.identityBytes)), Lookups: perSecond(o.identityLookups),
		Connections: o.identityConns, Sessions: o.identitySessions, IDs: o.identityIDs,
		Watched: o.identityWatched, InFlight: o.identityInFlight, PendingBytes: int(o.identityPendingBytes),
	}
	c.MaxAddressConns, c.AddressHandshakes = o.addressConns, perSecond(o.addressHandshakes)
}

// setLimits puts the limits of all flags into the engine's configuration.
func (o *options) setLimits(c *engine.Config) {
	o.limits.set(c)
	c.MaxSessionIDs, c.MaxNodeIDs, c.MaxNodeWatched = o.maxSessionIDs, o.maxNodeIDs, o.maxNodeWatched
}

// nodeLimits returns the limits of all flags.
func (o *options) nodeLimits() engine.NodeLimits {
	var c engine.Config
	o.setLimits(&c)
	return c.NodeLimits()
}

// limitsSetter is an engine whose limits can be replaced.
type limitsSetter interface {
	SetLimits(l engine.NodeLimits) error
}

// reloadLimits is the part that applies new values of the flags for limits.
func reloadLimits(node limitsSetter, running engine.NodeLimits, logger *slog.Logger) part {
	flags := []string{"max-session-ids", "max-node-ids", "max-node-watched",
		"max-conn-bytes", "max-identity-bytes", "max-identity-pending-bytes"}
	for _, c := range new(limitOptions).counts() {
		flags = append(flags, c.name)
	}
	return part{what: "the limits", flags: flags, prepare: func(_ context.Context, next *options) (func(), error) {
		limits := next.nodeLimits()
		if limits == running {
			return nil, nil
		}
		return func() {
			running = limits
			// They were checked, so there is no error.
			if err := node.SetLimits(limits); err != nil {
				logger.Error("the limits cannot be replaced", "error", err)
			}
		}, nil
	}}
}

func perSecond(n int) engine.Rate { return engine.Rate{PerSecond: int64(n)} }
