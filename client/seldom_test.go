package client

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"
)

// lines is a logger whose lines of a level and above go to said.
func lines(said chan<- string, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(lineWriter(said), &slog.HandlerOptions{Level: level}))
}

type lineWriter chan<- string

func (w lineWriter) Write(line []byte) (int, error) {
	select {
	case w <- string(line):
	default: // nobody reads any more
	}
	return len(line), nil
}

// TestReconnectStorm: a node that says welcome and closes is dialled ever more slowly: only a
// connection that has lasted makes the pauses short again. The log has a few lines about it.
func TestReconnectStorm(t *testing.T) {
	long(t)
	n := newFakeNode(t).start()
	said := make(chan string, 10_000)
	_, c := attachFake(t, n, Config{MaxBackoff: time.Hour, Logger: lines(said, slog.LevelInfo)})
	c.Close()
	dials := 1
	for over := time.After(3 * time.Second); over != nil; {
		select {
		case c := <-n.conns:
			dials++
			c.Close()
		case <-over:
			over = nil
		}
	}
	// The ceiling of the pauses doubles from 50 ms; it used to stay there, which made more than
	// 100.
	if dials < 3 || dials > 20 {
		t.Errorf("%d connections in 3 s", dials)
	}
	if len(said) > 4 {
		t.Errorf("%d lines in the log about %d connections", len(said), dials)
	}
}

// TestSeldomLogged: while its only node is gone, a session logs a line a minute, however often it
// tries.
func TestSeldomLogged(t *testing.T) {
	n := newFakeNode(t).start()
	said, tries := make(chan string, 10_000), make(chan struct{}, 10_000)
	_, c := attachFake(t, n, Config{MaxBackoff: time.Millisecond, Logger: lines(said, slog.LevelInfo),
		Dialer: func(ctx context.Context, addr string) (net.Conn, error) {
			tries <- struct{}{}
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}})
	n.ln.Close()
	c.Close()
	for range 100 {
		receive(t, tries, "the next attempt")
	}
	for _, want := range []string{"attached", "detached", "not attached to any node"} {
		if line := receive(t, said, want); !strings.Contains(line, want) {
			t.Errorf("%q, want %q", line, want)
		}
	}
	if len(said) > 0 {
		t.Errorf("and another line: %s", <-said)
	}
}

// TestSeldom: what repeats itself is logged once a minute, with the number of times in between.
func TestSeldom(t *testing.T) {
	l := seldom{logged: make(map[string]*repeated)}
	start := time.Now()
	for _, c := range []struct {
		subject string
		after   time.Duration
		muted   int
		due     bool
	}{
		{"a", 0, 0, true},
		{"a", time.Second, 0, false},
		{"b", time.Second, 0, true},
		{"a", 59 * time.Second, 0, false},
		{"a", time.Minute, 2, true},
		{"a", 61 * time.Second, 0, false},
		{"b", 4 * time.Minute, 0, true},
		{"a", 5 * time.Minute, 0, true}, // it was forgotten meanwhile
	} {
		if muted, due := l.due(c.subject, start.Add(c.after)); muted != c.muted || due != c.due {
			t.Errorf("%s after %v: %d times before, due %v", c.subject, c.after, muted, due)
		}
	}
	l.forget()
	if _, due := l.due("a", start.Add(5*time.Minute)); !due {
		t.Error("not due after what was logged was forgotten")
	}
}
