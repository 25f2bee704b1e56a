package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/directory"
	"distmsg/internal/tlsline"
	"distmsg/routing"
)

// Config configures an Engine. The zero value is a working single node on 127.0.0.1:7400. Each zero
// field means the default that its comment names.
type Config struct {
	// NodeID names this node in the cluster and in its logs: 1 to 255 bytes of UTF-8 without
	// control characters. Default: 16 random hex digits.
	NodeID string
	// Addr is the TCP address for clients, as net.Listen takes it; port 0 picks a free one (see
	// Engine.Addr). Default: 127.0.0.1:7400. With "none", the engine has no listener, and only
	// clients in the same process can connect (see Engine.Dialer).
	Addr string
	// Loops is the number of event loops. Default: UsableCPUs(). A program that embeds the
	// engine should run with GOMAXPROCS of at least Loops+1: with no idle P the runtime keeps
	// taking the loops' Ps away (25% more CPU was measured).
	Loops int
	// CPUs is how many CPUs the loops may use at the same time. If there are fewer than loops, the
	// loops take turns. Default: UsableCPUs().
	CPUs int
	// Registry decides who holds an ID. Default: a routing.Memory of this engine's own.
	Registry routing.Registry
	// Secret signs resume secrets. All nodes of a cluster need the same. It has at least 16 bytes.
	// Default: ClusterSecret. Without that it is random, so sessions cannot be resumed after a
	// restart.
	Secret []byte
	// SecretsAccepted are further secrets that may have signed a resume secret, while Secret is
	// being replaced. If Secret is ClusterSecret by default, so are ClusterSecretsAccepted. See
	// Engine.SetSecrets.
	SecretsAccepted [][]byte

	// MaxPayload is the maximum size of a payload or reply in bytes. Default: 1 MiB.
	MaxPayload int
	// MaxIDs is the maximum number of IDs in one bind, unbind or lookup frame. Default: 1,024.
	MaxIDs int
	// MaxSessionIDs is the maximum number of IDs that one session may have bound at this node. An
	// ID that is bound again counts once. A bind beyond the limit ends with overflow. Default:
	// 1,000,000.
	MaxSessionIDs int
	// MaxNodeIDs is the maximum number of IDs that all sessions together may have bound at this
	// node. Each takes about 250 bytes of memory. A bind beyond the limit ends with overflow.
	// Default: 10,000,000.
	MaxNodeIDs int
	// MaxRequests bounds the bytes of one connection's binds, unbinds, lookups and watches in
	// progress. Each ID counts its own bytes and 64 more. A request beyond the limit ends with
	// overflow. Default: 16 MiB.
	MaxRequests int
	// MaxNodeRequests is the same limit for all connections of the node. If it is nearly used up,
	// each connection has a share of what is left. Default: 256 MiB, and at least 8 MaxRequests.
	MaxNodeRequests int
	// TakeoverInterval and TakeoverBurst limit how often sessions may take an ID from each other:
	// TakeoverBurst times at once, and then once in each TakeoverInterval. The limit holds for all
	// nodes together, and all nodes should use the same values. A bind that exceeds it waits, for 2
	// s or two thirds of LoopGap at most, or ends with overflow. Default: 250 ms and 8.
	TakeoverInterval time.Duration
	TakeoverBurst    int
	// MaxMulticast is the maximum number of IDs in one multicast. The frame limit applies, too.
	// Default: 10,000.
	MaxMulticast int
	// MaxInFlight is the maximum number of sends of one connection that wait for an ack. Default:
	// 65,536.
	MaxInFlight int
	// MaxAcks is the maximum number of sends of all connections of one event loop that wait for an
	// ack. If many wait, each connection has a share of what is left. A send takes 56 bytes, and
	// this memory is not returned to the system. Default: 1,048,576; at most 4,194,304.
	MaxAcks int
	// MaxPending bounds the bytes that wait to be written to one connection. A message that does
	// not fit ends with overflow. Default: 4 MiB, and at least 2 MaxPayload.
	MaxPending int
	// Credit is how many bytes of sends without ack a connection may be ahead of the node. Default:
	// 4 MiB, and at least two frames of MaxPayload, so that any message fits the half that is
	// renewed.
	Credit int
	// MaxConns is the maximum number of client connections. Further ones wait in the kernel's
	// queue. Default: the process's file descriptor limit less 128, less 512 more for a node of a
	// cluster (and never less than half of it).
	MaxConns int

	// MaxHandshakes is the maximum number of client connections without hello. If one more comes,
	// the engine closes the oldest of them. As many again may wait for welcome after their hello,
	// because the Authenticate hook or the registry is slow. The engine asks further ones to try
	// again later, and all connections of one source address take at most half of what is free.
	// Default: a quarter of MaxConns.
	MaxHandshakes int
	// MaxPeerHandshakes is the maximum number of connections to PeerAddr that have not proved that
	// they know the cluster's secret. If one more comes, the engine closes the oldest of them.
	// Connections that have proved it are links: one for each node. Default: 256.
	MaxPeerHandshakes int

	// HelloTimeout bounds the time from accept to hello. Default: 2 s.
	HelloTimeout time.Duration
	// Heartbeat is the silence after which the node pings a client that has not promised to send
	// something more often. A client that has promised it, as the SDK does, counts as dead after
	// three of its own heartbeats, but not before 3 s. Default: 10 s.
	Heartbeat time.Duration
	// IdleTimeout is the time without a complete frame after which a connection is closed.
	// Default: 3 Heartbeats.
	IdleTimeout time.Duration
	// SlowConsumerTimeout is how long a connection may take no byte, or stay full, before it is
	// closed. Default: 10 s.
	SlowConsumerTimeout time.Duration
	// ResumeWindow is how long a session outlives its last connection. Time in which the machine
	// sleeps does not count: when it wakes, its sessions are detached and the window begins.
	// Default: 10 s.
	ResumeWindow time.Duration
	// DefaultTTL is the TTL of a send with ack whose sender gives none. Default: 5 s, or MaxTTL if
	// that is less.
	DefaultTTL time.Duration
	// Spans is how many spans of messages with a sampled trace each event loop holds until
	// Engine.TakeSpans takes them. Default: 0, no spans.
	Spans int
	// LogLevels are the levels of the process's log. Operators may read and set them while the node
	// runs. Default: none, and the node says that it has none.
	LogLevels LogLevels
	// MaxTTL bounds the TTL of a send. Default: 5 min; at most 1 h.
	MaxTTL time.Duration
	// LoopGap is the pause of an event loop after which the node concludes that it was stopped,
	// drops everything and continues under a new incarnation. It is measured on a clock that also
	// runs while the machine sleeps (CLOCK_BOOTTIME), as are deadlines of messages, heartbeats and
	// the age of requests. Default: 3 s.
	LoopGap time.Duration
	// DrainSpread is the time over which a draining node asks its clients to move. Default: 2 s.
	DrainSpread time.Duration

	// ExpiryGrace is how long a client may stay connected after its identity has expired or was
	// revoked, so that it can log in again without a gap. Default: 10 s.
	ExpiryGrace time.Duration

	// Membership makes this node part of a cluster. It needs a Registry that all nodes share, and a
	// ClusterSecret. Default: none; the node is alone.
	Membership Membership
	// Cluster is the name of the cluster. The node refuses nodes of other clusters. Default:
	// distmsg.
	Cluster string
	// ClusterSecret is the shared secret of the cluster, at least 16 bytes. Each node proves to the
	// others that it knows the secret.
	ClusterSecret []byte
	// ClusterSecretsAccepted are further secrets that other nodes may use, while ClusterSecret is
	// being replaced. See Engine.SetSecrets.
	ClusterSecretsAccepted [][]byte
	// PeerAddr is the TCP address for other nodes. Default: 127.0.0.1:7402.
	PeerAddr string
	// Advertise and PeerAdvertise are the addresses that the node announces to clients and to other
	// nodes. Default: the addresses that it listens on, which does not work for wildcards.
	Advertise, PeerAdvertise string
	// VerifyPeriod is the time in which the node asserts all its bindings to the registry once,
	// slowly and repeatedly. So it bounds how long a binding can remain whose kick was lost (S15).
	// Within the same time, the node compares its cached routes with the registry. All nodes should
	// use the same value. Default: 5 min; at least 1 s.
	VerifyPeriod time.Duration
	// MaxRoutes is how many routes to IDs at other nodes the node caches. Default: 1,000,000.
	MaxRoutes int
	// MaxParked bounds the bytes of one connection's messages that wait until the registry has
	// resolved their receivers. Messages beyond the limit end with overflow. Default: 1 MiB, and at
	// least 2 MaxPayload.
	MaxParked int

	// MemoryBudget bounds the bytes that connections may hold: what waits to be written to them,
	// incomplete frames, and what waits for the registry. When three quarters of it are held,
	// messages to connections with much to read end with overflow. Beyond seven eighths, the node
	// closes the connections that hold most. Default: a quarter of the memory of the machine, or of
	// the process's cgroup; at least 64 MiB, and 16 MaxPayload in any case. The engine does not set
	// the runtime's memory limit (GOMEMLIMIT); twice the budget is a good one.
	MemoryBudget int64

	// MaxWatched is how many IDs one connection may watch. Default: 100,000.
	MaxWatched int
	// MaxNodeWatched is how many IDs all connections together may watch. An ID that two connections
	// watch counts twice, and takes about 200 bytes each time. One connection may watch a quarter
	// of what three quarters of the limit leave free. Default: 1,000,000.
	MaxNodeWatched int
	// WatchPeriod is how often the node asks the registry who holds the watched IDs. So it bounds
	// how late a change at another node is reported. It takes longer if that would be more than
	// 50,000 IDs a second. Default: 2 s.
	WatchPeriod time.Duration

	// Engine.SetLimits can change the following limits, MaxSessionIDs, MaxNodeIDs and
	// MaxNodeWatched.

	// ConnMessages, ConnBytes and ConnLookups bound what one connection may use in a second. See
	// Limits for what counts. Defaults: 2,000,000 messages (4,000,000 at once), 2 GiB, and 50,000
	// lookups (200,000 at once).
	ConnMessages, ConnBytes, ConnLookups Rate
	// IdentityLimits are the limits of an identity whose own Limits do not say otherwise. Defaults:
	// 5,000,000 messages (10,000,000 at once), 4 GiB, and 200,000 lookups (800,000 at once).
	IdentityLimits Limits
	// MaxAddressConns is the maximum number of client connections from one source address (IPv6:
	// one /64), and AddressHandshakes bounds how many of them may begin in a second. Default: no
	// limit of their own, because all clients may be behind one address (NAT, a proxy).
	MaxAddressConns   int
	AddressHandshakes Rate

	// TLS makes clients use TLS, version 1.2 or later. ClientCAs and ClientAuth ask them for
	// certificates, which Hooks.Authenticate gets. GetConfigForClient may change certificates and
	// CAs while the engine runs; sessions of TLS can be resumed after that. Its functions must not
	// wait, because few handshakes compute at the same time. The engine works with a copy. Clients
	// in the same process do not use TLS. Default: nil, no TLS.
	TLS *tls.Config
	// ProxyFrom lists the networks of load balancers that say where a client comes from, in a
	// header of the PROXY protocol, version 2. Connections from there must begin with the header,
	// before TLS, within HelloTimeout. The address in it is the client's for logs, limits per
	// address and Hooks.Authenticate. If the header has none (LOCAL, or no IP address), it is the
	// balancer's. Headers from other addresses are not accepted. It does not apply to PeerAddr.
	// Default: none.
	ProxyFrom []netip.Prefix
	// PeerTLS makes links to other nodes use TLS. It is used at both ends, so ClientAuth
	// tls.RequireAndVerifyClientCert, ClientCAs and RootCAs together make TLS mutual. A node that
	// dials another one checks that its certificate is for ServerName (default: the host in the
	// other's PeerAddr). Either all nodes have it, or none. The cluster secret is needed as well.
	// Default: nil, no TLS.
	PeerTLS *tls.Config
	// PeerTLSClient returns what the node uses in place of PeerTLS to dial another node, so that
	// certificates and CAs can change while the engine runs. host is the one in the other's
	// PeerAddr. It must not wait. It needs PeerTLS. Default: PeerTLS for each.
	PeerTLSClient func(host string) *tls.Config

	// AllowNoFrom allows sends with an empty from.
	AllowNoFrom bool
	// Hooks observe and decide. Default: everything is allowed, and nothing is reported.
	Hooks Hooks
	// Logger receives what an operator should see. Its handler may block: the engine passes records
	// on from a separate goroutine, and drops and counts those that do not fit (Stats.LogsDropped).
	// Default: slog.Default().
	Logger *slog.Logger
}

