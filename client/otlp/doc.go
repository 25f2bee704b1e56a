// Package otlp sends the spans of sessions to a collector of OpenTelemetry, by OTLP over HTTP.
//
//	spans, err := otlp.New(otlp.Config{Collector: "http://127.0.0.1:4318", Service: "chat"})
//	…
//	session, err := client.Dial(ctx, client.Config{OnSpan: spans.OnSpan, …})
//	…
//	session.Close(ctx)
//	spans.Close(ctx)
//
// It is a package of its own so that programs without it do not link OpenTelemetry. A program that
// has an exporter already needs only client.Config.OnSpan: a client.Span has the IDs, the times and
// the outcome.
package otlp
