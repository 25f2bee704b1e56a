package loadtest

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"time"

	"distmsg/client"
	"distmsg/discovery"
	"distmsg/loadtest/internal/drive"
	"distmsg/loadtest/internal/ledger"
	"distmsg/loadtest/internal/traffic"
)

// A Driver is a way to communicate with the nodes.
type Driver string

// The drivers.
const (
	DriverRelay Driver = "relay" // the distmsg protocol, on the load test's own event loop
	DriverSDK   Driver = "sdk"   // the client SDK
	// others on the same event loop as relay, for comparison
	DriverNATS  Driver = "nats"
	DriverRedis Driver = "redis" // Redis's pub/sub
	DriverFloor Driver = "floor" // the relay without features, loadtest/floor
)

// Config says what to send where. The zero value is a complete run. Each zero field means the
// default that its comment names.
type Config struct {
	// Nodes are the addresses (host:port) of running nodes. Connections are spread over them in
	// turn. Default: a node in this process, for this run only.
	Nodes []string
	// Membership finds the nodes in place of Nodes: when the run begins, and whenever a connection
	// is lost. The caller closes it after Run. Default: none.
	Membership discovery.Membership
	// Cross is the share of messages, 0 to 1, whose receiver is connected to another node than the
	// sender. The nodes of both connections at the moment of the send count, and a connection that
	// is down counts at its last node. While all connections are at one node, or the sender's node
	// has no other connection, receivers are chosen as without Cross. It needs at least two nodes
	// with connections. Default: receivers are chosen without regard to nodes.
	Cross *float64
	// TLS makes all connections use TLS. A server must prove that it is TLS.ServerName (default:
	// the host of its address) to TLS.RootCAs (default: those of the system). It needs Nodes or
	// Membership. Default: nil, no TLS.
	TLS *tls.Config
	// CredentialsFile holds what nodes ask for when a client logs in, such as a token. It is read
	// again for each login, so it can change during the run. It needs Nodes or Membership, and
	// DriverRelay or DriverSDK. Default: none, no credentials.
	CredentialsFile string
	// Loops is the number of event loops of the node in this process. Default: 1.
	Loops int
	// Driver communicates with the nodes. Default: DriverRelay. Those for other servers
	// need Nodes.
	Driver Driver

	// Attach is how many nodes each session of DriverSDK is attached to at once, see
	// client.Config.Attach, and Strategy chooses among them for each message: "random",
	// "round-robin" or "pair-hash". Defaults: 1 and random.
	Attach   int
	Strategy string

	// Conns is the number of connections, each a session of its own. Default: 200.
	Conns int
	// IDsPerConn is the number of IDs each connection binds and sends from. Default: 1.
	IDsPerConn int
	// Payload is the size of a message in bytes. It is at least 36, because the ledger writes its
	// stamp there. Default: 128.
	Payload int
	// Fanout, if more than 1, makes each message a multicast to that many consecutive IDs of other
	// connections. Window and Rate count multicasts. The ledger, the rate and the latency count
	// copies. DriverNATS, DriverRedis and DriverFloor have no multicast, but one message may go to
	// all other connections, without ack. With DriverSDK, a multicast's outcomes are known only
	// when all of them are, so the slowest determines the latency of each. Default: 1.
	Fanout int
	// NoAck sends without ack, and requests only a report of failures.
	NoAck bool
	// Payloads, if not empty, gives messages different sizes. Payload must be 0 then. Default: all
	// have the size Payload.
	Payloads []Size
	// Zipf, if not 0, makes some receivers more popular than others: the chance of the k-th of them
	// is proportional to k to the power of -Zipf. It is more than 1. Default: all are equally
	// popular.
	Zipf float64
	// Offline is the share of messages, 0 to 1, whose receiver nobody has bound. Their outcome must
	// be no_route (Report.ExpectedNoRoute). Default: 0.
	Offline float64
	// AckDelay is how long receivers wait before they ack. It needs DriverRelay. Default: 0.
	AckDelay time.Duration
	// Churn is what changes while messages flow. It needs DriverRelay. Default: nothing.
	Churn Churn
	// Window is the number of messages that each connection keeps in flight (closed loop): when one
	// ends, the next starts. Default: 1.
	Window int
	// Rate, if not 0, is the number of messages a second that start on all connections together,
	// whether or not earlier ones have ended (open loop). Latency then counts from the moment when
	// a message should have left. Window must be 0.
	Rate float64
	// Stages, if not empty, are rates that differ in time. The first begins with the warm-up. After
	// the last, its rate holds. Rate and Window must be 0.
	Stages []Stage
	// Poisson makes messages of an open loop start at random moments, as independent users do.
	// Default: at even distances.
	Poisson bool

	// Warmup precedes the measured time. The ledger includes it, but rate, latency and CPU do not.
	// Default: 1 s; negative: none.
	Warmup time.Duration
	// Duration is the measured time. Negative: until Until is closed or ctx ends; the report is
	// complete then. Default: 10 s.
	Duration time.Duration
	// Grace bounds how long the run waits at its end without any arrival while messages are in
	// flight. Messages that are still in flight then are missing. Default: 2 s more than the nodes'
	// default time to live, or than 5 s if they do not announce it.
	Grace time.Duration
	// Patience bounds the whole wait at the end. If messages are still in flight then while others
	// still land, they are unanswered (see Report.Unanswered). After an interruption, the bound is
	// Grace if that is less. Default: 5 minutes, or Grace if that is more.
	Patience time.Duration
	// Seed makes the choice of receivers repeatable. Default: random; the report contains it.
	Seed uint64

	// Until ends the measured time early when it is closed. The report is then complete and not
	// partial. Default: never.
	Until <-chan struct{}
	// Ready is called once, when all connections are up and before messages flow, on Run's
	// goroutine. known has what the report will begin with: Begun, Machine, Versions and Config.
	// Default: none.
	Ready func(known *Report)
	// Started is called once, when all connections are up and messages begin to flow, on Run's
	// goroutine, which waits for it. Any goroutine may call snapshot at any time, also after Run.
	// It does not block for long. Default: none.
	Started func(snapshot func() Snapshot)
	// Divide is called like Started. mark ends an episode of the run and begins the next, named in
	// the report (Report.Episodes), and returns the moment on the clock of Report.Timeline. Any
	// goroutine may call mark until Run returns. Messages need acks. Default: none, the run is not
	// divided.
	Divide func(mark func(name string, fault bool) time.Duration)

	// ServerPID is the process whose CPU and memory are reported. Default: none.
	ServerPID int
	// MoreServerPIDs are further processes. Their CPU and memory are added to those of ServerPID.
	// Default: none.
	MoreServerPIDs []int
	// Metrics are URLs of the servers' metrics, in the text format of Prometheus. They say what a
	// node's version is and, without ServerPID, which CPU time and memory the servers use, wherever
	// they run. Default: none.
	Metrics []string
	// Observe receives what happened in each second, on a goroutine of its own. The run takes no
	// further sample and does not end before it returns. The sample's histograms are valid until
	// then. Default: none.
	Observe func(*Sample)
	// Progress receives one line a second. Default: none.
	Progress io.Writer
}