// The defaults that Config's comments name.
const (
	defaultAddr                = "127.0.0.1:7400"
	defaultMaxPayload          = 1 << 20
	defaultMaxIDs              = 1024
	defaultMaxMulticast        = 10_000
	defaultMaxSessionIDs       = 1_000_000
	defaultMaxNodeIDs          = 10_000_000
	defaultMaxRequests         = 16 << 20
	defaultMaxNodeRequests     = 256 << 20
	defaultTakeoverInterval    = 250 * time.Millisecond
	defaultTakeoverBurst       = 8
	defaultMaxInFlight         = 1 << 16
	defaultMaxAcks             = 1 << 20
	defaultMaxPending          = 4 << 20
	defaultCredit              = 4 << 20
	defaultMaxPeerHandshakes   = 256
	defaultHelloTimeout        = 2 * time.Second
	defaultHeartbeat           = 10 * time.Second
	defaultSlowConsumerTimeout = 10 * time.Second
	defaultResumeWindow        = 10 * time.Second
	defaultTTL                 = 5 * time.Second
	defaultMaxTTL              = 5 * time.Minute
	defaultLoopGap             = 3 * time.Second
	defaultDrainSpread         = 2 * time.Second
	defaultExpiryGrace         = 10 * time.Second
	defaultCluster             = "distmsg"
	defaultPeerAddr            = "127.0.0.1:7402"
	defaultVerifyPeriod        = 5 * time.Minute
	defaultMaxRoutes           = 1_000_000
	defaultMaxParked           = 1 << 20
	defaultMaxWatched          = 100_000
	defaultMaxNodeWatched      = 1_000_000
	defaultWatchPeriod         = 2 * time.Second

	defaultMemoryPart = 4 // of the machine's memory
	leastMemory       = 64 << 20

	maxLoops     = 256 // a token has 8 bits for the loop
	maxMaxTTL    = time.Hour
	maxSpans     = 1 << 16
	maxMaxAcks   = 1 << 22 // a token has 22 bits for the slot
	minSecret    = 16
	noListener   = "none"
	maxPayloadUB = 1 << 30
	maxBurst     = 1 << 20
	maxInterval  = time.Hour
)

