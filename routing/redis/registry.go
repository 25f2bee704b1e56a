package redis

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

// Registry is a routing.Registry on Redis. Every method may be called from any goroutine.
type Registry struct {
	// Static after construction.
	config   Config
	keys     keys
	client   goredis.UniversalClient
	losses   *losses
	sweep    *sweep
	findings *findings
	gate     gate
	claims   atomic.Pointer[func([]routing.Claim)] // receives what the walk finds; nil: nobody does

	stop       context.CancelFunc // ends the background work
	background sync.WaitGroup
	closed     func() error
}

var _ routing.Registry = (*Registry)(nil)

// Open connects to Redis, checks that the registry can work with it, and starts the background
// work: the check for losses, and the sweep. The error is one line that says what to do.
func Open(ctx context.Context, config Config) (*Registry, error) {
	config, err := config.withDefaults()
	if err != nil {
		return nil, err
	}
	place, err := parseURL(config.URL)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: no call was made: %w", config.URL, err)
	}
	r := &Registry{
		config:   config,
		keys:     keys{prefix: config.Prefix, buckets: config.Buckets},
		losses:   newLosses(config.RebuildWindow),
		findings: &findings{},
	}
	r.sweep = newSweep(r)
	if r.client, err = newClient(config, place, r.onConnect); err != nil {
		return nil, err
	}
	if err := r.inspect(ctx); err != nil {
		_ = r.client.Close()
		return nil, r.unavailable(err)
	}
	working, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.closed = sync.OnceValue(r.client.Close)
	r.background.Go(func() { r.watch(working) })
	r.background.Go(func() { r.sweep.run(working) })
	return r, nil
}

func (r *Registry) clustered() bool {
	_, is := r.client.(*goredis.ClusterClient)
	return is
}

// Close implements [routing.Registry].
func (r *Registry) Close() error {
	r.stop()
	err := r.closed()
	r.background.Wait()
	return err
}
