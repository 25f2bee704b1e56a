package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/engine"
	"distmsg/internal/admin"
	"distmsg/internal/cli"
	"distmsg/internal/cpus"
	"distmsg/internal/settings"
)

func newServeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node until SIGINT or SIGTERM",
		Long: `Run a node until SIGINT or SIGTERM. The node then drains: it finishes what is under way, answers
new messages "draining", and asks its clients to leave. A second signal ends it at once. SIGHUP
reloads what can be reloaded; the log says which new values need a restart.

Each flag may also stand in the environment (DISTMSG_LOG_LEVEL for --log-level) or in the file that
--config names (log-level). The command line beats the environment, and that beats the file.`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Flags(), cmd.ErrOrStderr())
		}),
	}
	new(options).addFlags(cmd.Flags()) // load reads their values
	return cmd
}

func serve(line *pflag.FlagSet, stderr io.Writer) error {
	opts, found, err := load(line)
	if err != nil {
		return err
	}
	return found.Locate(serveWith(*opts, found, line, stderr))
}

// serveWith serves with the options that load has found for the command line.
func serveWith(opts options, found *settings.Result, line *pflag.FlagSet, stderr io.Writer) error {
	log, levels, err := newLogger(opts.logLevel, opts.logFormat, stderr)
	if err != nil {
		return err
	}
	defer log.Flush(flushTime)
	logger := log.Logger
	if err := opts.check(); err != nil {
		return err
	}
	reloads := newReloader(logger, found.Values, func() (*options, *settings.Result, error) {
		next, found, err := load(line)
		if err != nil {
			return nil, nil, err
		}
		return next, found, found.Locate(next.check())
	})
	reloads.add(reloadLevel(levels))
	warnUnknown(found, logger)
	secrets, err := readSecrets(opts, logger)
	if err != nil {
		return err
	}
	outside, err := openServices(context.Background(), opts, secrets, logger)
	if err != nil {
		return err
	}
	outside.tls.addParts(reloads)
	outside.tls.warnNames(&opts, logger)
	used, accepted := secrets.ofCluster()
	node, err := outside.newNode(context.Background(), engine.Config{
		NodeID: opts.nodeID, Addr: opts.listen, Advertise: opts.advertise, ProxyFrom: opts.proxies, Loops: opts.loops,
		ResumeWindow: opts.resumeWindow, ExpiryGrace: opts.expiryGrace, VerifyPeriod: opts.verifyPeriod,
		Logger: logger, LogLevels: levels, Spans: opts.spans(), MemoryBudget: int64(opts.memoryBudget) / connectionsPart,
		Membership: outside.membership, Cluster: opts.cluster, ClusterSecret: used, ClusterSecretsAccepted: accepted,
		PeerAddr: opts.peerListen, PeerAdvertise: opts.peerAdvertise,
	}, opts, secrets)
	if err == nil {
		outside.logins.node = node
		outside.logins.authority.addPart(reloads)
		outside.operators.tokens.addPart(reloads)
		reloads.add(reloadSecrets(node, secrets.cluster, logger))
		reloads.add(reloadLimits(node, opts.nodeLimits(), logger))
		err = operate(node, opts, outside, reloads, logger)
	}
	return errors.Join(err, outside.close())
}

// operate serves until a signal or a failure. It returns when node has ended, or at once after a
// second signal.
func operate(node *engine.Engine, opts options, outside *services, reloads *reloader, logger *slog.Logger) error {
	// From here on, this function handles signals.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	adminDone, adminAddr, err := startAdmin(ctx, node, opts, outside, logger)
	if err != nil {
		return err
	}
	if err := exportSpans(ctx, node, &opts, logger); err != nil {
		return err
	}
	loops := node.Stats().Loops
	if procs := cpus.Spare(loops); procs <= loops {
		logger.Warn("GOMAXPROCS should be greater than the number of event loops", "gomaxprocs", procs, "loops", loops)
	}
	memory := limitMemory(node.Stats().MemoryBudget)
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()

	select {
	case <-node.Ready():
	case err := <-done:
		return opts.listenError(err)
	case <-signals:
		stop()
		return <-done
	}
	greet(node, opts, adminAddr, memory, logger)
	reloading, stopReloads := context.WithCancel(ctx)
	defer stopReloads()
	outside.manager.ready(node)
	go outside.manager.watch(ctx, node)
	go outside.logins.authority.run(ctx)
	go outside.operators.tokens.run(ctx)
	go reloads.run(reloading, node, outside.manager)
	go outside.tls.run(ctx)

	select {
	case sig := <-signals:
		stopReloads()
		outside.manager.stopping()
		logger.Info("draining; a second signal ends the node at once", "signal", sig.String(), "timeout", opts.drainTimeout)
		return drain(node, opts.drainTimeout, signals, stop, done, logger)
	case err := <-done:
		return err
	case err := <-adminDone:
		stop()
		return errors.Join(err, <-done)
	}
}

