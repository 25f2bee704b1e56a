package engine

import (
	"context"
	"sync/atomic"

	"distmsg/routing"
)

// Share is what a registry that several nodes share must know of their cluster. See [NewShared].
type Share struct {
	// Cluster is the name of the cluster. It fits the Prefix field of routing/redis.Config.
	Cluster string
	// Fingerprint distinguishes this cluster from others of the same name. It reveals no secret. It
	// is empty without Config.ClusterSecret. It fits the Fingerprint field of routing/redis.Config.
	Fingerprint string
	// Fingerprints is for a cluster whose secret can be replaced while it runs: the first is that
	// of the secret that this node uses, and the others are of those that it accepts. It fits the
	// Fingerprints field of routing/redis.Config.
	Fingerprints func() []string
	// Gone is Engine.Gone. It fits the Gone field of routing/redis.Config. Until the engine exists,
	// it returns false.
	Gone func(routing.Presence) bool
}

// NewShared makes an engine whose registry other nodes share. It calls open for Config.Registry.
// The engine closes that registry when Run returns. The error is that of open or of New.
func NewShared(ctx context.Context, cfg Config, open func(context.Context, Share) (routing.Registry, error)) (*Engine, error) {
	setDefault(&cfg.Cluster, defaultCluster)
	var node atomic.Pointer[Engine]
	first := newSecrets(&cfg)
	fingerprint := ""
	if cfg.ClusterSecret != nil {
		fingerprint = fingerprints(first.cluster, cfg.Cluster)[0]
	}
	registry, err := open(ctx, Share{
		Cluster: cfg.Cluster, Fingerprint: fingerprint,
		Fingerprints: func() []string {
			if e := node.Load(); e != nil {
				return fingerprints(e.secrets.cluster, cfg.Cluster)
			}
			return fingerprints(first.cluster, cfg.Cluster)
		},
		Gone: func(p routing.Presence) bool {
			e := node.Load()
			return e != nil && e.Gone(p)
		},
	})
	if err != nil {
		return nil, err
	}
	cfg.Registry = registry
	e, err := New(cfg)
	if err != nil {
		_ = registry.Close()
		return nil, err
	}
	e.shared = registry
	node.Store(e)
	return e, nil
}