// withDefaults fills in defaults and rejects invalid values.
func (c Config) withDefaults() (Config, error) {
	ownRegistry := c.Registry == nil
	setDefault(&c.NodeID, randomHex(8))
	setDefault(&c.Addr, defaultAddr)
	setDefault(&c.Loops, UsableCPUs())
	setDefault(&c.CPUs, UsableCPUs())
	setDefault(&c.MaxPayload, defaultMaxPayload)
	setDefault(&c.MaxIDs, defaultMaxIDs)
	setDefault(&c.MaxMulticast, defaultMaxMulticast)
	setDefault(&c.MaxRequests, defaultMaxRequests)
	setDefault(&c.MaxNodeRequests, max(defaultMaxNodeRequests, requestPart*c.MaxRequests))
	setDefault(&c.TakeoverInterval, defaultTakeoverInterval)
	setDefault(&c.TakeoverBurst, defaultTakeoverBurst)
	setDefault(&c.MaxInFlight, defaultMaxInFlight)
	setDefault(&c.MaxAcks, defaultMaxAcks)
	setDefault(&c.MaxPending, max(defaultMaxPending, 2*c.MaxPayload))
	setDefault(&c.Credit, max(defaultCredit, c.minCredit()))
	setDefault(&c.MaxConns, defaultMaxConns(c.Membership != nil))
	setDefault(&c.MaxHandshakes, max(c.MaxConns/4, 1))
	setDefault(&c.MaxPeerHandshakes, defaultMaxPeerHandshakes)
	setDefault(&c.HelloTimeout, defaultHelloTimeout)
	setDefault(&c.Heartbeat, defaultHeartbeat)
	setDefault(&c.IdleTimeout, 3*c.Heartbeat)
	setDefault(&c.SlowConsumerTimeout, defaultSlowConsumerTimeout)
	setDefault(&c.ResumeWindow, defaultResumeWindow)
	setDefault(&c.MaxTTL, defaultMaxTTL)
	setDefault(&c.DefaultTTL, min(defaultTTL, c.MaxTTL))
	setDefault(&c.LoopGap, defaultLoopGap)
	setDefault(&c.DrainSpread, defaultDrainSpread)
	setDefault(&c.ExpiryGrace, defaultExpiryGrace)
	setDefault(&c.Cluster, defaultCluster)
	setDefault(&c.PeerAddr, defaultPeerAddr)
	setDefault(&c.VerifyPeriod, defaultVerifyPeriod)
	setDefault(&c.MaxRoutes, defaultMaxRoutes)
	setDefault(&c.MaxWatched, defaultMaxWatched)
	setDefault(&c.WatchPeriod, defaultWatchPeriod)
	c.setNodeLimits(c.NodeLimits().withDefaults())
	setDefault(&c.MemoryBudget, max(machineMemory("/")/defaultMemoryPart, leastMemory, minBudget*int64(c.MaxPayload)))
	setDefault(&c.MaxParked, max(defaultMaxParked, 2*c.MaxPayload))
	if c.Secret == nil && c.ClusterSecret != nil {
		c.Secret = c.ClusterSecret // what is made of it is told apart by its label
		c.SecretsAccepted = slices.Concat(c.ClusterSecretsAccepted, c.SecretsAccepted)
	}
	if c.Secret == nil {
		c.Secret = randomBytes(codec.SecretLen)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Registry == nil {
		c.Registry = routing.NewMemory(routing.MemoryConfig{})
	}
	c.TLS, c.PeerTLS = tlsline.Prepare(c.TLS), tlsline.Prepare(c.PeerTLS)
	return c, c.validate(ownRegistry)
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

func (c *Config) validate(ownRegistry bool) error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("engine: "+format, args...))
		}
	}
	c.checkNames(check)
	limits := c.NodeLimits()
	limits.check(check)
	c.checkTLS(check)
	for _, network := range c.ProxyFrom {
		check(network.IsValid() && !network.Addr().Is4In6(), "ProxyFrom has %v, want a network such as 10.0.0.0/8", network)
	}
	check(c.Loops >= 1 && c.Loops <= maxLoops, "Loops is %d, want 1 to %d", c.Loops, maxLoops)
	check(c.CPUs >= 1, "CPUs is %d, want at least 1", c.CPUs)
	check(len(c.Secret) >= minSecret, "Secret has %d bytes, at least %d are needed", len(c.Secret), minSecret)
	for _, secret := range slices.Concat(c.SecretsAccepted, c.ClusterSecretsAccepted) {
		check(len(secret) >= minSecret, "an accepted secret has %d bytes, at least %d are needed", len(secret), minSecret)
	}
	if c.Membership != nil {
		check(len(c.ClusterSecret) >= minSecret, "ClusterSecret has %d bytes, a cluster needs at least %d", len(c.ClusterSecret), minSecret)
		check(!ownRegistry, "a cluster needs a Registry that all its nodes share, not one in memory")
	}
	check(c.MaxPayload > 0 && c.MaxPayload <= maxPayloadUB, "MaxPayload is %d, want 1 to %d", c.MaxPayload, maxPayloadUB)
	check(c.MaxAcks <= maxMaxAcks, "MaxAcks is %d, at most %d are allowed", c.MaxAcks, maxMaxAcks)
	check(c.MaxPending >= 2*c.MaxPayload, "MaxPending is %d, want at least two payloads of %d", c.MaxPending, c.MaxPayload)
	check(c.MaxParked >= 2*c.MaxPayload, "MaxParked is %d, want at least two payloads of %d", c.MaxParked, c.MaxPayload)
	check(c.MemoryBudget >= minBudget*int64(c.MaxPayload), "MemoryBudget is %d, want at least %d payloads of %d", c.MemoryBudget, minBudget, c.MaxPayload)
	check(c.Credit >= c.minCredit(), "Credit is %d, want at least %d, the size of two full frames", c.Credit, c.minCredit())
	check(c.Spans >= 0 && c.Spans <= maxSpans, "Spans is %d, want 0 to %d", c.Spans, maxSpans)
	check(c.MaxTTL <= maxMaxTTL, "MaxTTL is %v, at most %v is allowed", c.MaxTTL, maxMaxTTL)
	check(c.TakeoverInterval <= maxInterval, "TakeoverInterval is %v, at most %v is allowed", c.TakeoverInterval, maxInterval)
	check(c.TakeoverBurst <= maxBurst, "TakeoverBurst is %d, at most %d are allowed", c.TakeoverBurst, maxBurst)
	check(c.DefaultTTL <= c.MaxTTL, "DefaultTTL is %v, at most MaxTTL, %v, is allowed", c.DefaultTTL, c.MaxTTL)
	check(c.VerifyPeriod >= directory.VerifyEvery, "VerifyPeriod is %v, want at least %v", c.VerifyPeriod, directory.VerifyEvery)
	check(c.IdleTimeout > c.Heartbeat, "IdleTimeout is %v, want more than Heartbeat, %v", c.IdleTimeout, c.Heartbeat)
	for _, f := range []struct {
		name string
		v    int
	}{
		{"MaxIDs", c.MaxIDs}, {"MaxMulticast", c.MaxMulticast}, {"MaxInFlight", c.MaxInFlight}, {"MaxAcks", c.MaxAcks}, {"MaxConns", c.MaxConns},
		{"MaxRoutes", c.MaxRoutes}, {"MaxParked", c.MaxParked}, {"MaxWatched", c.MaxWatched},
		{"MaxHandshakes", c.MaxHandshakes}, {"MaxPeerHandshakes", c.MaxPeerHandshakes},
		{"MaxRequests", c.MaxRequests}, {"MaxNodeRequests", c.MaxNodeRequests}, {"TakeoverBurst", c.TakeoverBurst},
	} {
		check(f.v > 0, "%s is %d, want more than 0", f.name, f.v)
	}
	for _, f := range []struct {
		name string
		v    time.Duration
	}{
		{"HelloTimeout", c.HelloTimeout}, {"Heartbeat", c.Heartbeat}, {"SlowConsumerTimeout", c.SlowConsumerTimeout},
		{"ResumeWindow", c.ResumeWindow}, {"MaxTTL", c.MaxTTL}, {"DefaultTTL", c.DefaultTTL}, {"LoopGap", c.LoopGap},
		{"DrainSpread", c.DrainSpread}, {"ExpiryGrace", c.ExpiryGrace}, {"WatchPeriod", c.WatchPeriod},
		{"TakeoverInterval", c.TakeoverInterval},
	} {
		check(f.v >= 0, "%s is %v, want more than 0", f.name, f.v)
		check(f.v < 0 || f.v >= time.Millisecond, "%s is %v, less than a millisecond", f.name, f.v)
	}
	return errors.Join(errs...)
}

