package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"
)

// Scheme is what the URL of a list of nodes in DNS begins with.
const Scheme = "dns://"

// Config says what to look up. The zero value of each field stands for the default that its comment
// names; only URL must be set.
type Config struct {
	// URL is dns://NAME:PORT for a name with A or AAAA records, or dns://NAME for a name with SRV
	// records, as in dns://_peer._tcp.relay.default.svc. It may end with options:
	// ?server=HOST:PORT names the DNS server, by default those of the system, and refresh=5s sets
	// Refresh.
	URL string
	// Refresh is the pause between two lookups, varied by a fifth. Default: 5 s.
	Refresh time.Duration
	// Timeout bounds one round of lookups. Default: 5 s.
	Timeout time.Duration
	// StartTimeout bounds how long Open tries to get an answer. Default: 10 s.
	StartTimeout time.Duration
	// Logger receives what an operator should see. Default: slog.Default().
	Logger *slog.Logger
}

const (
	defaultRefresh      = 5 * time.Second
	defaultTimeout      = 5 * time.Second
	defaultStartTimeout = 10 * time.Second
	minPeriod           = 100 * time.Millisecond
)

// target is what a URL says.
type target struct {
	name   string
	port   string // of every node; "": SRV records say it
	server string // host:port of the DNS server; "": those of the system
}

// validate returns the configuration with its defaults filled in.
func (c Config) validate() (Config, target, error) {
	to, refresh, err := parseURL(c.URL)
	if err != nil {
		return c, to, fmt.Errorf("dns: %w", err)
	}
	if c.Refresh == 0 {
		c.Refresh = refresh
	}
	for _, d := range []struct {
		name      string
		value     *time.Duration
		byDefault time.Duration
	}{{"refresh", &c.Refresh, defaultRefresh}, {"Timeout", &c.Timeout, defaultTimeout}, {"StartTimeout", &c.StartTimeout, defaultStartTimeout}} {
		if *d.value == 0 {
			*d.value = d.byDefault
		}
		if *d.value < minPeriod {
			return c, to, fmt.Errorf("dns: %s is %v, want at least %v", d.name, *d.value, minPeriod)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, to, nil
}

func parseURL(text string) (to target, refresh time.Duration, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "dns" || u.Hostname() == "" || u.Opaque != "" {
		return to, 0, fmt.Errorf("%q does not look like dns://NAME:PORT or dns://NAME", text)
	}
	if u.User != nil || u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return to, 0, fmt.Errorf("%q has more than a name, a port and options", text)
	}
	to.name, to.port = u.Hostname(), u.Port()
	if n, err := strconv.ParseUint(to.port, 10, 16); to.port != "" && (err != nil || n == 0) {
		return to, 0, fmt.Errorf("%q has no port from 1 to 65535", text)
	}
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return to, 0, fmt.Errorf("%q: its options cannot be read: %w", text, err)
	}
	for name, values := range options {
		value := values[len(values)-1]
		switch name {
		case "server":
			if to.server, err = withPort(value); err != nil {
				return to, 0, fmt.Errorf("server=%s: want HOST:PORT of a DNS server", value)
			}
		case "refresh":
			if refresh, err = time.ParseDuration(value); err != nil || refresh <= 0 {
				return to, 0, fmt.Errorf("refresh=%s: want a time like 5s", value)
			}
		default:
			return to, 0, fmt.Errorf("%q has the unknown option %s: there are server and refresh", text, name)
		}
	}
	return to, refresh, nil
}

// withPort adds DNS's port to an address without one.
func withPort(addr string) (string, error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(addr, "53")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" {
		return "", errors.New("no address")
	}
	return addr, nil
}

// resolver returns what looks names up.
func (t target) resolver() *net.Resolver {
	if t.server == "" {
		return net.DefaultResolver
	}
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, t.server)
			if err == nil { // the resolver itself waits for 5 s, whatever becomes of ctx
				context.AfterFunc(ctx, func() { _ = conn.Close() })
			}
			return conn, err
		},
	}
}
