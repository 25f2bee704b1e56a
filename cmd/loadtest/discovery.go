package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"distmsg/discovery"
	"distmsg/discovery/dns"
	"distmsg/discovery/zookeeper"
	"distmsg/loadtest"
)

// source is what --discovery names.
type source interface {
	discovery.Membership
	Close()
}

// openDiscovery opens what --discovery names. It changes nothing there.
func openDiscovery(ctx context.Context, url, authFile string) (source, loadtest.ExitCode, error) {
	quiet := slog.New(slog.DiscardHandler)
	if strings.HasPrefix(url, "dns:") {
		if authFile != "" {
			return nil, loadtest.ExitUsage, errors.New("--discovery-auth-file works only with ZooKeeper: DNS asks for no credentials")
		}
		m, err := dns.Open(ctx, dns.Config{URL: url, Logger: quiet})
		if wrong := (*dns.ConfigError)(nil); errors.As(err, &wrong) {
			return nil, loadtest.ExitUsage, fmt.Errorf("--discovery: %w", err)
		}
		return m, loadtest.ExitFailure, err
	}
	auth := os.Getenv(authVariable)
	if authFile != "" {
		data, err := os.ReadFile(authFile)
		if err != nil {
			return nil, loadtest.ExitUsage, fmt.Errorf("--discovery-auth-file: %w", err)
		}
		auth = strings.TrimRight(string(data), "\r\n")
	}
	m, err := zookeeper.Open(ctx, zookeeper.Config{URL: url, Auth: auth, ReadOnly: true, Logger: quiet})
	code := loadtest.ExitFailure
	// Open has already said why it rejects such a URL
	if !strings.HasPrefix(url, "zk://") || strings.Contains(url, "@") {
		code = loadtest.ExitUsage
	}
	return m, code, err
}
