package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/internal/dialing"
)

// endedContexts are contexts that have ended, by what errors.Is says of them.
func endedContexts(t *testing.T) map[error]context.Context {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	t.Cleanup(cancelLate)
	return map[error]context.Context{context.Canceled: canceled, context.DeadlineExceeded: late}
}

// TestEndedContext: a context that has ended before the call does nothing, and is the error.
func TestEndedContext(t *testing.T) {
	n := startNode(t, engine.Config{})
	kicks := make(chan Kick, 10)
	got := make(chan string, 10)
	holder := dial(t, Config{
		OnKick:  func(k Kick) { kicks <- k },
		Handler: func(_ context.Context, d *Delivery) { got <- string(d.Payload) },
	}, n.addr)
	if err := holder.Bind(testContext(t), "you"); err != nil {
		t.Fatal(err)
	}
	watched := make(chan []Presence, 10)
	s := dial(t, Config{OnPresence: func(p []Presence) { watched <- p }}, n.addr)
	if err := s.Bind(testContext(t), "me"); err != nil {
		t.Fatal(err)
	}
	m := Message{From: "me", To: "you", Payload: []byte("late")}
	many := Message{From: "me", Payload: []byte("late")}
	before := s.Stats()
	for want, ctx := range endedContexts(t) {
		for name, call := range map[string]func() error{
			"Dial":     func() error { _, err := Dial(ctx, Config{Nodes: []string{n.addr}}); return err },
			"Bind":     func() error { return s.Bind(ctx, "you") },
			"Bind bad": func() error { return s.Bind(ctx, "") },
			"Unbind":   func() error { return s.Unbind(ctx, "me") },
			"Lookup":   func() error { _, err := s.Lookup(ctx, "you"); return err },
			"Watch":    func() error { _, err := s.Watch(ctx, "you"); return err },
			"Send":     func() error { _, err := s.Send(ctx, m); return err },
			"SendAsync": func() error {
				done := make(chan error, 1)
				s.SendAsync(ctx, m, func(_ Reply, err error) { done <- err })
				return receive(t, done, "the callback")
			},
			"Post":      func() error { _, err := s.Post(ctx, m); return err },
			"Multicast": func() error { _, err := s.Multicast(ctx, many, []string{"you", ""}); return err },
			"MulticastAsync": func() error {
				done := make(chan error, 1)
				s.MulticastAsync(ctx, many, []string{"you"}, func(_ []Result, err error) { done <- err })
				return receive(t, done, "the callback")
			},
			"PostMulticast": func() error { _, err := s.PostMulticast(ctx, many, []string{"you"}); return err },
		} {
			err := call()
			if !errors.Is(err, want) || errors.As(err, new(*Error)) {
				t.Errorf("%s with a context that has ended (%v): %v", name, want, err)
			}
		}
	}
	if _, err := s.Send(testContext(t), Message{From: "me", To: "you", Payload: []byte("now")}); err != nil {
		t.Error(err)
	}
	if text := receive(t, got, "the message"); text != "now" {
		t.Errorf("%q was delivered", text)
	}
	if _, held := holder.Epoch("you"); !held || len(kicks) > 0 {
		t.Errorf("the holder has been kicked: held %v, %d kicks", held, len(kicks))
	}
	if _, held := s.Epoch("me"); !held {
		t.Error("me was unbound")
	}
	after := s.Stats()
	if after.Sent != before.Sent+1 || after.Posted != before.Posted || after.Watched != 0 || len(after.Outcomes) != 1 {
		t.Errorf("something was done: %+v", after)
	}
}

// TestContextIsWhy: whenever the context of a call is why it failed, errors.Is says so, whoever
// noticed first.
func TestContextIsWhy(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{MaxInFlight: 100})
	bindFake(t, s, c, "me")
	for _, code := range []codec.Code{codec.CodeTimeout, codec.CodeExpired} {
		// The node is quicker than the context's timer, as it now and then is.
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		sent, async, many := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.Send(ctx, Message{From: "me", To: "you"}); sent <- err }()
		c.outcome(c.expectSend().Seq, code)
		s.SendAsync(ctx, Message{From: "me", To: "you"}, func(_ Reply, err error) { async <- err })
		c.outcome(c.expectSend().Seq, code)
		s.MulticastAsync(ctx, Message{From: "me"}, []string{"you"}, func(r []Result, _ error) { many <- r[0].Err })
		var f codec.Multicast
		if err := codec.DecodeMulticast(c.expect(codec.KindMulticast), 10, &f); err != nil {
			t.Fatal(err)
		}
		c.outcome(f.Seq, code)
		for what, got := range map[string]chan error{"Send": sent, "SendAsync": async, "MulticastAsync": many} {
			err := receive(t, got, what)
			if !errors.Is(err, &Error{Code: code}) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s that ended %v: %v, without the context's error", what, code, err)
			}
		}
		// A time to live is no context, and neither is the node's limit.
		short := make(chan error, 1)
		s.SendAsync(ctx, Message{From: "me", To: "you", TTL: time.Second}, func(_ Reply, err error) { short <- err })
		c.outcome(c.expectSend().Seq, code)
		if err := receive(t, short, "SendAsync"); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the TTL was why, not %v", err)
		}
		cancel()
	}

	// A bind and a lookup that the node does not answer.
	for want, begin := range map[error]func() (context.Context, context.CancelFunc){
		context.DeadlineExceeded: func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 50*time.Millisecond)
		},
		context.Canceled: func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(50*time.Millisecond, cancel)
			return ctx, cancel
		},
	} {
		for name, call := range map[string]func(context.Context) error{
			"Bind":   func(ctx context.Context) error { return s.Bind(ctx, "x") },
			"Unbind": func(ctx context.Context) error { return s.Unbind(ctx, "me") },
			"Lookup": func(ctx context.Context) error {
				found, err := s.Lookup(ctx, "x", "")
				if len(found) != 2 || found[0].Code != codec.CodeTimeout || found[1].Code != codec.CodeBadID {
					t.Errorf("found %v", found)
				}
				return err
			},
		} {
			ctx, cancel := begin()
			if err := call(ctx); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", name, err, want)
			}
			cancel()
		}
	}
}

