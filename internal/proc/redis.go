package proc

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// Certificates names PEM files: an authority, and a certificate for localhost that it has signed,
// valid for servers and clients.
type Certificates struct{ CA, Cert, Key string }

// RedisOptions configures a redis-server. The zero value is good.
type RedisOptions struct {
	Program  string // a file; empty: the redis-server in PATH
	Host     *Host  // where it runs; nil: where this process does
	CPUs     CPUs   // see Command.CPUs
	Port     int    // zero: a free one
	Dir      string // where it keeps its files; empty: a temporary directory
	Password string // empty: none
	// nil: plain TCP; otherwise TLS only, and clients need a certificate, too
	TLS     *Certificates
	Persist bool     // keep data over a restart; otherwise it comes back empty
	Clock   *Clock   // its wall clock; nil: the machine's clock
	Args    []string // more of them: "--maxmemory", "10mb"
}

// Redis is a redis-server.
type Redis struct {
	*Process
	Addr string // host:port

	options RedisOptions
	tls     *tls.Config
	place   *place
}

// StartRedis starts a redis-server and waits until it answers.
func StartRedis(ctx context.Context, options RedisOptions) (*Redis, error) {
	place, err := newPlace(options.Host, options.Port, 1, options.Dir)
	if err != nil {
		return nil, err
	}
	return startRedis(ctx, place, options)
}

// startRedis starts a server on the place's first port. If that fails, it releases the place.
func startRedis(ctx context.Context, place *place, options RedisOptions) (*Redis, error) {
	r := &Redis{Addr: place.addr(0), options: options, place: place}
	var err error
	if options.TLS != nil {
		if r.tls, err = clientTLS(options.TLS); err != nil {
			place.leave()
			return nil, err
		}
	}
	r.Process, err = Start(ctx, Command{
		Path:  cmp.Or(options.Program, "redis-server"),
		Args:  redisArgs(place, options),
		Env:   options.Clock.environment(),
		Dir:   place.dir,
		Host:  place.host,
		CPUs:  options.CPUs,
		Ready: func(ctx context.Context, _ *Process) error { return r.ping(ctx) },
	})
	if err != nil {
		place.leave()
		return nil, err
	}
	return r, nil
}

func redisArgs(p *place, o RedisOptions) []string {
	args := []string{"--bind", p.host.IP(), "--dir", p.dir, "--save", "", "--daemonize", "no"}
	if p.host != nil { // clients come from other addresses, with or without a password
		args = append(args, "--protected-mode", "no")
	}
	port := strconv.Itoa(p.numbers[0])
	if o.Persist {
		args = append(args, "--appendonly", "yes", "--appendfsync", "always")
	}
	if o.Password != "" {
		args = append(args, "--requirepass", o.Password, "--masterauth", o.Password)
	}
	if o.TLS == nil {
		args = append(args, "--port", port)
	} else {
		args = append(args, "--port", "0", "--tls-port", port, "--tls-ca-cert-file", o.TLS.CA, "--tls-cert-file", o.TLS.Cert, "--tls-key-file", o.TLS.Key)
	}
	return append(args, o.Args...)
}

// URL returns the server's URL for routing/redis. It never contains a password.
func (r *Redis) URL() string {
	if r.tls != nil {
		return "rediss://" + r.Addr
	}
	return "redis://" + r.Addr
}

// Close kills the server if it runs, and removes its directory if that is temporary.
func (r *Redis) Close() {
	r.Kill()
	r.place.leave()
}

func (r *Redis) ping(ctx context.Context) error {
	_, err := r.Do(ctx, "PING")
	return err
}

// Do runs one command on a connection of its own, from the server's host, so that it works while
// the host is cut off. It returns an array as lines. It waits for 5 s at most.
func (r *Redis) Do(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := r.dial(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	in := bufio.NewReader(conn)
	if r.options.Password != "" {
		if _, err := roundTrip(conn, in, "AUTH", r.options.Password); err != nil {
			return "", err
		}
	}
	return roundTrip(conn, in, args...)
}

func (r *Redis) dial(ctx context.Context) (net.Conn, error) {
	conn, err := r.place.host.Dial(ctx, r.Addr)
	if err != nil || r.tls == nil {
		return conn, err
	}
	return tls.Client(conn, r.tls), nil
}

func roundTrip(out io.Writer, in *bufio.Reader, args ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	if _, err := io.WriteString(out, b.String()); err != nil {
		return "", err
	}
	return readReply(in)
}

// readReply reads one reply of RESP2.
func readReply(in *bufio.Reader) (string, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return "", err
	}
	kind, rest := line[0], strings.TrimRight(line[1:], "\r\n")
	switch kind {
	case '+', ':':
		return rest, nil
	case '-':
		return "", errors.New(rest)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(in, text)
		return string(text[:n]), err
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil {
			return "", err
		}
		lines := make([]string, max(0, n))
		for i := range lines {
			if lines[i], err = readReply(in); err != nil {
				return "", err
			}
		}
		return strings.Join(lines, "\n"), nil
	}
	return "", fmt.Errorf("not a reply: %q", line)
}

func clientTLS(files *Certificates) (*tls.Config, error) {
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	return &tls.Config{ServerName: "localhost", RootCAs: pool, Certificates: []tls.Certificate{pair}}, err
}