// greet logs where the node listens, and what to do next.
func greet(node *engine.Engine, opts options, adminAddr, memory string, logger *slog.Logger) {
	logger.Info("relay serves", "clients", node.Addr().String(), "admin", adminAddr, "node", node.NodeID(),
		"pid", os.Getpid(), "memory", memory, "loops", node.Stats().Loops, "gomaxprocs", runtime.GOMAXPROCS(0))
	if opts.clustered() {
		logger.Info("the node is part of a cluster", "cluster", opts.cluster, "registry", opts.registry, "nodes", cmp.Or(opts.discovery, opts.peerList))
	}
	nodes := "--nodes " + reachable(node.Addr())
	if opts.discovery != "" && !opts.byDNS() { // DNS names the port for nodes
		nodes = "--discovery " + opts.discovery
	}
	if opts.tls.clients.Cert != "" {
		nodes += " --tls"
	}
	logger.Info("send load: go run ./cmd/loadtest " + nodes)
}

// echo is how long a second signal is treated as a repetition of the first. For example, timeout(1)
// signals a program and then its whole process group.
const echo = 250 * time.Millisecond

// drain lets node finish what is in progress, for at most timeout or until a second signal, and
// then stops it.
func drain(node *engine.Engine, timeout time.Duration, signals <-chan os.Signal, stop func(), done <-chan error, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	began := time.Now()
	drained := make(chan error, 1)
	go func() { drained <- node.Drain(ctx) }()

	var cutOff error
	for drained != nil || done != nil {
		select {
		case err := <-drained:
			if err != nil {
				cutOff = fmt.Errorf("drain was cut off after %v with %d sends waiting for their ack", timeout, node.Stats().Pending)
			}
			drained = nil
			stop()
		case err := <-done:
			if err != nil {
				return err
			}
			done = nil
		case <-signals:
			if time.Since(began) > echo {
				return cli.WithCode(cli.ExitCutOff, errors.New("drain was cut off by a second signal"))
			}
		}
	}
	return cli.WithCode(cli.ExitCutOff, cutOff)
}

// startAdmin serves HTTP for node, unless that is turned off. In that case nothing is ever sent on
// done.
func startAdmin(ctx context.Context, node *engine.Engine, opts options, outside *services, logger *slog.Logger) (
	done <-chan error, url string, err error) {
	addr := opts.adminListen
	if addr == noAdmin {
		return nil, noAdmin, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, "", listenError("--admin-listen", addr, err)
	}
	ended := make(chan error, 1)
	handler := admin.Handler(node, admin.Options{
		Troubles: []func() []string{outside.health}, Logins: outside.logins.authority.chain.Counts, Pprof: opts.pprof,
	})
	server := admin.Server{Handler: handler, Hosts: opts.adminHosts, Logger: logger,
		API: admin.NewAPI(node.Operator(), outside.operators.access(), logger)}
	scheme := "http://"
	if outside.tls.admin != nil {
		server.TLS, scheme = outside.tls.admin.Server(), "https://"
	}
	outside.operators.warnOpen(l.Addr(), server.TLS != nil, logger)
	go func() { ended <- server.Serve(ctx, l) }()
	return ended, scheme + l.Addr().String(), nil
}

// listenError explains why node could not start.
func (o *options) listenError(err error) error {
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil && op.Addr.String() != o.listen {
		return listenError("--peer-listen", op.Addr.String(), err)
	}
	return listenError("--listen", o.listen, err)
}

// listenError adds what to do about an address that is in use.
func listenError(flag, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s %s: the address is in use, perhaps by another relay: end that or choose another address", flag, addr)
	}
	return err
}

// reachable returns the address under which a client on this machine reaches addr.
func reachable(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return tcp.String()
}
