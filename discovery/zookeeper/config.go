package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"strconv"
	"strings"
	"time"

	"distmsg/internal/asynclog"
)

// Config says where ZooKeeper is and how to speak to it. The zero value of each field stands for
// the default that its comment names; only URL must be set.
type Config struct {
	// URL names the servers and the path that belongs to the cluster:
	// zk://host[:port][,host[:port]...][/path]. The port is 2181 by default, the path /distmsg.
	// Host names are resolved again for each connection.
	URL string
	// Auth is "user:password" for digest authentication. With it, only that user can read and
	// change what this program creates. Default: none, and everything that is created is open to
	// everyone.
	Auth string
	// ReadOnly is for programs that only read: Announce is refused, nothing is created, and a
	// missing path is an error.
	ReadOnly bool
	// SessionTimeout is how long a node stays registered after it died without unregistering. The
	// server limits it to between 2 and 20 of its ticks. Each call waits at most a quarter of it
	// for an answer. Default: 6 s.
	SessionTimeout time.Duration
	// StartTimeout bounds Open. If Open takes longer than half a second, it logs that it waits.
	// Default: 10 s.
	StartTimeout time.Duration
	// Relist is the period after which everything is listed again, varied by a tenth. Default: 30
	// s.
	Relist time.Duration
	// Dialer opens the connections, for example over TLS. addr has the host as written in the URL.
	// Default: TCP.
	Dialer func(ctx context.Context, addr string) (net.Conn, error)
	// Logger receives what an operator should see. Default: slog.Default().
	Logger *slog.Logger
}

const (
	scheme                = "zk://"
	defaultPort           = "2181"
	defaultPath           = "/distmsg"
	defaultSessionTimeout = 6 * time.Second
	defaultStartTimeout   = 10 * time.Second
	defaultRelist         = 30 * time.Second
	minPeriod             = 100 * time.Millisecond
)

// target is what a URL says.
type target struct {
	servers []string // host:port
	path    string   // begins with "/" and does not end with it
}

// validate returns the configuration with its defaults filled in.
func (c Config) validate() (Config, target, error) {
	to, err := parseURL(c.URL)
	if err != nil {
		return c, to, fmt.Errorf("zookeeper: %w", err)
	}
	if user, _, ok := strings.Cut(c.Auth, ":"); c.Auth != "" && (!ok || user == "") {
		return c, to, errors.New("zookeeper: the credentials are not user:password")
	}
	for _, d := range []struct {
		name           string
		value          *time.Duration
		byDefault, min time.Duration
	}{
		{"SessionTimeout", &c.SessionTimeout, defaultSessionTimeout, minPeriod},
		{"StartTimeout", &c.StartTimeout, defaultStartTimeout, minPeriod},
		{"Relist", &c.Relist, defaultRelist, minPeriod},
	} {
		if *d.value == 0 {
			*d.value = d.byDefault
		}
		if *d.value < d.min {
			return c, to, fmt.Errorf("zookeeper: %s is %v, want at least %v", d.name, *d.value, d.min)
		}
	}
	if c.Dialer == nil {
		c.Dialer = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	c.Logger = asynclog.Wrap(c.Logger).Logger // zk logs while it holds its own locks
	return c, to, nil
}

// parseURL does not use net/url, which does not support lists of hosts. Its errors do not quote the
// URL, because it may contain a password.
func parseURL(url string) (target, error) {
	rest, ok := strings.CutPrefix(url, scheme)
	if strings.Contains(url, "@") {
		return target{}, errors.New("the URL contains a user or a password: give them in a file or in the environment instead")
	}
	if !ok {
		return target{}, fmt.Errorf("%q does not look like zk://host:port,host:port/path", url)
	}
	hosts, below, _ := strings.Cut(rest, "/")
	to := target{path: strings.TrimSuffix("/"+below, "/")}
	if to.path == "" {
		to.path = defaultPath
	}
	if path.Clean(to.path) != to.path || strings.ContainsAny(to.path, "?#") {
		return target{}, fmt.Errorf("%q is not a ZooKeeper path", to.path)
	}
	for _, host := range strings.Split(hosts, ",") {
		addr, err := withPort(host)
		if err != nil {
			return target{}, fmt.Errorf("%q in %q is not host or host:port", host, url)
		}
		to.servers = append(to.servers, addr)
	}
	return to, nil
}

func withPort(host string) (string, error) {
	if !strings.Contains(host, ":") || strings.HasSuffix(host, "]") {
		host += ":" + defaultPort
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return "", err
	}
	if name == "" {
		return "", errors.New("no host")
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", err
	}
	return host, nil
}

// patience is how long a call waits for one answer at most.
func (c Config) patience() time.Duration { return c.SessionTimeout / 4 }
