package redis

import (
	"context"
	"crypto/rand"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

var _ routing.Identified = (*Registry)(nil)

// Identity implements [routing.Identified]. It returns what the latest check has read, and does no
// I/O. Any goroutine may call it.
func (r *Registry) Identity() routing.Identity {
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	return routing.Identity{ID: l.identity, Buckets: r.config.Buckets}
}

// checkIdentity records the random ID that is stored with the data. If the ID is missing, the
// registry writes the one that it knows, as all other nodes do: a Redis that has lost everything is
// still the same registry. The very first node creates an ID.
func (r *Registry) checkIdentity(ctx context.Context, found string) (err error) {
	if found == "" {
		known := r.Identity().ID
		if known == "" {
			known = rand.Text()
		}
		if found, err = r.setIfMissing(ctx, r.keys.identity(), known); err != nil {
			return err
		}
	}
	l := r.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	l.identity = found
	return nil
}

// setIfMissing writes a missing key. It returns the value that is there now, because another node
// may have been faster.
func (r *Registry) setIfMissing(ctx context.Context, key, value string) (string, error) {
	set := goredis.NewStatusCmd(ctx, "set", key, value, "nx")
	get := goredis.NewStringCmd(ctx, "get", key)
	err := r.ask(ctx, set, get)
	return get.Val(), err
}
