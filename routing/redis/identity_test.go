package redis

import (
	"context"
	"testing"

	"distmsg/internal/proc"
)

// Whoever works on the same data hears the same ID, also after all of it was lost, and nobody else
// does.
func TestIdentity(t *testing.T) {
	t.Parallel()
	server, other := startRedis(t, proc.RedisOptions{}), startRedis(t, proc.RedisOptions{})
	config := testConfig(server.URL())
	a, b := open(t, config), open(t, config)
	id := a.Identity()
	if id.ID == "" || id.Buckets != a.config.Buckets || b.Identity() != id {
		t.Errorf("%+v and %+v on one Redis", id, b.Identity())
	}
	config.Prefix = "blue"
	if got := open(t, config).Identity().ID; got == id.ID || got == "" {
		t.Errorf("another prefix: %q", got)
	}
	if got := open(t, testConfig(other.URL())).Identity().ID; got == id.ID || got == "" {
		t.Errorf("another Redis: %q", got)
	}
	if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the ID is back", func(ctx context.Context) bool {
		found, err := server.Do(ctx, "GET", "distmsg:identity")
		return err == nil && found == id.ID
	})
	if a.Identity() != id || b.Identity() != id {
		t.Errorf("%+v and %+v after a loss, %+v before", a.Identity(), b.Identity(), id)
	}

	// A stranger's data in its place is another registry.
	if _, err := server.Do(t.Context(), "SET", "distmsg:identity", "stranger"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other ID", func(context.Context) bool { return a.Identity().ID == "stranger" && b.Identity().ID == "stranger" })
}
