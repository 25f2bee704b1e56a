package redis

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"distmsg/internal/proc"
	"distmsg/routing"
)

const foreign = `the prefix "distmsg" is used by another cluster, whose nodes have another secret: give this node theirs, or this cluster another name with --cluster`

// Nodes of one cluster share a prefix. Those of another are kept off it, unless they say nothing
// about themselves.
func TestFingerprint(t *testing.T) {
	t.Parallel()
	single := startRedis(t, proc.RedisOptions{})
	several := startCluster(t)
	for name, url := range map[string]string{"standalone": single.URL(), "cluster": several.URL()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := testConfig(url)
			config.Fingerprint = "red"
			open(t, config)
			open(t, config)
			config.Fingerprint = "blue"
			if r, err := Open(t.Context(), config); err == nil {
				r.Close()
				t.Error("opened, with the fingerprint of another cluster")
			} else if !strings.Contains(err.Error(), foreign) {
				t.Error(err)
			}
			config.Fingerprint = ""
			open(t, config)
			config.Fingerprint, config.Prefix = "blue", "blue"
			open(t, config)
		})
	}
}

// While a secret is replaced, a registry accepts what stands there, and leaves its own.
func TestFingerprintReplaced(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	config.Fingerprint = "red"
	open(t, config)
	config.Fingerprints = func() []string { return []string{"blue", "red"} }
	r := open(t, config)
	if found, err := server.Do(t.Context(), "GET", "distmsg:fingerprint"); err != nil || found != "blue" {
		t.Errorf("%v, %v", found, err)
	}
	if _, err := lookup(r, "anna"); err != nil {
		t.Error(err)
	}
	config.Fingerprints = func() []string { return []string{"green", "red"} }
	if r, err := Open(t.Context(), config); err == nil {
		r.Close()
		t.Error("opened, with no fingerprint that stands there")
	}
}

// After a loss the fingerprint is left again. If another cluster's stands there, all calls say so,
// and the log once, until it is gone.
func TestFingerprintLater(t *testing.T) {
	t.Parallel()
	server := startRedis(t, proc.RedisOptions{})
	var log syncBuffer
	config := testConfig(server.URL())
	config.Fingerprint, config.Logger = "red", slog.New(slog.NewTextHandler(&log, nil))
	r := open(t, config)
	stands := func(want string) func(context.Context) bool {
		return func(ctx context.Context) bool {
			found, err := server.Do(ctx, "GET", "distmsg:fingerprint")
			return err == nil && found == want
		}
	}
	if !stands("red")(t.Context()) {
		t.Error("no fingerprint in Redis")
	}
	if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the fingerprint is back", stands("red"))

	if _, err := server.Do(t.Context(), "SET", "distmsg:fingerprint", "blue"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "calls fail", func(context.Context) bool {
		_, err := lookup(r, "anna")
		return errors.Is(err, routing.ErrUnavailable) && strings.Contains(err.Error(), foreign)
	})
	err := r.Attach(t.Context(), routing.NewSessionID(), here)
	if !errors.Is(err, routing.ErrUnavailable) || !strings.Contains(err.Error(), foreign) {
		t.Errorf("attach: %v", err)
	}
	if _, err := server.Do(t.Context(), "DEL", "distmsg:fingerprint"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "calls go through", func(context.Context) bool {
		_, err := lookup(r, "anna")
		return err == nil
	})
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d errors in the log, want one:\n%s", n, log.String())
	}
}

// syncBuffer is a buffer for several goroutines.
type syncBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer // guarded by mu
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
