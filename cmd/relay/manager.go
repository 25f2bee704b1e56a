package main

import (
	"context"
	"log/slog"
	"os"

	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/internal/systemd"
)

// manager tells the service manager how the node is, if one has started it. Failures are logged.
type manager struct {
	systemd *systemd.Manager
	logger  *slog.Logger
}

func newManager(logger *slog.Logger) (*manager, error) {
	m, err := systemd.FromEnvironment(os.Getenv, os.Getpid())
	return &manager{systemd: m, logger: logger}, cli.WithCode(cli.ExitUsage, err)
}

// ready says that node serves.
func (m *manager) ready(node *engine.Engine) {
	m.warn(m.systemd.Ready("serves clients on " + node.Addr().String()))
}

// reloading says that the node reloads. ready has to follow.
func (m *manager) reloading() { m.warn(m.systemd.Reloading()) }

// stopping says that the node drains.
func (m *manager) stopping() { m.warn(m.systemd.Stopping("drains")) }

// watch tells the watchdog that node lives, as long as its event loops do and until ctx ends.
func (m *manager) watch(ctx context.Context, node *engine.Engine) {
	m.systemd.Watch(ctx, node.LoopSilence, m.warn)
}

func (m *manager) warn(err error) {
	if err != nil {
		m.logger.Warn("service manager", "error", err)
	}
}
