package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"distmsg/engine"
	"distmsg/internal/settings"
)

// part is something that a running node can reload: a SIGHUP applies its new files and values
// without a restart.
type part struct {
	// what names the part in the log, as in "the certificate for clients".
	what string
	// flags are those whose new values prepare and commit apply, without --. Others need a restart.
	flags []string
	// prepare reads and checks all that commit will apply, and changes nothing. next holds the
	// values that a start would have now. prepare may block, but has to bound for how long. A nil
	// commit means that nothing has changed. commit must not fail.
	prepare func(ctx context.Context, next *options) (commit func(), err error)
}

// reloader reloads the parts of a node, all of them or none. Parts are added before run; after
// that, its fields belong to the goroutine of run.
type reloader struct {
	logger  *slog.Logger
	running map[string]settings.Value // what the node runs with
	// read returns the values that a start would have now. They have been checked.
	read  func() (*options, *settings.Result, error)
	parts []part
	hups  chan os.Signal
}

// newReloader returns a reloader without parts, of a node that runs with values. From now on,
// SIGHUP does not end the process.
func newReloader(logger *slog.Logger, values []settings.Value, read func() (*options, *settings.Result, error)) *reloader {
	r := &reloader{logger: logger, running: make(map[string]settings.Value), read: read, hups: make(chan os.Signal, 1)}
	for _, v := range values {
		r.running[v.Name] = v
	}
	signal.Notify(r.hups, syscall.SIGHUP)
	return r
}

// add adds a part. Parts are prepared and committed in the order in which they were added.
func (r *reloader) add(p part) { r.parts = append(r.parts, p) }

// run reloads on each SIGHUP until ctx ends, and notifies m.
func (r *reloader) run(ctx context.Context, node *engine.Engine, m *manager) {
	for {
		select {
		case <-r.hups:
			m.reloading()
			r.reload(ctx)
			m.ready(node)
		case <-ctx.Done():
			return
		}
	}
}

// reload prepares all parts. If that succeeds, it commits them. If one of them fails, nothing
// changes, and the log says why.
func (r *reloader) reload(ctx context.Context) {
	next, found, err := r.read()
	if err != nil {
		r.logger.Error("reload failed, nothing has changed", "error", err)
		return
	}
	var commits []func()
	var reloaded []string
	var failed []error
	for _, p := range r.parts {
		commit, err := p.prepare(ctx, next)
		switch {
		case err != nil:
			failed = append(failed, fmt.Errorf("%s: %w", p.what, err))
		case commit != nil:
			commits, reloaded = append(commits, commit), append(reloaded, p.what)
		}
	}
	if err := found.Locate(errors.Join(failed...)); err != nil {
		r.logger.Error("reload failed, nothing has changed", "error", err)
		return
	}
	for _, commit := range commits {
		commit()
	}
	r.logger.Info("reloaded", "changed", reloaded)
	r.compare(found.Values)
}

// compare logs which new values need a restart.
func (r *reloader) compare(values []settings.Value) {
	for _, v := range values {
		old, known := r.running[v.Name]
		switch {
		case known && old.Text == v.Text:
		case slices.ContainsFunc(r.parts, func(p part) bool { return slices.Contains(p.flags, v.Name) }):
			r.running[v.Name] = v
		case known:
			r.logger.Warn("a new value needs a restart", "flag", "--"+v.Name, "running", old.Text, "new", v.Text, "from", v.Origin)
		}
	}
}
