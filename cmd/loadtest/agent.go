package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/discovery"
	"distmsg/internal/certs"
	"distmsg/internal/cli"
	"distmsg/internal/cpus"
	"distmsg/loadtest"
	"distmsg/loadtest/agents"
)

// agentOptions is the values of the flags of agent.
type agentOptions struct {
	listen, tokenFile, credentialsFile, authFile string
	tls                                          tlsFlags    // of the connections to nodes
	listenTLS                                    certs.Files // of its own port
}

// newAgent builds the command that makes load for a run elsewhere.
func newAgent(code *loadtest.ExitCode) *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Make load for run --agents, on this machine",
		Long: `Make load for run --agents, on this machine.

It serves one run at a time, until Ctrl-C. Whoever can reach it can make load from here. So it listens on this machine
only, or wants a token, which run --agent-token-file shows, or a certificate (--agent-tls-client-ca), which
run --agent-tls-cert shows. What is secret stays here: run cannot name files of this machine, and sends none. Exit
codes: 0 it was stopped, 1 runtime failure, 2 usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			*code, err = o.run(cmd)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:7460", "`address` for run --agents, host:port; one that is not of this machine alone needs --token-file\nor --agent-tls-client-ca")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with a token of 16 or more characters that run --agents has to show")
	f.StringVar(&o.listenTLS.Cert, "agent-tls-cert", "", "PEM `file` with the agent's certificate for run --agents, which must then use --agent-tls. The agent reads this file\n"+
		"and those below again when they change")
	f.StringVar(&o.listenTLS.Key, "agent-tls-key", "", "PEM `file` with the key of that certificate")
	f.StringVar(&o.listenTLS.CA, "agent-tls-client-ca", "", "PEM `file` with the authorities that sign certificates for run --agents; the agent refuses runs without one")
	f.StringVar(&o.credentialsFile, "credentials-file", "", "`file` with what the nodes ask for, such as a token; it is read before each login (drivers relay and sdk)")
	f.StringVar(&o.authFile, "discovery-auth-file", "", "`file` with ZooKeeper's user:password (default: the environment variable "+authVariable+")")
	o.tls.addTo(f)
	return cmd
}

// check rejects flags that do not belong together. It reads no file.
func (o *agentOptions) check(flags *pflag.FlagSet) error {
	if err := cli.RefuseEmpty(flags); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(o.listen)
	open := host != "localhost" && !net.ParseIP(host).IsLoopback()
	switch {
	case err != nil:
		return fmt.Errorf("--listen is %q, want host:port", o.listen)
	case (o.listenTLS.Cert == "") != (o.listenTLS.Key == ""):
		return errors.New("--agent-tls-cert and --agent-tls-key go together: give both, or neither")
	case o.listenTLS.CA != "" && o.listenTLS.Cert == "":
		return errors.New("--agent-tls-client-ca needs --agent-tls-cert and --agent-tls-key: a run shows a certificate only to an agent that has one")
	case open && o.tokenFile == "" && o.listenTLS.CA == "":
		return fmt.Errorf("--listen %s needs --token-file or --agent-tls-client-ca: anybody who can reach it could make load from here", o.listen)
	}
	return o.tls.check()
}

func (o *agentOptions) run(cmd *cobra.Command) (loadtest.ExitCode, error) {
	if err := o.check(cmd.Flags()); err != nil {
		return loadtest.ExitUsage, err
	}
	ctx, stop := interruptible()
	defer stop()
	stderr := cmd.ErrOrStderr()
	cfg, end, err := o.config(ctx, stderr)
	if err != nil {
		return loadtest.ExitUsage, err
	}
	defer end()
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return loadtest.ExitFailure, fmt.Errorf("--listen: %w", err)
	}
	cpus.Spare(1) // the driver's event loop
	say(stderr, "listening on %s\n", ln.Addr())
	if cfg.ListenTLS == nil && !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
		say(stderr, "without TLS: whoever is between here and a run can read the token (see --agent-tls-cert)\n")
	}
	if err := agents.NewAgent(cfg).Serve(ctx, ln); err != nil {
		return loadtest.ExitFailure, err
	}
	return loadtest.ExitOK, nil
}

// config reads the files. The caller calls end when the agent has ended.
func (o *agentOptions) config(ctx context.Context, stderr io.Writer) (cfg agents.AgentConfig, end func(), err error) {
	cfg = agents.AgentConfig{
		CredentialsFile: o.credentialsFile, Program: "loadtest " + cli.Version(), Discover: o.discover,
		Log: func(format string, args ...any) { say(stderr, format+"\n", args...) },
	}
	if cfg.Token, err = readToken(o.tokenFile); err != nil {
		return cfg, nil, fmt.Errorf("--token-file: %w", err)
	}
	if cfg.TLS, err = o.tls.config(); err != nil {
		return cfg, nil, err
	}
	if o.listenTLS.Cert == "" {
		return cfg, func() {}, nil
	}
	store, err := certs.Open(certs.Config{Files: o.listenTLS, Name: "agents", Logger: slog.New(slog.NewTextHandler(stderr, nil))})
	if err != nil {
		return cfg, nil, fmt.Errorf("--agent-tls-cert and the flags that go with it: %w", err)
	}
	cfg.ListenTLS = store.Server()
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { store.Run(ctx) })
	return cfg, func() { cancel(); watching.Wait() }, nil
}

// discover finds nodes for a run.
func (o *agentOptions) discover(ctx context.Context, url string) (discovery.Membership, func(), error) {
	m, _, err := openDiscovery(ctx, url, o.authFile)
	if err != nil {
		return nil, nil, err
	}
	return m, func() { m.Close() }, nil
}

// shortestToken is how many characters a token has at least. Nobody guesses so many.
const shortestToken = 16

// readToken returns the token in a file, or nothing without a file.
func readToken(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	switch {
	case len(token) < shortestToken:
		return "", fmt.Errorf("%s has a token of %d characters, want %d or more", file, len(token), shortestToken)
	case strings.ContainsAny(token, "\r\n"):
		return "", errors.New(file + " has several lines, want one token")
	}
	return token, nil
}
