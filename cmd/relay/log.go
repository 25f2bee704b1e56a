package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"distmsg/internal/asynclog"
	"distmsg/internal/cli"
	"distmsg/internal/loglevel"
)

// flushTime bounds how long the process waits at its end for the reader of stderr.
const flushTime = time.Second

// newLogger returns a logger that never waits for w, and its levels, which may change at any time.
func newLogger(level, format string, w io.Writer) (*asynclog.Logger, *loglevel.Levels, error) {
	if err := checkLevel(level); err != nil {
		return nil, nil, err
	}
	levels, err := loglevel.New(level)
	if err != nil {
		return nil, nil, err
	}
	opts := slog.HandlerOptions{Level: slog.LevelDebug}
	switch format {
	case "text":
		return asynclog.Wrap(slog.New(levels.Handler(slog.NewTextHandler(w, &opts)))), levels, nil
	case "json":
		return asynclog.Wrap(slog.New(levels.Handler(slog.NewJSONHandler(w, &opts)))), levels, nil
	}
	return nil, nil, cli.Usagef("--log-format %q is not text or json", format)
}

func checkLevel(text string) error {
	if err := loglevel.Check(text); err != nil {
		return cli.Usagef("--log-level %w", err)
	}
	return nil
}

// reloadLevel is the part that applies a new --log-level.
func reloadLevel(levels *loglevel.Levels) part {
	applied := levels.String() // somebody may set other levels later: they stay if the flag does
	return part{what: "--log-level", flags: []string{"log-level"}, prepare: func(_ context.Context, next *options) (func(), error) {
		if err := checkLevel(next.logLevel); err != nil || next.logLevel == applied {
			return nil, err
		}
		return func() {
			applied = next.logLevel
			_ = levels.Set(applied) // it was checked
		}, nil
	}}
}

// component returns the logger of a component, which may have a level of its own.
func component(logger *slog.Logger, name string) *slog.Logger { return logger.With(loglevel.Key, name) }
