package main

import (
	"context"
	"log/slog"

	"distmsg/engine"
	"distmsg/internal/cli"
	"distmsg/internal/otlp"
)

// spansOfLoop is how many spans an event loop holds for the exporter, which takes them once in a
// second. One takes 64 bytes.
const spansOfLoop = 4096

// spans returns how many spans an event loop holds: none without a collector.
func (o *options) spans() int {
	if o.otlpEndpoint == "" {
		return 0
	}
	return spansOfLoop
}

func (o *options) checkOTLP() error {
	if o.otlpEndpoint == "" {
		return nil
	}
	if err := otlp.CheckURL(o.otlpEndpoint); err != nil {
		return cli.Usagef("--otlp-endpoint %v", err)
	}
	return nil
}

// exportSpans exports the spans of node until ctx ends, if there is a collector.
func exportSpans(ctx context.Context, node *engine.Engine, o *options, logger *slog.Logger) error {
	if o.otlpEndpoint == "" {
		return nil
	}
	x, err := otlp.New(ctx, node, o.otlpEndpoint, cli.ReadBuild().Version, logger)
	if err == nil {
		go x.Run(ctx)
	}
	return err
}
