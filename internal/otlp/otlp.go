// Package otlp sends the spans of a node to a collector of OpenTelemetry, by OTLP over HTTP.
package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"distmsg/engine"
)

const (
	// period is how often the exporter asks for spans. What a loop makes in between must fit its
	// buffer, see engine.Config.Spans.
	period = time.Second
	// timeout bounds one request to the collector.
	timeout = 5 * time.Second
	// tracesPath is the path of a collector whose URL has none.
	tracesPath = "/v1/traces"
)

// Node is the part of an *engine.Engine that the exporter uses.
type Node interface {
	NodeID() string
	TakeSpans(all []engine.Span) []engine.Span
}

// Exporter sends spans to a collector. One goroutine may use it.
type Exporter struct {
	node     Node
	client   *otlptrace.Exporter
	tracer   trace.Tracer
	ended    ended
	logger   *slog.Logger
	failures int // in a row
}

// CheckURL returns what is wrong with the URL of a collector, or nil.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("%q is not a URL such as http://127.0.0.1:4318", text)
	}
	return nil
}

// New returns an exporter of the node's spans. collector is a URL that CheckURL accepts. Its path
// is /v1/traces if it has none.
func New(ctx context.Context, node Node, collector, version string, logger *slog.Logger) (*Exporter, error) {
	if err := CheckURL(collector); err != nil {
		return nil, err
	}
	u, _ := url.Parse(collector)
	if u.Path == "" || u.Path == "/" {
		u.Path = tracesPath
	}
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{Enabled: false}))
	if err != nil {
		return nil, fmt.Errorf("otlp: %w", err)
	}
	x := &Exporter{node: node, client: client, logger: logger}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(&x.ended), sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", "distmsg-relay"),
			attribute.String("service.instance.id", node.NodeID()),
			attribute.String("service.version", version),
		)))
	x.tracer = provider.Tracer("distmsg/internal/otlp")
	return x, nil
}

// Run exports spans once in a second until ctx ends. What a collector does not take is lost: it is
// tried once.
func (x *Exporter) Run(ctx context.Context) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	var spans []engine.Span
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		spans = x.node.TakeSpans(spans[:0])
		x.export(ctx, spans)
	}
}

// export sends spans. The log has a line for the first failure in a row, and one when the collector
// works again.
func (x *Exporter) export(ctx context.Context, spans []engine.Span) {
	if len(spans) == 0 {
		return
	}
	for i := range spans {
		x.translate(ctx, &spans[i])
	}
	batch := x.ended.spans
	x.ended.spans = nil
	err := x.client.ExportSpans(ctx, batch)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if x.failures++; x.failures == 1 {
			x.logger.Warn("the collector does not take spans; they are lost until it does", "spans", len(batch), "error", err)
		}
	case x.failures > 0:
		x.logger.Info("the collector takes spans again", "failures", x.failures)
		x.failures = 0
	}
}

// translate makes a span of OpenTelemetry. The sender of the message made its parent.
func (x *Exporter) translate(ctx context.Context, s *engine.Span) {
	parent := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(s.Trace[1:17]), SpanID: trace.SpanID(s.Trace[17:25]), TraceFlags: trace.TraceFlags(s.Trace[25]), Remote: true,
	})
	name := "distmsg deliver"
	if s.Forwarded {
		name = "distmsg forward"
	}
	_, span := x.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), name, trace.WithTimestamp(s.Began),
		trace.WithAttributes(attribute.String("messaging.system", "distmsg"), attribute.Int("messaging.batch.message_count", s.Recipients)))
	span.End(trace.WithTimestamp(s.Ended))
}

// ended gathers the spans that have ended. It is the span processor of one exporter, and belongs to
// its goroutine.
type ended struct{ spans []sdktrace.ReadOnlySpan }

func (*ended) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (e *ended) OnEnd(s sdktrace.ReadOnlySpan) { e.spans = append(e.spans, s) }

func (*ended) Shutdown(context.Context) error { return nil }

func (*ended) ForceFlush(context.Context) error { return nil }
