package otlp

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"distmsg/client"
	"distmsg/codec"
	export "distmsg/internal/otlp"
)

// Config configures an exporter. Collector and Service must be set.
type Config struct {
	// Collector is its URL, such as http://127.0.0.1:4318. Its path is /v1/traces if it has none.
	// Credentials for it come from the environment (OTEL_EXPORTER_OTLP_HEADERS).
	Collector string
	Service   string // the service.name of the spans: which program this is
	Instance  string // the service.instance.id: which of its processes. Default: left out
	Version   string // the service.version. Default: left out
	// Logger gets a line when the collector does not take spans, and one when it does again.
	// Default: slog.Default().
	Logger *slog.Logger
}

// maxWaiting is how many spans wait for the collector, which gets them once in a second.
const maxWaiting = 1 << 14

// Exporter sends spans to a collector. Sessions may share one.
type Exporter struct {
	client *export.Exporter
	stop   context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended

	mu      sync.Mutex
	waiting []export.Span
	dropped uint64
}

// New returns an exporter, and starts a goroutine that ends with Close. It does not connect to the
// collector before there are spans. An error says what is wrong with cfg.
func New(cfg Config) (*Exporter, error) {
	if cfg.Service == "" {
		return nil, errors.New("otlp: Config.Service is empty: it tells the spans of this program from others")
	}
	if err := export.CheckURL(cfg.Collector); err != nil {
		return nil, errors.New("otlp: Config.Collector: " + err.Error())
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	from := export.Resource{Service: cfg.Service, Instance: cfg.Instance, Version: cfg.Version}
	out, err := export.New(context.Background(), from, cfg.Collector, cfg.Logger)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	x := &Exporter{client: out, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(x.done)
		out.Run(ctx, x.take)
	}()
	return x, nil
}

// OnSpan queues a span. It is for client.Config.OnSpan. While 16,384 spans wait for the collector,
// it drops further ones. It never blocks. Any goroutine may call it.
func (x *Exporter) OnSpan(s client.Span) {
	v := export.Span{
		ID: s.ID, Name: name(s.Kind), Kind: trace.SpanKindProducer, Began: s.Began, Ended: s.Ended,
		To: s.To, Recipients: s.Recipients, Failed: s.Failed, Code: s.Code, Parent: parentOf(&s),
	}
	if s.Kind == client.SpanHandler {
		v.Kind = trace.SpanKindConsumer
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.waiting) == maxWaiting {
		x.dropped++
		return
	}
	x.waiting = append(x.waiting, v)
}

// Dropped returns how many spans were dropped. Any goroutine may call it.
func (x *Exporter) Dropped() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.dropped
}

// Close sends what waits and ends the exporter. Close the sessions first. It returns an error if
// ctx ends before the collector has got the spans.
func (x *Exporter) Close(ctx context.Context) error {
	x.stop()
	<-x.done
	x.client.Export(ctx, x.take(nil))
	return ctx.Err()
}

// take appends the spans that wait.
func (x *Exporter) take(all []export.Span) []export.Span {
	x.mu.Lock()
	defer x.mu.Unlock()
	all = append(all, x.waiting...)
	clear(x.waiting) // it holds strings
	x.waiting = x.waiting[:0]
	return all
}

func name(kind client.SpanKind) string {
	switch kind {
	case client.SpanPost:
		return "distmsg post"
	case client.SpanHandler:
		return "distmsg handle"
	}
	return "distmsg send"
}

// parentOf returns the trace with the parent of s.
func parentOf(s *client.Span) (t [codec.TraceLen]byte) {
	copy(t[1:], s.TraceID[:])
	copy(t[17:], s.Parent[:])
	t[25] = s.Flags
	return t
}
