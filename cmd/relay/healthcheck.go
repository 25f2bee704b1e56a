package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"distmsg/internal/cli"
)

// maxAnswer bounds how much of a node's answer is read.
const maxAnswer = 4 << 10

// newHealthcheckCommand returns relay healthcheck, for containers that hold nothing else to ask a
// node with. It takes the flags of relay serve.
func newHealthcheckCommand(serve *pflag.FlagSet) *cobra.Command {
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "Ask the node on this machine whether it accepts clients",
		Long: `Ask the node on this machine whether it accepts clients: /readyz at its --admin-listen. The flag, the
environment and the file with the settings say where that is, as for relay serve. The exit code is 0
if the node accepts clients. Otherwise it is 1, and the output says why.`,
		Args: cobra.NoArgs,
		RunE: cli.RunE(func(cmd *cobra.Command, _ []string) error {
			opts, found, err := load(cmd.Flags())
			if err != nil {
				return err
			}
			url, err := probeURL(opts.adminListen, live)
			if err != nil {
				return found.Locate(err)
			}
			if opts.tls.admin.Cert != "" {
				url = "https" + strings.TrimPrefix(url, "http")
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			answer, err := probe(ctx, url)
			if err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), answer)
			return err
		}),
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&live, "live", false, "ask only whether the process answers (/healthz), and print what it lacks")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer")
	cmd.Flags().AddFlagSet(serve)
	return cmd
}

// probeURL returns where a node that listens on adminListen answers, as seen from its machine.
func probeURL(adminListen string, live bool) (string, error) {
	if adminListen == "" || adminListen == noAdmin {
		return "", cli.Usagef("--admin-listen is %s: a node without its admin port cannot be asked", noAdmin)
	}
	host, port, err := net.SplitHostPort(adminListen)
	if err != nil {
		return "", cli.Usagef("--admin-listen %q is not host:port: give an address like 127.0.0.1:7401", adminListen)
	}
	if port == "0" {
		return "", cli.Usagef("--admin-listen %s picks a free port: give the one that the node listens on", adminListen)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	path := "/readyz"
	if live {
		path = "/healthz"
	}
	return "http://" + net.JoinHostPort(host, port) + path, nil
}

// probe returns the node's answer if its status is 200.
func probe(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	// Without a proxy, and with any certificate, because the node is on this machine. The request
	// has no secret.
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return "", fmt.Errorf("the node does not answer: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return "", fmt.Errorf("the node's answer ends early: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", url, strings.TrimSpace(string(body)))
	}
	return string(body), nil
}
