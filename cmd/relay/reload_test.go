package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"

	"distmsg/internal/cli"
	"distmsg/internal/settings"
)

// recorded is a part that writes down when it is committed.
func recorded(what string, commits *[]string, changed bool, err error) part {
	return part{what: what, prepare: func(context.Context, *options) (func(), error) {
		if err != nil || !changed {
			return nil, err
		}
		return func() { *commits = append(*commits, what) }, nil
	}}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	broken := errors.New("the key is not that of the certificate")
	for _, tc := range []struct {
		name      string
		values    error // of reading the values
		fails     error // of the second part
		committed []string
		line      string
	}{
		{"good", nil, nil, []string{"first", "third"}, "level=INFO msg=reloaded changed=\"[first third]\""},
		{"bad values", broken, nil, nil, "level=ERROR msg=\"reload failed, nothing has changed\" error=\"the key is"},
		{"bad part", nil, broken, nil, "level=ERROR msg=\"reload failed, nothing has changed\" error=\"second: the key is"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var log bytes.Buffer
			var committed []string
			r := reloader{logger: slog.New(slog.NewTextHandler(&log, nil)), read: func() (*options, *settings.Result, error) {
				return &options{}, &settings.Result{}, tc.values
			}}
			r.add(recorded("first", &committed, true, nil))
			r.add(recorded("second", &committed, false, tc.fails))
			r.add(recorded("third", &committed, true, nil))
			r.reload(t.Context())
			if !slices.Equal(committed, tc.committed) || !strings.Contains(log.String(), tc.line) {
				t.Errorf("committed %q, want %q; the log is %q, want %q", committed, tc.committed, log.String(), tc.line)
			}
		})
	}
}

// A node continues after a SIGHUP.
func TestHangup(t *testing.T) {
	p := start(t, nil)
	clients, _ := p.addresses()
	p.waitFor("send load")
	for range 2 {
		p.signal(syscall.SIGHUP)
		p.waitFor(`level=INFO msg=reloaded changed=\[\]`)
	}
	dial(t, clients).hello()
	p.signal(syscall.SIGTERM)
	if code, log := p.exit(); code != cli.ExitOK {
		t.Errorf("exit code %d: %s", code, log)
	}
}
