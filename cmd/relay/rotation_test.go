package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"distmsg/client"
	"distmsg/internal/cli"
)

// A token is replaced while a client sends: every send is acked, and the session is attached all
// the time.
func TestTokensAreReplacedUnderLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tokens")
	var token atomic.Value
	add := func() {
		t.Helper()
		code, text, stderr := run(t, "token", "add", "shop", "--auth-token-file", file)
		if code != cli.ExitOK {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		token.Store(strings.TrimSpace(text))
	}
	key := func() string { return token.Load().(string)[len("dmt_"):][:12] }
	add()
	p := start(t, nil, "--auth-token-file", file)
	addr, _ := p.addresses()
	p.waitFor("send load")

	logins := make(chan struct{}, 64)
	s, err := client.Dial(t.Context(), client.Config{
		Nodes: []string{addr}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		CredentialsFunc: func(context.Context) ([]byte, error) {
			logins <- struct{}{}
			return []byte(token.Load().(string)), nil
		},
		Handler: func(context.Context, *client.Delivery) {},
		OnState: func(s client.State) {
			if !s.Attached && s.Err != nil { // Close has none
				t.Errorf("the session was detached: %v", s.Err)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(t.Context(), "a", "b"); err != nil {
		t.Fatal(err)
	}
	stop, sent := make(chan struct{}), make(chan error, 1)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				sent <- nil
				return
			default:
			}
			if _, err := s.Send(t.Context(), client.Message{From: "a", To: "b", Payload: []byte("x")}); err != nil {
				sent <- fmt.Errorf("send %d: %w", n, err)
				return
			}
		}
	}()
	<-logins
	for range 2 {
		old := key()
		add()
		if code, _, stderr := run(t, "token", "remove", old, "--auth-token-file", file); code != cli.ExitOK {
			t.Fatalf("exit code %d: %s", code, stderr)
		}
		<-logins // with the new token
		if err := s.Bind(t.Context(), "c"); err != nil {
			t.Errorf("after a new login: %v", err)
		}
	}
	close(stop)
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
