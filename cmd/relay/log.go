package main

import (
	"io"
	"log/slog"
	"time"

	"distmsg/internal/asynclog"
	"distmsg/internal/cli"
)

// flushTime bounds how long the process waits at its end for the reader of stderr.
const flushTime = time.Second

// newLogger returns a logger that never waits for w.
func newLogger(level, format string, w io.Writer) (*asynclog.Logger, error) {
	var opts slog.HandlerOptions
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, cli.Usagef("--log-level %q is not debug, info, warn or error", level)
	}
	opts.Level = l
	switch format {
	case "text":
		return asynclog.Wrap(slog.New(slog.NewTextHandler(w, &opts))), nil
	case "json":
		return asynclog.Wrap(slog.New(slog.NewJSONHandler(w, &opts))), nil
	}
	return nil, cli.Usagef("--log-format %q is not text or json", format)
}
