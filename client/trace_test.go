package client

import (
	"context"
	"testing"

	"distmsg/engine"
)

// A handler finds the trace of the message, and "" if it has none or one that is not valid.
func TestTrace(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	n := startNode(t, engine.Config{})
	got := make(chan string, 1)
	s := holder(t, Config{Handler: func(_ context.Context, d *Delivery) { got <- d.Trace }}, n.addr, "me")
	ctx := testContext(t)
	for sent, want := range map[string]string{trace: trace, "": "", "nonsense": ""} {
		m := Message{From: "me", To: "me", Trace: sent, Value: 1}
		if _, err := s.Send(ctx, m); err != nil {
			t.Error(err)
		}
		if heard := receive(t, got, "the send"); heard != want {
			t.Errorf("send: %q arrives as %q", sent, heard)
		}
		if _, err := s.Post(ctx, m); err != nil {
			t.Error(err)
		}
		if heard := receive(t, got, "the post"); heard != want {
			t.Errorf("post: %q arrives as %q", sent, heard)
		}
		if _, err := s.Multicast(ctx, Message{From: "me", Trace: sent}, []string{"me"}); err != nil {
			t.Error(err)
		}
		if heard := receive(t, got, "the multicast"); heard != want {
			t.Errorf("multicast: %q arrives as %q", sent, heard)
		}
	}
}
