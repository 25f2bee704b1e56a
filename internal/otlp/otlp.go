// Package otlp sends the spans of a node, or of an app server, to a collector of OpenTelemetry, by
// OTLP over HTTP.
package otlp

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"distmsg/codec"
)

const (
	// Period is how often Run asks for spans. What is made in between must fit the buffers of those
	// who make it.
	Period = time.Second
	// timeout bounds one request to the collector.
	timeout = 5 * time.Second
	// tracesPath is the path of a collector whose URL has none.
	tracesPath = "/v1/traces"
)

// Span is what is exported. Zero fields are left out.
type Span struct {
	Parent       [codec.TraceLen]byte // the trace, with the parent of this span
	ID           [8]byte              // of this span; zero: the exporter makes one
	Name         string
	Kind         trace.SpanKind
	Began, Ended time.Time
	To           string     // the receiver's ID
	Recipients   int        // how many receivers the message had
	Failed       int        // for how many of them it failed: the span is one of an error
	Code         codec.Code // the outcome
}

// Resource says where spans come from.
type Resource struct{ Service, Instance, Version string }

// Exporter sends spans to a collector. One goroutine at a time may use it.
type Exporter struct {
	client   *otlptrace.Exporter
	tracer   trace.Tracer
	ids      ids
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
	if u.User != nil {
		return errors.New("the URL has credentials: give them in the environment, in OTEL_EXPORTER_OTLP_HEADERS")
	}
	return nil
}

// New returns an exporter. collector is a URL that CheckURL accepts. Its path is /v1/traces if it
// has none.
func New(ctx context.Context, from Resource, collector string, logger *slog.Logger) (*Exporter, error) {
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
	var about []attribute.KeyValue
	for _, v := range [][2]string{
		{"service.name", from.Service}, {"service.instance.id", from.Instance}, {"service.version", from.Version},
	} {
		if v[1] != "" {
			about = append(about, attribute.String(v[0], v[1]))
		}
	}
	x := &Exporter{client: client, logger: logger}
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(&x.ended), sdktrace.WithIDGenerator(&x.ids),
		sdktrace.WithSampler(sdktrace.AlwaysSample()), sdktrace.WithResource(resource.NewSchemaless(about...)))
	x.tracer = provider.Tracer("distmsg/internal/otlp")
	return x, nil
}

// Run exports what take appends, once in a second until ctx ends. What a collector does not take is
// lost: it is tried once.
func (x *Exporter) Run(ctx context.Context, take func(all []Span) []Span) {
	ticker := time.NewTicker(Period)
	defer ticker.Stop()
	var spans []Span
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		spans = take(spans[:0])
		x.Export(ctx, spans)
	}
}

// Export sends spans. The log has a line for the first failure in a row, and one when the collector
// works again.
func (x *Exporter) Export(ctx context.Context, spans []Span) {
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
func (x *Exporter) translate(ctx context.Context, s *Span) {
	parent := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(s.Parent[1:17]), SpanID: trace.SpanID(s.Parent[17:25]), TraceFlags: trace.TraceFlags(s.Parent[25]), Remote: true,
	})
	about := []attribute.KeyValue{attribute.String("messaging.system", "distmsg"), attribute.Int("messaging.batch.message_count", s.Recipients)}
	if s.To != "" {
		about = append(about, attribute.String("messaging.destination.name", s.To))
	}
	if s.Code != 0 {
		about = append(about, attribute.String("distmsg.outcome", s.Code.String()))
	}
	if s.Failed > 0 {
		about = append(about, attribute.Int("distmsg.failed", s.Failed))
	}
	x.ids.next = s.ID
	_, span := x.tracer.Start(trace.ContextWithRemoteSpanContext(ctx, parent), s.Name, trace.WithTimestamp(s.Began),
		trace.WithSpanKind(s.Kind), trace.WithAttributes(about...))
	if s.Failed > 0 {
		span.SetStatus(codes.Error, s.Code.String())
	}
	span.End(trace.WithTimestamp(s.Ended))
}

// ids gives the next span its ID. It belongs to the goroutine of one exporter.
type ids struct{ next trace.SpanID }

// NewIDs implements sdktrace.IDGenerator. The spans of messages have parents, and so trace IDs.
func (g *ids) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdktrace.IDGenerator.
func (g *ids) NewSpanID(context.Context, trace.TraceID) (id trace.SpanID) {
	id, g.next = g.next, trace.SpanID{}
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:], rand.Uint64())
	}
	return id
}

// ended gathers the spans that have ended. It is the span processor of one exporter, and belongs to
// its goroutine.
type ended struct{ spans []sdktrace.ReadOnlySpan }

func (*ended) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (e *ended) OnEnd(s sdktrace.ReadOnlySpan) { e.spans = append(e.spans, s) }

func (*ended) Shutdown(context.Context) error { return nil }

func (*ended) ForceFlush(context.Context) error { return nil }