// The defaults that Config's comments name.
const (
	defaultConns    = 200
	defaultPayload  = 128
	defaultWarmup   = time.Second
	defaultDuration = 10 * time.Second
	defaultTTL      = 5 * time.Second // if the nodes do not announce theirs
	graceAfterTTL   = 2 * time.Second
	defaultPatience = 5 * time.Minute

	maxRate = 100e6
)

// ErrUsage is the error for an invalid Config.
var ErrUsage = errors.New("bad configuration")

// withDefaults fills in defaults and rejects invalid values. Its errors are ErrUsage.
func (c Config) withDefaults() (Config, error) {
	setDefault(&c.Loops, 1)
	setDefault(&c.Driver, DriverRelay)
	setDefault(&c.Attach, 1)
	setDefault(&c.Strategy, "random")
	setDefault(&c.Conns, defaultConns)
	setDefault(&c.IDsPerConn, 1)
	setDefault(&c.Fanout, 1)
	if len(c.Payloads) == 0 {
		setDefault(&c.Payload, defaultPayload)
	}
	c.Warmup, c.Duration = c.Times()
	setDefault(&c.Seed, rand.Uint64())
	if !c.openLoop() {
		setDefault(&c.Window, 1)
	}
	if c.Progress == nil {
		c.Progress = io.Discard
	}
	return c, c.validate()
}

// Times returns how long the run warms up and how long it measures, with the defaults filled in. If
// measured is negative, the run has no end.
func (c Config) Times() (warmup, measured time.Duration) {
	setDefault(&c.Warmup, defaultWarmup)
	setDefault(&c.Duration, defaultDuration)
	return max(c.Warmup, 0), c.Duration
}

