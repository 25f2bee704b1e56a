package main

import (
	"context"
	"io"
	"log/slog"
	"time"

	"distmsg/internal/asynclog"
	"distmsg/internal/cli"
)

// flushTime bounds how long the process waits at its end for the reader of stderr.
const flushTime = time.Second

// newLogger returns a logger that never waits for w, and its level, which may change at any time.
func newLogger(level, format string, w io.Writer) (*asynclog.Logger, *slog.LevelVar, error) {
	l, err := parseLevel(level)
	if err != nil {
		return nil, nil, err
	}
	current := new(slog.LevelVar)
	current.Set(l)
	opts := slog.HandlerOptions{Level: current}
	switch format {
	case "text":
		return asynclog.Wrap(slog.New(slog.NewTextHandler(w, &opts))), current, nil
	case "json":
		return asynclog.Wrap(slog.New(slog.NewJSONHandler(w, &opts))), current, nil
	}
	return nil, nil, cli.Usagef("--log-format %q is not text or json", format)
}

func parseLevel(text string) (l slog.Level, err error) {
	if l.UnmarshalText([]byte(text)) != nil {
		return 0, cli.Usagef("--log-level %q is not debug, info, warn or error", text)
	}
	return l, nil
}

// reloadLevel is the part that applies a new --log-level.
func reloadLevel(log *asynclog.Logger, current *slog.LevelVar) part {
	return part{what: "--log-level", flags: []string{"log-level"}, prepare: func(_ context.Context, next *options) (func(), error) {
		l, err := parseLevel(next.logLevel)
		if err != nil || l == current.Level() {
			return nil, err
		}
		return func() {
			current.Set(l)
			log.LevelChanged()
		}, nil
	}}
}
