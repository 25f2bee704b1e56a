package main

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"

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
	from := otlp.Resource{Service: "distmsg-relay", Instance: node.NodeID(), Version: cli.ReadBuild().Version}
	x, err := otlp.New(ctx, from, o.otlpEndpoint, logger)
	if err == nil {
		go x.Run(ctx, (&spanSource{node: node}).take)
	}
	return err
}

// spanSource takes the spans of a node. The goroutine of its exporter owns it.
type spanSource struct {
	node  *engine.Engine
	taken []engine.Span // for reuse
}

// take appends the spans that the node has made.
func (s *spanSource) take(all []otlp.Span) []otlp.Span {
	s.taken = s.node.TakeSpans(s.taken[:0])
	for i := range s.taken {
		v := &s.taken[i]
		name := "distmsg deliver"
		if v.Forwarded {
			name = "distmsg forward"
		}
		all = append(all, otlp.Span{
			Parent: v.Trace, Name: name, Kind: trace.SpanKindInternal, Began: v.Began, Ended: v.Ended, Recipients: v.Recipients,
		})
	}
	return all
}
