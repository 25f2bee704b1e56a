package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
)

// Config says how a session behaves. The zero value of each field stands for the default that its
// comment names; only Nodes (or Membership) must be set.
//
// The callbacks OnKick, OnDrain, OnState, OnPresence, OnPostFailed and OnOutcome each have a
// goroutine of their own: calls of one kind come one at a time and in order, and do not wait for
// other kinds or for handlers. They may block and may call every method of the session except
// Close. A call that has not returned after a second or two is logged and counted in Stats.Stuck. A
// callback that panics, or ends its goroutine (runtime.Goexit), is logged with its stack and called
// again for what comes next.
type Config struct {
	// Nodes are host:port addresses of nodes. The session attaches to one of them, chosen at random. That one
	// tells it which nodes there are, also when that changes; from then on the configured ones are a last resort.
	Nodes []string
	// Membership is where the nodes are found instead of Nodes, beside what nodes tell; for example a
	// *zookeeper.Membership that was opened with ReadOnly. The caller closes it, after the session.
	Membership discovery.Membership
	// Attach is how many nodes the session is attached to at once, as far as there are that many: 1, more, or
	// AllNodes. Default: 1. More than one takes nodes that are one cluster. See Spread or mesh.
	Attach int
	// Strategy chooses among the nodes attached to for each message; discovery.PairHash keeps the order of
	// what one ID sends to another. Its Pick is called by every sender and must return an index
	// into the list it is given. Default: discovery.Random().
	Strategy discovery.Strategy
	// Credentials go to the node in every hello. Default: none.
	Credentials []byte
	// Agent names this program to the node, for people. Default: "distmsg-go".
	Agent string
	// Dialer opens the connections, for example over TLS. Default: TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// DialTimeout bounds one attempt to attach to one node, from dialling to welcome. Default: 2 s.
	DialTimeout time.Duration
	// RequestTimeout bounds Bind, Unbind and Lookup, retries included, when their context has no
	// deadline. Default: 10 s.
	RequestTimeout time.Duration
	// MaxBackoff bounds the pause before another attempt to attach: it is a random part of a ceiling
	// that doubles from 50 ms up to this, and begins anew once a connection has lasted for 10 s.
	// Default: 2 s.
	MaxBackoff time.Duration
	// Heartbeat is the silence after which the node is pinged; after three of them the connection is
	// given up. The session promises the node to send something that often. So the node, too, gives
	// a connection up after three silent Heartbeats, but not before 3 s. Default: 1 s.
	Heartbeat time.Duration

	// MaxInFlight is the most acked sends that wait for their outcomes; more senders block.
	// Default: 4,096; at most what the node announces.
	MaxInFlight int
	// MaxInFlightBytes is the same in bytes of frames. Default: 8 MiB.
	MaxInFlightBytes int

	// Handler receives the messages to IDs that were bound without a handler of their own.
	// Default: they are rejected.
	Handler Handler
	// Workers is the most handlers that run at once. Goroutines are started as needed. Default: 256.
	Workers int
	// QueueMessages is the most messages that wait for the handler of one ID; more are rejected
	// with the reason "receiver busy". Default: 8,192.
	QueueMessages int
	// QueueBytes is the same in bytes, each message counted with 512 more than its frame has. Default: 8 MiB.
	QueueBytes int
	// QueueTotal is the most bytes that wait for handlers in the whole session; a multicast counts once. Default: 64 MiB.
	QueueTotal int

	// OnKick hears of an ID that the session lost. The SDK never binds it again by itself.
	OnKick func(Kick)
	// OnDrain hears that the node is leaving. The SDK moves to another one by itself.
	OnDrain func(Drain)
	// OnState hears of every node that the session was attached to or lost, except of one that it
	// left when another had taken its place. It is told of that other one.
	OnState func(State)
	// OnPresence hears of watched IDs that came, went, or are bound anew: ok with the epoch of the binding, or no_route
	// with that of the one that was, if it is known; overflow: the node watches no more of them, and the session has
	// forgotten this one. What happens while it runs is put together: it hears of an ID what became of it last. After a
	// reconnect it hears of what changed meanwhile. The slice is the callback's.
	OnPresence func([]Presence)
	// OnPostFailed, if set, makes nodes report the posts that they could not deliver. id is what
	// Post returned. A post may also vanish with a connection without a report.
	OnPostFailed func(id uint64, err *Error)

	// OnOutcome, if set, hears of every outcome of a Send, SendAsync or Multicast (one for each
	// ID), for metrics. While 65,536 outcomes wait for it, further ones are dropped;
	// Stats.EventsDropped counts them. Session.Stats has the counts without it.
	OnOutcome func(Outcome)

	// Logger gets what an operator should see. Its handler may block: the session hands records
	// over on a goroutine of their own, and drops and counts those that do not fit
	// (Stats.LogsDropped). Default: slog.Default().
	Logger *slog.Logger
}

// Kick tells of an ID that the session lost against its will.
type Kick struct {
	ID    string
	Epoch uint64 // of the binding that stands instead, if known
	Code  Code   // superseded: bound elsewhere; another code: why a binding could not be asserted again
}

