package dialing

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
)

// TestStuck: a function that ignores its context holds nobody up, is not called again for the same
// address meanwhile, and what it opens too late is closed.
func TestStuck(t *testing.T) {
	calls, goOn := make(chan string, 10), make(chan struct{})
	theirs := make(chan net.Conn, 1)
	d := Dialer{Func: func(_ context.Context, addr string) (net.Conn, error) {
		calls <- addr
		if addr != "stuck" {
			return nil, errors.New("nobody there")
		}
		<-goOn
		a, b := net.Pipe()
		theirs <- b
		return a, nil
	}}
	ctx, cancel := context.WithCancel(t.Context())
	opened := make(chan error, 1)
	go func() { _, err := d.Open(ctx, "stuck"); opened <- err }()
	<-calls
	cancel()
	if err := <-opened; err != context.Canceled {
		t.Error(err)
	}
	if _, err := d.Open(ctx, "other"); err != context.Canceled {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := d.Open(t.Context(), "stuck"); err != ErrStuck {
		t.Errorf("while the first call goes on: %v", err)
	}
	if len(calls) > 0 {
		t.Errorf("called for %s", <-calls)
	}
	if _, err := d.Open(t.Context(), "other"); err == nil || err == ErrStuck {
		t.Errorf("for another address: %v", err)
	}
	close(goOn)
	if _, err := (<-theirs).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a late connection: %v", err)
	}
}

// TestOpen: what is opened in time is the caller's, and the call has returned when the caller has
// it.
func TestOpen(t *testing.T) {
	want, _ := net.Pipe()
	d := Dialer{Func: func(context.Context, string) (net.Conn, error) { return want, nil }}
	for range 10_000 { // again at once, each time
		if got, err := d.Open(t.Context(), "a"); got != want || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	}
}

// A function that returns nothing at all is told apart from one that has made a connection, also
// when nobody waits for it any more.
func TestNeitherConnectionNorError(t *testing.T) {
	d := Dialer{Func: func(context.Context, string) (net.Conn, error) { return nil, nil }}
	if conn, err := d.Open(t.Context(), "a:1"); conn != nil || !errors.Is(err, errNothing) {
		t.Errorf("%v, %v", conn, err)
	}
}
