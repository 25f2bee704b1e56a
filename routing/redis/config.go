package redis

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"distmsg/internal/asynclog"
	"distmsg/routing"
)

// Config configures a Registry. Each zero field means the default that its comment names.
type Config struct {
	// URL says where Redis is. The port and the database may be omitted:
	//
	//	redis://HOST:PORT/DATABASE
	//	redis-sentinel://HOST:PORT,HOST:PORT/MASTER/DATABASE   (of the sentinels, and the name they know the master by)
	//	redis-cluster://HOST:PORT,HOST:PORT                    (of some of its nodes)
	//
	// With rediss instead of redis, all connections use TLS. A password in the URL is refused,
	// because URLs end up in logs and process listings. Default: redis://127.0.0.1:6379.
	URL string
	// Username and Password are for Redis, SentinelPassword for the sentinels. Default: none.
	Username, Password, SentinelPassword string
	// TLS is for the URLs that begin with rediss.
	TLS TLS

	// Prefix begins all keys. It is the name of the cluster, so that several clusters can share one
	// Redis. It must not contain braces. Default: distmsg.
	Prefix string
	// Fingerprint identifies this cluster: all its nodes have the same, and other clusters another.
	// It is stored in Redis, and a registry that finds another one there fails, at Open or later.
	// It must not reveal a secret. Default: none, and nothing is compared.
	Fingerprint string
	// Fingerprints, in place of Fingerprint, is for a cluster whose secret can be replaced while it
	// runs. The registry accepts each of the fingerprints, and replaces it by the first. Any
	// goroutine calls it, and it must not wait.
	Fingerprints func() []string
	// Buckets is the number of hashes that hold the bindings. All nodes must use the same number,
	// and it cannot change while the data exist. One bucket for 50 to 100 IDs is best: Redis walks
	// through a bucket to find an ID, and with Redis's defaults an ID costs twice the memory if its
	// bucket has more than 511. Default: 16,384, which suits a million IDs.
	Buckets int

	// Timeout bounds each call. After a call that Redis did not answer, calls fail at once until a
	// check succeeds. With a Redis Cluster, they do not: each call to an absent master waits for
	// the timeout. Default: 1 s.
	Timeout time.Duration
	// PoolSize is the maximum number of connections to each master. Default: 16.
	PoolSize int
	// CheckInterval is the time between two checks of whether Redis answers and has lost data.
	// Default: 1 s.
	CheckInterval time.Duration
	// RebuildWindow is how long misses do not count after a loss: the time that all nodes need to
	// re-assert what they know. An empty store at the first start counts as a loss, too. All nodes
	// should use the same value. Default: 10 s.
	RebuildWindow time.Duration

	// ResumeWindow is how long a session may be detached. The sweep waits for twice as long.
	// Default: 10 s.
	ResumeWindow time.Duration
	// SweepInterval is the time of one walk through all buckets. Default: 1 min, or VerifyPeriod if
	// that is less.
	SweepInterval time.Duration
	// VerifyPeriod is the time in which Claims reports all bindings once. It starts again after a
	// loss. Default: 5 min.
	VerifyPeriod time.Duration
	// DeadFor is how long a dead session is remembered. Default: 1 h.
	DeadFor time.Duration
	// Gone reports whether a node, or that incarnation of it, no longer lives. The sweep calls it
	// for the presence of sessions. It may be called on any goroutine, even before Open has
	// returned. By default no node ever counts as gone, so sessions whose node has died stay until
	// they come back.
	Gone func(routing.Presence) bool

	// Clock returns the time from which epochs are minted, for tests. Default: the clock of the
	// Redis master.
	Clock func() time.Time
	// Logger receives what an operator should see. Default: slog.Default().
	Logger *slog.Logger
}

// TLS names PEM files.
type TLS struct {
	// the authorities that may sign the server's certificate; empty: those the system trusts
	CA        string
	Cert, Key string // the certificate of this client; empty: none
}

// The defaults that Config's comments name.
const (
	defaultURL           = "redis://127.0.0.1:6379"
	defaultPrefix        = "distmsg"
	defaultBuckets       = 16384
	defaultTimeout       = time.Second
	defaultPoolSize      = 16
	defaultCheckInterval = time.Second
	defaultRebuildWindow = 10 * time.Second
	defaultResumeWindow  = 10 * time.Second
	defaultSweepInterval = time.Minute
	defaultVerifyPeriod  = 5 * time.Minute
	defaultDeadFor       = time.Hour

	maxBuckets = 1 << 24
)