// Drain tells that a node is leaving.
type Drain struct {
	Addr     string        // of that node
	Deadline time.Duration // from now until it refuses to send
	Addrs    []string      // the nodes it recommends
}

// State tells where a session is attached, and what changed last: it was attached to a node, or has lost it.
type State struct {
	Attached bool   // to one node at least
	Session  string // public session ID in hex; changes when the session could not be resumed
	Node     string // the name of the node that it was attached to, or has lost, last
	Addr     string // that node's address
	Resumed  bool   // the node knew the session; otherwise its IDs were bound again
	Err      error  // why the connection to that node ended; nil if it was attached to it, or Close has ended it
	// Nodes are all that it is attached to now, the one that binds and lookups go to first. The slice is shared: do not write to it.
	Nodes []discovery.Node
}

// AllNodes as Config.Attach: the session is attached to every node that is known.
const AllNodes = -1

// The defaults that Config's comments name.
const (
	defaultAgent            = "distmsg-go"
	defaultDialTimeout      = 2 * time.Second
	defaultRequestTimeout   = 10 * time.Second
	defaultMaxBackoff       = 2 * time.Second
	defaultHeartbeat        = time.Second
	defaultMaxInFlight      = 4096
	defaultMaxInFlightBytes = 8 << 20
	defaultWorkers          = 256
	defaultQueueMessages    = 8192
	defaultQueueBytes       = 8 << 20
	defaultQueueTotal       = 64 << 20

	minBackoff = 50 * time.Millisecond
)

// withDefaults fills in and rejects.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Attach, 1)
	if c.Strategy == nil {
		c.Strategy = discovery.Random()
	}
	setDefault(&c.Agent, defaultAgent)
	setDefault(&c.DialTimeout, defaultDialTimeout)
	setDefault(&c.RequestTimeout, defaultRequestTimeout)
	setDefault(&c.MaxBackoff, defaultMaxBackoff)
	setDefault(&c.Heartbeat, defaultHeartbeat)
	setDefault(&c.MaxInFlight, defaultMaxInFlight)
	setDefault(&c.MaxInFlightBytes, defaultMaxInFlightBytes)
	setDefault(&c.Workers, defaultWorkers)
	setDefault(&c.QueueMessages, defaultQueueMessages)
	setDefault(&c.QueueBytes, defaultQueueBytes)
	setDefault(&c.QueueTotal, defaultQueueTotal)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Dialer == nil {
		c.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	err := c.validate()
	if c.Attach == AllNodes {
		c.Attach = math.MaxInt
	}
	if c.Membership == nil {
		members, staticErr := discovery.Static(c.Nodes...)
		c.Membership, err = members, errors.Join(explainNodes(c.Nodes, staticErr), err)
	}
	return c, err
}

// explainNodes says what is wrong with Config.Nodes, given the error of discovery.Static.
func explainNodes(nodes []string, err error) error {
	switch {
	case len(nodes) == 0:
		return errors.New("client: Config.Nodes names no node: give the host:port of one at least, or set Config.Membership")
	case err != nil:
		return fmt.Errorf("client: Config.Nodes: %s", strings.TrimPrefix(err.Error(), "discovery: "))
	}
	return nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (c *Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("client: "+format, args...))
		}
	}
	check(c.Membership == nil || len(c.Nodes) == 0, "both Nodes and Membership are set")
	check(len(c.Agent) <= codec.MaxReason, "Agent has %d bytes, at most %d are allowed", len(c.Agent), codec.MaxReason)
	check(len(c.Credentials) <= maxCredentials,
		"Credentials has %d bytes, at most %d are allowed", len(c.Credentials), maxCredentials)
	check(c.Attach >= 1 || c.Attach == AllNodes, "Attach is %d, want a number of nodes, or AllNodes", c.Attach)
	check(c.MaxInFlight <= maxCalls, "MaxInFlight is %d, at most %d is allowed", c.MaxInFlight, maxCalls)
	for _, f := range []struct {
		name string
		v    int
	}{
		{"MaxInFlight", c.MaxInFlight}, {"MaxInFlightBytes", c.MaxInFlightBytes}, {"Workers", c.Workers},
		{"QueueMessages", c.QueueMessages}, {"QueueBytes", c.QueueBytes}, {"QueueTotal", c.QueueTotal},
	} {
		check(f.v > 0, "%s is %d, want a number greater than 0, or 0 for the default", f.name, f.v)
	}
	for _, f := range []struct {
		name string
		v    time.Duration
	}{
		{"DialTimeout", c.DialTimeout}, {"RequestTimeout", c.RequestTimeout}, {"MaxBackoff", c.MaxBackoff}, {"Heartbeat", c.Heartbeat},
	} {
		check(f.v >= 0, "%s is %v, want a time greater than 0, or 0 for the default", f.name, f.v)
		check(f.v < 0 || f.v >= time.Millisecond,
			"%s is %v, less than a millisecond: give it a unit, as in %d*time.Second", f.name, f.v, f.v)
	}
	return errors.Join(errs...)
}

// maxCredentials leaves room in the hello frame for everything else.
const maxCredentials = codec.MaxHelloFrame - 512
