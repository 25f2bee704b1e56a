package redis

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// What may happen to a server while it is used is told by every bind, in one line that says what to
// do, and is over when it is undone.
func TestServerChanges(t *testing.T) {
	for _, c := range []struct {
		name     string
		do, undo []string // commands
		want     string
	}{
		{"another password",
			[]string{"ACL SETUSER relay resetpass >new", "CLIENT KILL USER relay"},
			[]string{"ACL SETUSER relay >sesame"}, "check the password file"},
		{"the user may no longer bind", []string{"ACL SETUSER relay -hset"}, []string{"ACL SETUSER relay +hset"}, "lacks a permission"},
		{"the user may not write there", []string{"ACL SETUSER relay resetkeys ~other:*"}, []string{"ACL SETUSER relay ~distmsg:*"}, "lacks a permission"},
		{"a replica now", []string{"REPLICAOF 127.0.0.1 1"}, []string{"REPLICAOF NO ONE"}, "name its master"},
		{"it cannot save", []string{"CONFIG SET save 3600_1", "BGSAVE"}, []string{"CONFIG SET stop-writes-on-bgsave-error no"}, "see its log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "redis")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			server := startRedis(t, proc.RedisOptions{Dir: dir})
			command(t, server, "ACL SETUSER relay on >sesame ~distmsg:* +@all")
			// it need not save, but to see what happens if it cannot
			if err := os.Remove(dir); err != nil {
				t.Fatal(err)
			}
			config := testConfig(server.URL())
			config.Username, config.Password = "relay", "sesame"
			r := open(t, config)
			ops := []routing.BindOp{{ID: "anna", Session: routing.NewSessionID()}}
			command(t, server, c.do...)
			// The first failures may say only that the server has closed a connection.
			eventually(t, "a bind says what to do: "+c.want, func(ctx context.Context) bool {
				_, err := r.Bind(ctx, ops)
				if err == nil {
					return false
				}
				if !errors.Is(err, routing.ErrUnavailable) || strings.Contains(err.Error(), "\n") {
					t.Fatalf("%q, want one line that wraps ErrUnavailable", err)
				}
				return strings.Contains(err.Error(), c.want)
			})
			command(t, server, c.undo...)
			eventually(t, "a bind succeeds", func(ctx context.Context) bool {
				results, err := r.Bind(ctx, ops)
				return err == nil && results[0].Status == routing.Bound
			})
		})
	}
}

// command runs commands of words that single spaces part; an underscore stands for a space inside a
// word.
func command(t *testing.T, server *proc.Redis, lines ...string) {
	t.Helper()
	for _, line := range lines {
		words := strings.Split(line, " ")
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "_", " ")
		}
		if _, err := server.Do(t.Context(), words...); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
}
