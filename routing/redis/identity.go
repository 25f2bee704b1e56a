package redis

import (
	"context"
	"crypto/rand"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

var _ routing.Identified = (*Registry)(nil)

// Identity implements [routing.Identified]. It returns what the latest check has read, and does not
// ask Redis. Any goroutine may call it.
func (r *Registry) Identity() routing.Identity {
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	return routing.Identity{ID: l.identity, Buckets: r.config.Buckets}
}

// checkIdentity reads the random ID that is kept with the data. If the ID is missing, the registry
// writes the one that it knows, as all other nodes do: a Redis that has lost everything is still
// the same registry. The very first node makes an ID up.
func (r *Registry) checkIdentity(ctx context.Context) error {
	key := r.keys.identity()
	found := goredis.NewStringCmd(ctx, "get", key)
	if err := r.ask(ctx, found); err != nil {
		return err
	}
	if found.Val() == "" {
		known := r.Identity().ID
		if known == "" {
			known = rand.Text()
		}
		set := goredis.NewStatusCmd(ctx, "set", key, known, "nx")
		found = goredis.NewStringCmd(ctx, "get", key)
		if err := r.ask(ctx, set, found); err != nil {
			return err
		}
	}
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	l.identity = found.Val()
	return nil
}