// openLoop reports whether messages start on a schedule.
func (c *Config) openLoop() bool { return c.Rate != 0 || len(c.Stages) > 0 }

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
			errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrUsage}, args...)...))
		}
	}
	kind, known := drive.KindOf(string(c.Driver))
	if !known {
		return fmt.Errorf("%w: driver %q, want %s", ErrUsage, c.Driver, drive.Names(func(*drive.Kind) bool { return true }))
	}
	check(kind.Server == "" || len(c.Nodes) > 0, "driver %s needs the address of %s in nodes", c.Driver, kind.Server)
	for _, n := range c.Nodes {
		_, _, err := net.SplitHostPort(n)
		check(err == nil, "node %q is not host:port", n)
	}
	check(c.TLS == nil || len(c.Nodes) > 0 || c.Membership != nil, "tls needs running nodes: name them")
	if c.CredentialsFile != "" {
		check(len(c.Nodes) > 0 || c.Membership != nil, "credentials-file needs running nodes: name them")
		check(kind.Login, "credentials-file needs driver %s: driver %s does not log in", drive.Names(func(k *drive.Kind) bool { return k.Login }), c.Driver)
		_, err := drive.ReadCredentials(c.CredentialsFile)
		check(err == nil, "credentials-file cannot be read: %v", err)
	}
	check(c.Membership == nil || len(c.Nodes) == 0, "nodes and a membership exclude each other: give one of them")
	check(c.Membership == nil || kind.Server == "", "driver %s does not support discovery: name the nodes", c.Driver)
	check(c.Attach == 1 || kind.Attach, "attach needs driver %s", drive.Names(func(k *drive.Kind) bool { return k.Attach }))
	check(c.Attach > 0 || c.Attach == client.AllNodes, "attach is %d, want at least 1, or %d for all nodes", c.Attach, client.AllNodes)
	check(c.Cross == nil || c.Attach == 1, "cross excludes attach, which puts a receiver at several nodes")
	_, known = drive.Strategy(c.Strategy)
	check(known, "strategy %q, want random, round-robin or pair-hash", c.Strategy)
	if c.Cross != nil {
		check(*c.Cross >= 0 && *c.Cross <= 1, "cross is %g, want 0 to 1", *c.Cross)
		check(c.Membership != nil || len(c.Nodes) > 1, "cross needs at least 2 nodes, there is %d", max(1, len(c.Nodes)))
		check(c.Conns >= len(c.Nodes), "cross needs a connection at every node: %d connections, %d nodes", c.Conns, len(c.Nodes))
	}
	check(c.Loops > 0, "loops is %d, want at least 1", c.Loops)
	check(c.Conns > 0, "conns is %d, want at least 1", c.Conns)
	check(c.IDsPerConn > 0, "ids-per-conn is %d, want at least 1", c.IDsPerConn)
	for _, size := range c.sizes() {
		check(size.Bytes >= ledger.StampLen && size.Bytes <= traffic.MaxPayload,
			"payload is %d bytes, want %d (what the ledger writes) to %d", size.Bytes, ledger.StampLen, traffic.MaxPayload)
	}
	others := max(c.Conns-1, 0) * max(c.IDsPerConn, 0)
	check(c.Fanout >= 1, "fanout is %d, want at least 1", c.Fanout)
	several := func(k *drive.Kind) bool { return k.Multicast || k.Broadcast }
	check(c.Fanout <= 1 || several(&kind), "fanout needs driver %s: driver %s has no multicast", drive.Names(several), c.Driver)
	check(c.Fanout <= 1 || !kind.Broadcast || c.NoAck && c.IDsPerConn == 1 && c.Fanout == others,
		"fanout is %d, but with driver %s a message goes to one connection or to all others: it needs no-ack, ids-per-conn 1, and fanout 1 or %d",
		c.Fanout, c.Driver, others)
	check(c.Fanout <= 1 || c.Fanout <= others, "fanout is %d, but the other connections have %d IDs", c.Fanout, others)
	check(c.Fanout <= 1 || c.Cross == nil, "cross excludes fanout, which gives a message receivers at several nodes")
	check(c.Divide == nil || !c.NoAck, "no-ack excludes faults, which are judged by outcomes")
	check(c.Rate >= 0 && c.Rate <= maxRate, "rate is %g, want 0 (closed loop) to %g", c.Rate, maxRate)
	check(c.Rate == 0 || c.Window == 0, "rate excludes window")
	check(c.openLoop() || c.Window > 0, "window is %d, want at least 1", c.Window)
	errs = append(errs, c.validateShape(&kind)...)
	check(c.Grace >= 0, "grace is %v, want at least 0", c.Grace)
	check(c.Patience >= 0, "patience is %v, want at least 0", c.Patience)
	for _, m := range c.Metrics {
		at, err := url.Parse(m)
		check(err == nil && at.Host != "" && (at.Scheme == "http" || at.Scheme == "https"), "metrics is %q, want a URL such as http://127.0.0.1:7401/metrics", m)
	}
	check(len(c.Metrics) == 0 || len(c.Nodes) > 0 || c.Membership != nil, "metrics needs running nodes: name them")
	check(c.ServerPID >= 0, "server-pid is %d, want at least 0", c.ServerPID)
	return errors.Join(errs...)
}
