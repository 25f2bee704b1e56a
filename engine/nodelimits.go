package engine

import (
	"errors"
	"fmt"

	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/limit"
)

// NodeLimits are those limits of a Config that can change while the engine runs. The comments of
// Config say what they are. A zero field means the default.
type NodeLimits struct {
	ConnMessages, ConnBytes, ConnLookups Rate
	IdentityLimits                       Limits
	MaxAddressConns                      int
	AddressHandshakes                    Rate
	MaxSessionIDs, MaxNodeIDs            int
	MaxNodeWatched                       int
}

// NodeLimits returns those limits that can change. Give them to Engine.SetLimits.
func (c *Config) NodeLimits() NodeLimits {
	return NodeLimits{
		ConnMessages: c.ConnMessages, ConnBytes: c.ConnBytes, ConnLookups: c.ConnLookups,
		IdentityLimits: c.IdentityLimits, MaxAddressConns: c.MaxAddressConns, AddressHandshakes: c.AddressHandshakes,
		MaxSessionIDs: c.MaxSessionIDs, MaxNodeIDs: c.MaxNodeIDs, MaxNodeWatched: c.MaxNodeWatched,
	}
}

// setNodeLimits is the reverse of NodeLimits.
func (c *Config) setNodeLimits(l NodeLimits) {
	c.ConnMessages, c.ConnBytes, c.ConnLookups = l.ConnMessages, l.ConnBytes, l.ConnLookups
	c.IdentityLimits, c.MaxAddressConns, c.AddressHandshakes = l.IdentityLimits, l.MaxAddressConns, l.AddressHandshakes
	c.MaxSessionIDs, c.MaxNodeIDs, c.MaxNodeWatched = l.MaxSessionIDs, l.MaxNodeIDs, l.MaxNodeWatched
}

// SetLimits replaces the limits of a running node. They hold at once, for connections that exist,
// too. The node closes nothing that is beyond a new limit, but accepts no more of it. A client
// hears how many of its sends may wait for an ack only when it connects. SetLimits returns an
// error, and changes nothing, if a limit is not valid. Any goroutine may call it.
func (e *Engine) SetLimits(l NodeLimits) error {
	l = l.withDefaults()
	var errs []error
	l.check(func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("engine: "+format, args...))
		}
	})
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	e.terms.Store(l.terms())
	e.accounts.Renew()
	e.dir.SetLimits(l.directory())
	e.eachConn(func(c *conn) { c.quota.renew() })
	return nil
}

// withDefaults fills in the defaults. For messages, they are more than one event loop relays, so
// that clients notice only the values that an operator has set.
func (l NodeLimits) withDefaults() NodeLimits {
	setDefault(&l.ConnMessages, Rate{2_000_000, 4_000_000})
	setDefault(&l.ConnBytes, Rate{2 << 30, 2 << 30})
	setDefault(&l.ConnLookups, Rate{50_000, 200_000})
	l.IdentityLimits = l.IdentityLimits.orElse(Limits{
		Messages: Rate{5_000_000, 10_000_000},
		Bytes:    Rate{4 << 30, 4 << 30},
		Lookups:  Rate{200_000, 800_000},
	})
	setDefault(&l.MaxSessionIDs, defaultMaxSessionIDs)
	setDefault(&l.MaxNodeIDs, defaultMaxNodeIDs)
	setDefault(&l.MaxNodeWatched, defaultMaxNodeWatched)
	return l
}

// check rejects limits that let nothing pass, or that do not hold.
func (l *NodeLimits) check(check func(ok bool, format string, args ...any)) {
	for _, r := range []struct {
		name string
		rate Rate
	}{
		{"ConnMessages", l.ConnMessages}, {"ConnBytes", l.ConnBytes}, {"ConnLookups", l.ConnLookups},
		{"AddressHandshakes", l.AddressHandshakes},
	} {
		wrong := r.rate.check()
		check(wrong == "", "%s.%s", r.name, wrong)
	}
	check(l.MaxAddressConns >= 0, "MaxAddressConns is %d, want at least 0", l.MaxAddressConns)
	wrong := l.IdentityLimits.check()
	check(wrong == "", "IdentityLimits.%s", wrong)
	for _, f := range []struct {
		name string
		v    int
	}{{"MaxSessionIDs", l.MaxSessionIDs}, {"MaxNodeIDs", l.MaxNodeIDs}, {"MaxNodeWatched", l.MaxNodeWatched}} {
		check(f.v > 0, "%s is %d, want more than 0", f.name, f.v)
	}
}

// nodeTerms are the limits in force. They are never changed, only replaced.
type nodeTerms struct {
	conn     limit.Terms // what one connection may use
	identity Limits      // of an identity whose own limits do not say otherwise
	// of one source address
	addressConns      int // 0: any number
	addressHandshakes limit.Rate
}

func (l NodeLimits) terms() *nodeTerms {
	return &nodeTerms{
		conn:         Limits{Messages: l.ConnMessages, Bytes: l.ConnBytes, Lookups: l.ConnLookups}.terms(),
		identity:     l.IdentityLimits,
		addressConns: l.MaxAddressConns, addressHandshakes: l.AddressHandshakes.terms(),
	}
}

func (l NodeLimits) directory() directory.Limits {
	return directory.Limits{MaxSessionIDs: l.MaxSessionIDs, MaxNodeIDs: l.MaxNodeIDs, MaxNodeWatched: l.MaxNodeWatched}
}
