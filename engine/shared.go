package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync/atomic"

	"distmsg/routing"
)

// Share is what a registry that nodes share has to know of their cluster, see [NewShared].
type Share struct {
	// Cluster is the name of the cluster. It fits the Prefix field of routing/redis.Config.
	Cluster string
	// Fingerprint tells this cluster from others of the same name, and tells no secret. It is empty
	// without Config.ClusterSecret. It fits the field of that name.
	Fingerprint string
	// Gone is Engine.Gone. It fits the field of that name. Until the engine is there, nobody is
	// gone.
	Gone func(routing.Presence) bool
}

// NewShared makes an engine whose registry other nodes share. It calls open for Config.Registry,
// and the engine closes that registry when Run returns. The error is that of open, or of New.
func NewShared(ctx context.Context, cfg Config, open func(context.Context, Share) (routing.Registry, error)) (*Engine, error) {
	setDefault(&cfg.Cluster, defaultCluster)
	var node atomic.Pointer[Engine]
	registry, err := open(ctx, Share{
		Cluster: cfg.Cluster, Fingerprint: fingerprint(cfg.ClusterSecret, cfg.Cluster),
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
	e.closesRegistry = true
	node.Store(e)
	return e, nil
}

// fingerprint is what the nodes of a cluster have in common, and can be told to others. It is empty
// without a secret.
func fingerprint(secret []byte, cluster string) string {
	if secret == nil {
		return ""
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("distmsg registry\x00" + cluster))
	return hex.EncodeToString(mac.Sum(nil))
}
