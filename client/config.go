package client

import (
	"context"
	"crypto/tls"
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

// Config configures a session. The zero value of each field means the default that its comment
// names. Only Nodes (or Membership) must be set.
//
// The callbacks OnKick, OnDrain, OnState, OnPresence, OnPostFailed, OnOutcome and OnSpan each have
// a goroutine of their own: calls of one kind run one at a time and in order, and do not wait for
// other kinds or for handlers. They may block and may call every method of the session except
// Close. The session logs a call that has not returned after a second or two, and counts it in
// Stats.Stuck. If a callback panics or ends its goroutine (runtime.Goexit), the session logs its
// stack and calls it again for the next event.
type Config struct {
	// Nodes are host:port addresses of nodes. The session attaches to one of them, chosen at
	// random. That node announces all nodes, and later changes. From then on, the configured
	// addresses are a last resort.
	Nodes []string
	// Membership finds the nodes in place of Nodes, in addition to what nodes announce. Examples
	// are a *zookeeper.Membership that was opened with ReadOnly, and a *dns.Membership whose URL
	// names the port for clients. DNS names IP addresses, so TLS then needs a TLS.ServerName. The
	// caller closes the membership after the session.
	Membership discovery.Membership
	// Attach is how many nodes the session is attached to at once, if there are that many: 1, more,
	// or AllNodes. Default: 1. For more than one, the nodes must be one cluster. See Spread or
	// mesh.
	Attach int
	// Strategy chooses one of the attached nodes for each message. discovery.PairHash keeps the
	// order of the messages from one ID to another. Every sender calls Pick, which must return an
	// index into the given list. Default: discovery.Random().
	Strategy discovery.Strategy
	// Credentials go to the node in every hello. Default: none.
	Credentials []byte
	// CredentialsFunc, in place of Credentials, is asked for them before every hello, so that they
	// may change, as tokens do that expire. It may block: Dial waits for it as long as Dial's
	// context allows, and later the session waits until Close. An error fails the attempt to
	// attach. Dial returns it, and later the session logs it and asks again, after a pause. When
	// credentials expire, the node asks the session to log in again, which it does on a new
	// connection without losing a message.
	CredentialsFunc func(ctx context.Context) ([]byte, error)
	// Agent is the name of this program, which the node shows to people. Default: "distmsg-go".
	Agent string
	// Dialer opens the connections. Engine.Dialer of package engine returns one for an engine in
	// the same process, which needs no TLS. Default: TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// TLS makes the session use TLS, version 1.2 or later, over the connections that Dialer opens.
	// A node must prove that it is TLS.ServerName (default: the host of its address) to TLS.RootCAs
	// (default: the system's). Certificates are for nodes that ask clients for one. A session that
	// has failed to attach because of a certificate keeps trying, as after any other failure; the
	// error names the address and the cause. The session works with a copy. Default: nil, no TLS.
	TLS *tls.Config
	// DialTimeout bounds one attempt to attach to one node, from dialling to welcome. Default: 2 s.
	DialTimeout time.Duration
	// RequestTimeout bounds Bind, Unbind and Lookup, retries included, if their context has no
	// deadline. Default: 10 s.
	RequestTimeout time.Duration
	// MaxBackoff bounds the pause before another attempt to attach. The pause is a random part of a
	// ceiling that doubles from 50 ms up to MaxBackoff. It starts again at 50 ms once a connection
	// has lasted for 10 s. Default: 2 s.
	MaxBackoff time.Duration
	// Heartbeat is the silence after which the session pings the node. After three silent
	// Heartbeats, the session closes the connection. The session promises the node to send
	// something that often, so the node, too, closes a connection after three silent Heartbeats,
	// but not before 3 s. Default: 1 s.
	Heartbeat time.Duration

	// MaxInFlight is the maximum number of sends with ack that wait for their outcomes. Further
	// senders block. Default: 4,096, but at most what the node announces.
	MaxInFlight int
	// MaxInFlightBytes is the same limit in bytes of frames. Default: 8 MiB.
	MaxInFlightBytes int

	// Handler receives the messages to IDs that were bound without a handler of their own. By
	// default, the session rejects these messages.
	Handler Handler
	// Workers is the maximum number of handlers that run at once. The session starts goroutines as
	// needed. Default: 256.
	Workers int
	// QueueMessages is the maximum number of messages that wait for the handler of one ID. The
	// session rejects further messages with the reason "receiver busy". Default: 8,192.
	QueueMessages int
	// QueueBytes is the same limit in bytes. Each message counts 512 bytes in addition to its
	// frame. Default: 8 MiB.
	QueueBytes int
	// QueueTotal is the maximum number of bytes that wait for handlers in the whole session. A
	// multicast counts once. Default: 64 MiB.
	QueueTotal int

	// OnKick is called when the session has lost an ID. The SDK never binds the ID again by itself.
	OnKick func(Kick)
	// OnDrain is called when a node drains. The SDK moves to another node by itself.
	OnDrain func(Drain)
	// OnState is called for each node that the session was attached to or has lost. If the session
	// moves from one node to another, it is called only for the new one.
	OnState func(State)
	// OnPresence is called when watched IDs come online, go offline, or are bound again. The code
	// is ok with the epoch of the binding, or no_route with the epoch of the last binding, if
	// known. The codes overflow and denied mean that the node does not watch this ID, because of a
	// limit or because of the rights of the credentials, and that the session no longer watches it.
	// While OnPresence runs, changes are collected: the next call has the latest state of each ID,
	// and intermediate states may be skipped. After a reconnect, it is called with what has changed
	// meanwhile. The callback owns the slice.
	OnPresence func([]Presence)
	// OnPostFailed, if set, makes nodes report the posts that they could not deliver. id is the
	// result of Post. A post may also be lost with a connection, without a report.
	OnPostFailed func(id uint64, err *Error)

	// OnOutcome, if set, is called with every outcome of a Send, SendAsync or Multicast (one for
	// each ID), for metrics. While 65,536 outcomes wait for it, further ones are dropped, and
	// Stats.EventsDropped counts them. Session.Stats has the counts also without OnOutcome.
	OnOutcome func(Outcome)
	// OnSpan, if set, is called with a span of each message whose trace is sampled (Message.Trace):
	// when it was sent or posted, and when its handler has returned. The spans of nodes and of the
	// receiver's handler are children of the sender's span, and what a handler sends with its
	// Delivery.Trace is a child of the handler's span. A multicast has one span, and its handlers
	// have spans for the first 8 IDs that a session gets in one frame. Package client/otlp exports
	// spans by OTLP. While 8,192 spans wait for OnSpan, further ones are dropped, and
	// Stats.EventsDropped counts them. Without OnSpan, spans cost nothing.
	OnSpan func(Span)

	// Logger receives what an operator should see. Its handler may block: the session passes
	// records on from a separate goroutine, and drops and counts those that do not fit
	// (Stats.LogsDropped). Default: slog.Default().
	Logger *slog.Logger
}

// Kick describes an ID that the session has lost to another session.
type Kick struct {
	ID    string
	Epoch uint64 // of the current binding, if known
	// superseded if the ID was bound elsewhere; otherwise the reason why the binding could not be
	// asserted again
	Code Code
}

// Drain says that a node drains: it is about to leave the cluster.
type Drain struct {
	Addr     string        // of that node
	Deadline time.Duration // from now until it refuses to send
	Addrs    []string      // the nodes it recommends
}

// State says where a session is attached, and what has changed last: it was attached to a node, or
// has lost one.
type State struct {
	Attached bool   // to at least one node
	Session  string // public session ID in hex; changes when the session could not be resumed
	Node     string // the name of the node that it was attached to or has lost last
	Addr     string // that node's address
	Resumed  bool   // the node knew the session; otherwise its IDs were bound again
	// why the connection to that node ended; nil if the session was attached to it, or if Close has
	// ended it
	Err error
	// Nodes are all nodes that it is attached to now. The first is the one that binds and lookups
	// go to. The slice is shared: do not write to it.
	Nodes []discovery.Node
}

// AllNodes, as Config.Attach, attaches the session to every known node.
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

// withDefaults fills in defaults and rejects invalid values.
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
	c.TLS = secured(c.TLS)
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

// explainNodes explains what is wrong with Config.Nodes, given the error of discovery.Static.
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
	check(c.CredentialsFunc == nil || c.Credentials == nil, "both Credentials and CredentialsFunc are set")
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
