package otlp_test

import (
	"context"
	"log"

	"distmsg/client"
	"distmsg/client/otlp"
)

// The spans of a session go to a collector.
func Example() {
	ctx := context.Background()
	spans, err := otlp.New(otlp.Config{Collector: "http://127.0.0.1:4318", Service: "chat"})
	if err != nil {
		log.Fatal(err)
	}
	defer spans.Close(ctx)
	s, err := client.Dial(ctx, client.Config{Nodes: []string{"127.0.0.1:7400"}, OnSpan: spans.OnSpan})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close(ctx)
}
