package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"distmsg/discovery"
	"distmsg/internal/cli"
	"distmsg/loadtest"
	"distmsg/loadtest/agents"
)

// agentOptions is the values of the flags of agent.
type agentOptions struct {
	listen, tokenFile, credentialsFile, authFile string
	tls                                          tlsFlags
}

// newAgent builds the command that makes load for a run elsewhere.
func newAgent(code *loadtest.ExitCode) *cobra.Command {
	var o agentOptions
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Make load for run --agents, on this machine",
		Long: `Make load for run --agents, on this machine.

It serves one run at a time, until Ctrl-C. Whoever can reach it can make load from here. So it listens on this machine
only, or wants a token, which run --agent-token-file shows. What is secret stays here: run cannot name files of this
machine, and sends none. The link is HTTP without TLS: use it in a network that you trust, or in a tunnel. Exit codes:
0 it was stopped, 1 runtime failure, 2 usage.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			*code, err = o.run(cmd)
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:7460", "`address` for run --agents, host:port; one that is not of this machine alone needs --token-file")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` with a token of 16 or more characters that run --agents has to show")
	f.StringVar(&o.credentialsFile, "credentials-file", "", "`file` with what the nodes ask for, such as a token; it is read before each login (drivers relay and sdk)")
	f.StringVar(&o.authFile, "discovery-auth-file", "", "`file` with ZooKeeper's user:password (default: the environment variable "+authVariable+")")
	o.tls.addTo(f)
	return cmd
}

func (o *agentOptions) run(cmd *cobra.Command) (loadtest.ExitCode, error) {
	if err := cli.RefuseEmpty(cmd.Flags()); err != nil {
		return loadtest.ExitUsage, err
	}
	if err := o.tls.check(); err != nil {
		return loadtest.ExitUsage, err
	}
	token, err := readToken(o.tokenFile)
	if err != nil {
		return loadtest.ExitUsage, fmt.Errorf("--token-file: %w", err)
	}
	host, _, err := net.SplitHostPort(o.listen)
	switch {
	case err != nil:
		return loadtest.ExitUsage, fmt.Errorf("--listen is %q, want host:port", o.listen)
	case token == "" && host != "localhost" && !net.ParseIP(host).IsLoopback():
		return loadtest.ExitUsage, fmt.Errorf("--listen %s needs --token-file: anybody who can reach it could make load from here", o.listen)
	}
	secure, err := o.tls.config()
	if err != nil {
		return loadtest.ExitUsage, err
	}
	ln, err := net.Listen("tcp", o.listen)
	if err != nil {
		return loadtest.ExitFailure, fmt.Errorf("--listen: %w", err)
	}
	ctx, stop := interruptible()
	defer stop()
	cli.SpareP(1) // the driver's event loop
	stderr := cmd.ErrOrStderr()
	say(stderr, "listening on %s\n", ln.Addr())
	a := agents.NewAgent(agents.AgentConfig{
		Token: token, TLS: secure, CredentialsFile: o.credentialsFile, Program: "loadtest " + cli.Version(),
		Discover: func(ctx context.Context, url string) (discovery.Membership, func(), error) {
			m, _, err := openDiscovery(ctx, url, o.authFile)
			if err != nil {
				return nil, nil, err
			}
			return m, func() { m.Close() }, nil
		},
		Log: func(format string, args ...any) { say(stderr, format+"\n", args...) },
	})
	if err := a.Serve(ctx, ln); err != nil {
		return loadtest.ExitFailure, err
	}
	return loadtest.ExitOK, nil
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
