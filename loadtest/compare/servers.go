package compare

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"distmsg/internal/proc"
	"distmsg/loadtest"
)

// server is one that runs, and how to reach it.
type server struct {
	pid   int
	load  loadtest.Config // with what is the server's: driver, address, TLS
	close func()
}

// alsoClose makes close call f first.
func (s *server) alsoClose(f func()) {
	before := s.close
	s.close = func() {
		f()
		before()
	}
}

// stable starts servers.
type stable struct {
	programs Programs
	cpus     proc.CPUs // of the servers; empty: any
	dir      string    // for files of servers
	tls      *tls.Config
}

// start starts a server for a load.
func (s *stable) start(ctx context.Context, name string, load loadtest.Config) (*server, error) {
	if name == nodeTLS || name == natsTLS {
		load.TLS = s.tls
	}
	var run *server
	var err error
	switch kind(name) {
	case floorServer:
		load.Driver = loadtest.DriverFloor
		run, err = s.listening(ctx, load, proc.Command{Path: s.programs.Floor[0], Args: s.programs.Floor[1:]}, `clients=(\S+)`)
	case nats:
		load.Driver = loadtest.DriverNATS
		run, err = s.listening(ctx, load, s.nats(name), `Listening for client connections on (\S+)`)
	case redis:
		load.Driver = loadtest.DriverRedis
		run, err = s.redis(ctx, load)
	default:
		if name == twoNodes {
			run, err = s.cluster(ctx, load)
			break
		}
		run, err = s.node(ctx, load, name)
	}
	if err != nil {
		return nil, err
	}
	run.load.ServerPID = run.pid
	return run, nil
}

// listening starts a program that chooses a free port and prints its address.
func (s *stable) listening(ctx context.Context, load loadtest.Config, c proc.Command, pattern string) (*server, error) {
	said, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	addr := func(p *proc.Process) []string { return said.FindStringSubmatch(p.Output()) }
	c.CPUs = s.cpus
	c.Ready = func(_ context.Context, p *proc.Process) error {
		if addr(p) == nil {
			return errNotListening
		}
		return nil
	}
	p, err := proc.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	load.Nodes = []string{addr(p)[1]}
	return &server{pid: p.PID(), load: load, close: p.Kill}, nil
}

var errNotListening = errors.New("it does not say where it listens")

func (s *stable) nats(name string) proc.Command {
	// one P is its best on one CPU
	c := proc.Command{Path: s.programs.NATS, Args: []string{"-a", "127.0.0.1", "-p", "-1"}, Env: []string{"GOMAXPROCS=1"}}
	if name == natsTLS {
		c.Args = append(c.Args, "--tls", "--tlscert", s.file("cert"), "--tlskey", s.file("key"))
	}
	return c
}

func (s *stable) redis(ctx context.Context, load loadtest.Config) (*server, error) {
	r, err := proc.StartRedis(ctx, proc.RedisOptions{Program: s.programs.Redis, CPUs: s.cpus})
	if err != nil {
		return nil, err
	}
	load.Nodes = []string{r.Addr}
	return &server{pid: r.PID(), load: load, close: r.Close}, nil
}

func (s *stable) node(ctx context.Context, load loadtest.Config, name string) (*server, error) {
	loops := map[string]int{node2Loops: 2, node4Loops: 4}[name]
	o := proc.RelayOptions{Program: s.programs.Relay, CPUs: s.cpus, Flags: []string{fmt.Sprintf("--loops=%d", max(loops, 1))}}
	if name == nodeTLS {
		o.Flags = append(o.Flags, "--tls-cert", s.file("cert"), "--tls-key", s.file("key"))
	}
	r, err := proc.StartRelay(ctx, o)
	if err != nil {
		return nil, err
	}
	load.Driver, load.Nodes = loadtest.DriverRelay, []string{r.Addr}
	return &server{pid: r.PID(), load: load, close: r.Close}, nil
}

func (s *stable) file(name string) string { return filepath.Join(s.dir, name) }
