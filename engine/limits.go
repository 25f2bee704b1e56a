package engine

import (
	"fmt"

	"distmsg/engine/internal/limit"
)

// Rate is a limit on how much per second. The zero value means the default, and a negative
// PerSecond means no limit.
type Rate struct {
	PerSecond int64
	// Burst is how much may come at once after a pause. Default: PerSecond.
	Burst int64
}

// Limits bound what all connections of one identity may use together at this node. A zero field
// means the node's default (Config.IdentityLimits), and a negative one means no limit. Clients
// without an identity's name share nothing, so only the limits of a connection hold for them.
type Limits struct {
	// Messages bounds sends. Each recipient of a multicast counts.
	Messages Rate
	// Bytes bounds the bytes of the frames of sends.
	Bytes Rate
	// Lookups bounds the IDs that are looked up.
	Lookups Rate
	// Connections, Sessions and IDs bound how many connections and sessions there are, and how many
	// IDs all sessions together have bound. Default: what the node's other limits allow.
	Connections, Sessions, IDs int
	// Watched bounds how many IDs all connections together watch. An ID that two connections watch
	// counts twice. Default: what the node's other limits allow.
	Watched int
	// InFlight bounds how many sends of all connections together wait for an ack. Default: what the
	// limits of the connections allow.
	InFlight int
	// PendingBytes bounds the bytes that wait to be written to all connections together. Each
	// connection has 64 KiB more that do not count. Less than the largest frame means the largest
	// frame. Default: what the limits of the connections and the node's memory budget allow.
	PendingBytes int
}

// terms returns the rate for the arithmetic.
func (r Rate) terms() limit.Rate {
	switch {
	case r.PerSecond <= 0:
		return limit.Rate{}
	case r.Burst == 0:
		r.Burst = r.PerSecond
	}
	return limit.Rate(r)
}

// orElse fills in zero fields.
func (l Limits) orElse(d Limits) Limits {
	setDefault(&l.Messages, d.Messages)
	setDefault(&l.Bytes, d.Bytes)
	setDefault(&l.Lookups, d.Lookups)
	setDefault(&l.Connections, d.Connections)
	setDefault(&l.Sessions, d.Sessions)
	setDefault(&l.IDs, d.IDs)
	setDefault(&l.Watched, d.Watched)
	setDefault(&l.InFlight, d.InFlight)
	setDefault(&l.PendingBytes, d.PendingBytes)
	return l
}

// terms returns the limits for an account.
func (l Limits) terms() limit.Terms {
	return limit.Terms{
		Messages: l.Messages.terms(), Bytes: l.Bytes.terms(), Lookups: l.Lookups.terms(),
		Connections: max(0, l.Connections), Sessions: max(0, l.Sessions), IDs: max(0, l.IDs),
		Watched: max(0, l.Watched), InFlight: max(0, l.InFlight), PendingBytes: max(0, l.PendingBytes),
	}
}

// check returns what is wrong with a rate, or "".
func (r Rate) check() string {
	switch {
	case r.Burst < 0:
		return fmt.Sprintf("Burst is %d, want at least 0", r.Burst)
	case r.Burst > 0 && r.PerSecond == 0:
		return fmt.Sprintf("Burst is %d, and PerSecond is not set", r.Burst)
	}
	return ""
}

// check returns what is wrong with the rates, or "".
func (l Limits) check() string {
	for _, r := range []struct {
		name string
		rate Rate
	}{{"Messages", l.Messages}, {"Bytes", l.Bytes}, {"Lookups", l.Lookups}} {
		if wrong := r.rate.check(); wrong != "" {
			return r.name + "." + wrong
		}
	}
	return ""
}