// checkNames refuses what other nodes, or clients, could not read: they would refuse the frame.
func (c *Config) checkNames(check func(ok bool, format string, args ...any)) {
	for _, f := range []struct{ name, v string }{{"NodeID", c.NodeID}, {"Cluster", c.Cluster}} {
		err := discovery.CheckName(f.v)
		check(err == nil, "%s %w", f.name, err)
	}
	for _, f := range []struct{ name, v string }{{"Advertise", c.Advertise}, {"PeerAdvertise", c.PeerAdvertise}} {
		if f.v != "" {
			err := discovery.CheckAddr(f.v)
			check(err == nil, "%s %w", f.name, err)
		}
	}
}

// checkTLS refuses what no handshake could succeed with.
func (c *Config) checkTLS(check func(ok bool, format string, args ...any)) {
	for _, f := range []struct {
		name   string
		config *tls.Config
	}{{"TLS", c.TLS}, {"PeerTLS", c.PeerTLS}} {
		if f.config != nil {
			err := tlsline.Check(f.config)
			check(err == nil, "%s %w", f.name, err)
		}
	}
	check(c.PeerTLSClient == nil || c.PeerTLS != nil, "PeerTLSClient is set, and PeerTLS is not")
}

func (c *Config) minCredit() int { return 2 * (codec.PrefixLen + c.MaxPayload + codec.FrameOverhead) }

// maxFrame is the frame limit that goes with the payload limit; binds of many IDs need 64 KiB and
// more in any case.
func (c *Config) maxFrame() int {
	return max(c.MaxPayload+codec.FrameOverhead, 64<<10, c.MaxIDs*(codec.MaxID+16)+codec.FrameOverhead)
}

// limits returns the limits that welcome announces.
func (c *Config) limits() codec.Limits {
	ms := func(d time.Duration) uint64 { return uint64(d.Milliseconds()) }
	return codec.Limits{
		MaxPayload:   uint64(c.MaxPayload),
		MaxFrame:     uint64(c.maxFrame()),
		MaxIDs:       uint64(c.MaxIDs),
		MaxInFlight:  uint64(c.MaxInFlight),
		Credit:       uint64(c.Credit),
		MaxTTL:       ms(c.MaxTTL),
		DefaultTTL:   ms(c.DefaultTTL),
		Heartbeat:    ms(c.Heartbeat),
		IdleTimeout:  ms(c.IdleTimeout),
		ResumeWindow: ms(c.ResumeWindow),
		MaxMulticast: uint64(c.MaxMulticast),
		MaxWatched:   uint64(c.MaxWatched),
	}
}