// TestBindOfManyFrames: when the context ends, the frames of a long Bind that have not been written
// stay unwritten.
func TestBindOfManyFrames(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	ids := make([]string, 2*pipeline*int(fakeLimits.MaxIDs))
	for i := range ids {
		ids[i] = string(rune('a'+i%26)) + string(rune('a'+i/26))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Bind(ctx, ids...) }()
	for range pipeline {
		c.expectBind()
	}
	cancel()
	err := receive(t, done, "the bind")
	var failed *IDError
	if !errors.As(err, &failed) || len(failed.Failed) != len(ids) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if last := failed.Failed[len(ids)-1].Err; last.Code != codec.CodeExpired || !errors.Is(last, context.Canceled) {
		t.Errorf("the last, which was not asked for: %v", last)
	}
	// Behind the frames of that Bind comes this one.
	go func() { done <- s.Bind(t.Context(), "next") }()
	if a := c.expectBind(); !slices.Equal(a.ids, []idEpoch{{"next", 0}}) {
		t.Errorf("%v was asked for after the context had ended", a.ids)
	} else {
		c.bound(a, codec.Result{Epoch: 1})
	}
	if err := receive(t, done, "the next bind"); err != nil {
		t.Error(err)
	}
}

// TestStuckDialer: a Dialer that ignores its context holds up neither Dial nor Close, and is not
// called again for an address while a call for that has not returned.
func TestStuckDialer(t *testing.T) {
	n := newFakeNode(t).start()
	stuck := make(chan struct{})
	calls := make(chan struct{}, 100)
	late := make(chan net.Conn, 10)
	hang := func(context.Context, string) (net.Conn, error) {
		calls <- struct{}{}
		<-stuck
		ours, theirs := net.Pipe()
		late <- theirs
		return ours, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	dialled := make(chan error, 1)
	go func() {
		_, err := Dial(ctx, Config{Nodes: []string{n.addr}, Dialer: hang, DialTimeout: time.Hour, Logger: quiet()})
		dialled <- err
	}()
	receive(t, calls, "its call of the Dialer")
	cancel()
	if err := receive(t, dialled, "Dial"); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v", err)
	}

	first := true
	said := make(chan string, 1000)
	s, c := attachFake(t, n, Config{MaxBackoff: time.Millisecond, DialTimeout: 50 * time.Millisecond, Logger: lines(said, slog.LevelDebug),
		Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
			if first {
				first = false
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			}
			return hang(ctx, addr)
		}})
	c.Close()
	receive(t, calls, "the Dialer")
	for range 3 {
		for !strings.Contains(receive(t, said, "the next attempt"), dialing.ErrStuck.Error()) {
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close(testContext(t)) }()
	if err := receive(t, closed, "Close"); err != nil {
		t.Error(err)
	}
	if len(calls) > 0 {
		t.Errorf("the Dialer was called %d times more while it had not returned", len(calls))
	}
	close(stuck)
	for range 2 { // a connection that comes too late is closed
		nc := receive(t, late, "a late connection")
		_ = nc.SetDeadline(time.Now().Add(patience))
		if _, err := nc.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("a late connection: %v", err)
		}
	}
}

// TestCloseTwice: a second Close waits no longer than its own context says.
func TestCloseTwice(t *testing.T) {
	n := startNode(t, engine.Config{})
	entered, release := make(chan struct{}), make(chan struct{})
	s := dial(t, Config{Handler: func(context.Context, *Delivery) { close(entered); <-release }}, n.addr)
	if err := s.Bind(testContext(t), "me"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Post(testContext(t), Message{From: "me", To: "me"}); err != nil {
		t.Fatal(err)
	}
	receive(t, entered, "the handler")
	first := make(chan error, 1)
	go func() { first <- s.Close(testContext(t)) }()
	eventually(t, "the first Close", s.closed)
	second := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	go func() { second <- s.Close(ctx) }()
	if err := receive(t, second, "the second Close"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the second Close: %v", err)
	}
	close(release)
	if err := receive(t, first, "the first Close"); err != nil {
		t.Errorf("the first Close: %v", err)
	}
	if err := s.Close(ctx); err != nil {
		t.Errorf("after the first: %v", err)
	}
}
