package main

import (
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

	"distmsg/engine"
	"distmsg/internal/admin"
	"distmsg/internal/cli"
)

// options are the flags of relay serve.
type options struct {
	listen         string
	adminListen    string
	insecureListen bool
	loops          int
	nodeID         string
	logLevel       string
	logFormat      string
	drainTimeout   time.Duration
}

// noAdmin as --admin-listen turns the admin server off, as does an empty string.
const noAdmin = "none"

func newServeCommand() *cobra.Command {
	var opts options
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a node until SIGINT or SIGTERM",
		Long: `Run a node until SIGINT or SIGTERM. It then drains: what is under way is finished, new messages hear
"draining", and clients are told to leave. A second signal ends it at once.`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			return serve(opts, cmd.ErrOrStderr())
		}),
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:7400", "`address` for clients; port 0 picks a free one")
	flags.StringVar(&opts.adminListen, "admin-listen", "127.0.0.1:7401", "`address` for HTTP: /healthz, /readyz, /metrics; none turns it off")
	flags.BoolVar(&opts.insecureListen, "insecure-listen", false, "allow addresses that other machines can reach, without authentication")
	flags.IntVar(&opts.loops, "loops", runtime.NumCPU(), "event loops, `n` of them; the default is the number of CPUs")
	flags.StringVar(&opts.nodeID, "node-id", "", "`name` of this node (default 16 random hex digits)")
	flags.DurationVar(&opts.drainTimeout, "drain-timeout", 10*time.Second, "the longest that draining may take")
	flags.StringVar(&opts.logLevel, "log-level", "info", "`level`: debug, info, warn or error")
	flags.StringVar(&opts.logFormat, "log-format", "text", "`format`: text or json")
	return cmd
}

func serve(opts options, stderr io.Writer) error {
	logger, err := newLogger(opts.logLevel, opts.logFormat, stderr)
	if err != nil {
		return err
	}
	if opts.drainTimeout <= 0 {
		return cli.Usagef("--drain-timeout %v must be over 0", opts.drainTimeout)
	}
	addr, err := checkAddr("--listen", opts.listen, opts.insecureListen)
	if err != nil {
		return err
	}
	node, err := engine.New(engine.Config{NodeID: opts.nodeID, Addr: addr, Loops: opts.loops, Logger: logger})
	if err != nil {
		return cli.WithCode(cli.ExitUsage, err)
	}

	// From here on a signal is ours to answer.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	adminDone, adminAddr, err := startAdmin(ctx, node, opts, logger)
	if err != nil {
		return err
	}
	loops := node.Stats().Loops
	if procs := cli.SpareP(loops); procs <= loops {
		logger.Warn("GOMAXPROCS should be over the number of event loops", "gomaxprocs", procs, "loops", loops)
	}
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()

	select {
	case <-node.Ready():
	case err := <-done:
		return listenError("--listen", addr, err)
	case <-signals:
		return nil
	}
	logger.Info("relay serves", "clients", node.Addr().String(), "admin", adminAddr, "node", node.NodeID(),
		"pid", os.Getpid(), "loops", loops, "gomaxprocs", runtime.GOMAXPROCS(0))
	logger.Info("send load: go run ./cmd/loadtest --nodes " + reachable(node.Addr()))

	select {
	case sig := <-signals:
		logger.Info("draining; a second signal ends at once", "signal", sig.String(), "timeout", opts.drainTimeout)
		return drain(node, opts.drainTimeout, signals, stop, done)
	case err := <-done:
		return err
	case err := <-adminDone:
		return err
	}
}

// echo is how long a second signal is taken for the first one's: timeout(1), for one, signals a program and then its
// whole process group.
const echo = 250 * time.Millisecond

// drain lets node finish what is under way, for at most timeout or until a second signal, and stops it.
func drain(node *engine.Engine, timeout time.Duration, signals <-chan os.Signal, stop func(), done <-chan error) error {
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

// startAdmin serves HTTP for node, unless it is turned off; addr then is noAdmin, and done never answers.
func startAdmin(ctx context.Context, node *engine.Engine, opts options, logger *slog.Logger) (done <-chan error, addr string, err error) {
	if opts.adminListen == "" || opts.adminListen == noAdmin {
		return nil, noAdmin, nil
	}
	addr, err = checkAddr("--admin-listen", opts.adminListen, opts.insecureListen)
	if err != nil {
		return nil, "", err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, "", listenError("--admin-listen", addr, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- admin.Serve(ctx, l, admin.Handler(node), logger) }()
	return ended, "http://" + l.Addr().String(), nil
}

func newLogger(level, format string, w io.Writer) (*slog.Logger, error) {
	var opts slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, cli.Usagef("--log-level %q is not debug, info, warn or error", level)
	}
	opts.Level = l
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, &opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, &opts)), nil
	}
	return nil, cli.Usagef("--log-format %q is not text or json", format)
}

// checkAddr resolves an address to listen on, once, so that what was judged is what will be used.
func checkAddr(flag, addr string, insecure bool) (string, error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return "", cli.Usagef("%s %q is not host:port: %v", flag, addr, err)
	}
	if !tcp.IP.IsLoopback() && !insecure {
		return "", cli.Usagef("%s %s can be reached from other machines and nobody has to authenticate: "+
			"listen on 127.0.0.1 or [::1], or add --insecure-listen", flag, addr)
	}
	return tcp.String(), nil
}

// listenError says what to do about an address that is taken.
func listenError(flag, addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s %s: the address is in use, perhaps by another relay: end that or choose another address", flag, addr)
	}
	return err
}

// reachable is where a client on this machine finds addr.
func reachable(addr net.Addr) string {
	tcp := addr.(*net.TCPAddr)
	if tcp.IP.IsUnspecified() {
		return net.JoinHostPort("localhost", strconv.Itoa(tcp.Port))
	}
	return tcp.String()
}