// withDefaults fills in defaults and rejects invalid values.
func (c Config) withDefaults() (Config, error) {
	c.URL = cmp.Or(c.URL, defaultURL)
	c.Prefix = cmp.Or(c.Prefix, defaultPrefix)
	c.Buckets = cmp.Or(c.Buckets, defaultBuckets)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.PoolSize = cmp.Or(c.PoolSize, defaultPoolSize)
	c.CheckInterval = cmp.Or(c.CheckInterval, defaultCheckInterval)
	c.RebuildWindow = cmp.Or(c.RebuildWindow, defaultRebuildWindow)
	c.ResumeWindow = cmp.Or(c.ResumeWindow, defaultResumeWindow)
	c.VerifyPeriod = cmp.Or(c.VerifyPeriod, defaultVerifyPeriod)
	c.SweepInterval = cmp.Or(c.SweepInterval, min(defaultSweepInterval, c.VerifyPeriod))
	c.DeadFor = cmp.Or(c.DeadFor, defaultDeadFor)
	if c.Gone == nil {
		c.Gone = func(routing.Presence) bool { return false }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = asynclog.Wrap(c.Logger).Logger // the check for losses must not wait for a logger
	switch {
	case strings.ContainsAny(c.Prefix, "{}"):
		return c, fmt.Errorf("redis: the prefix %q must not contain braces", c.Prefix)
	case c.Buckets < 1 || c.Buckets > maxBuckets:
		return c, fmt.Errorf("redis: %d buckets: want 1 to %d", c.Buckets, maxBuckets)
	case c.PoolSize < 1:
		return c, fmt.Errorf("redis: a pool of %d connections: want at least 1", c.PoolSize)
	case min(c.Timeout, c.CheckInterval, c.RebuildWindow, c.ResumeWindow, c.SweepInterval, c.VerifyPeriod, c.DeadFor) < 0:
		return c, errors.New("redis: a duration in the configuration is negative")
	}
	return c, nil
}

// place is a parsed URL.
type place struct {
	kind     kind
	tls      bool
	addrs    []string
	master   string // of sentinels
	database int
}

type kind int

const (
	standalone kind = iota
	sentinel
	cluster
)

func parseURL(url string) (place, error) {
	var p place
	scheme, rest, found := strings.Cut(url, "://")
	base, flavour, _ := strings.Cut(scheme, "-")
	kinds := map[string]kind{"": standalone, "sentinel": sentinel, "cluster": cluster}
	kind, known := kinds[flavour]
	if !found || !known || base != "redis" && base != "rediss" {
		return p, errors.New("redis: the URL must begin with redis://, redis-sentinel:// or redis-cluster://, or with rediss for TLS")
	}
	if strings.Contains(rest, "@") { // do not quote the URL: it may contain a password
		return p, errors.New("redis: the URL must hold no user and no password; put the password into a file or the environment")
	}
	p.kind, p.tls = kind, base == "rediss"
	hosts, path, _ := strings.Cut(rest, "/")
	if kind == sentinel {
		p.master, path, _ = strings.Cut(path, "/")
		if p.master == "" {
			return p, fmt.Errorf("redis: %s does not name the master: redis-sentinel://HOST:PORT,HOST:PORT/MASTER", url)
		}
	}
	if path != "" {
		n, err := strconv.Atoi(path)
		if err != nil || n < 0 || kind == cluster && n != 0 {
			return p, fmt.Errorf("redis: %s: %q is no database", url, path)
		}
		p.database = n
	}
	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := withPort(host, kind)
		if err != nil {
			return p, fmt.Errorf("redis: %s: %w", url, err)
		}
		p.addrs = append(p.addrs, addr)
	}
	if kind == standalone && len(p.addrs) > 1 {
		return p, fmt.Errorf("redis: %s names several servers: say redis-cluster:// or redis-sentinel://", url)
	}
	return p, nil
}

func withPort(host string, kind kind) (string, error) {
	port := "6379"
	if kind == sentinel {
		port = "26379"
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		host, port = h, p
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/?# ") {
		return "", fmt.Errorf("%q is no address", net.JoinHostPort(host, port))
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port), nil
}

// newClient returns the client. It pins every pool and timeout value, so that none depends on the
// version of go-redis or the number of processors. It does not connect yet.
func newClient(c Config, p place, onConnect func(context.Context, *goredis.Conn) error) (goredis.UniversalClient, error) {
	options := &goredis.UniversalOptions{
		Addrs:            p.addrs,
		MasterName:       p.master,
		DB:               p.database,
		Username:         c.Username,
		Password:         c.Password,
		SentinelPassword: c.SentinelPassword,
		ClientName:       "distmsg",
		OnConnect:        onConnect,

		Protocol:        3,
		DisableIdentity: true, // saves one command for each connection
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled,
		},

		MaxRetries:            -1, // otherwise a write whose reply is late would be done twice
		MaxRedirects:          3,  // of a Redis Cluster; see call.NoRetry
		ContextTimeoutEnabled: true,
		DialTimeout:           c.Timeout,
		DialerRetries:         1,
		DialerRetryTimeout:    100 * time.Millisecond,
		ReadTimeout:           c.Timeout,
		WriteTimeout:          c.Timeout,
		PoolTimeout:           c.Timeout,
		PoolSize:              c.PoolSize,
		MaxActiveConns:        c.PoolSize,
		MaxConcurrentDials:    c.PoolSize,
		MinIdleConns:          0,
		MaxIdleConns:          c.PoolSize,
		ConnMaxIdleTime:       5 * time.Minute,
		ConnMaxLifetime:       -1,
		PipelinePoolSize:      -1, // we use only pipelines, so one pool is enough
		ReadBufferSize:        64 << 10,
		WriteBufferSize:       64 << 10,
		FailingTimeoutSeconds: 1,
	}
	if p.tls {
		var err error
		if options.TLSConfig, err = c.TLS.load(); err != nil {
			return nil, err
		}
	}
	switch p.kind {
	case sentinel:
		return goredis.NewFailoverClient(options.Failover()), nil
	case cluster:
		o := options.Cluster()
		// they would request the list of all commands from the server
		o.DisableRoutingPolicies = true
		return goredis.NewClusterClient(o), nil
	default:
		return goredis.NewClient(options.Simple()), nil
	}
}

func (t TLS) load() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("redis: the CA file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis: the CA file %s holds no certificate", t.CA)
		}
	}
	if t.Cert != "" || t.Key != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("redis: the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// fingerprints returns the fingerprints that may stand in Redis, first that of this node.
func (c *Config) fingerprints() []string {
	switch {
	case c.Fingerprints != nil:
		return c.Fingerprints()
	case c.Fingerprint != "":
		return []string{c.Fingerprint}
	}
	return nil
}
