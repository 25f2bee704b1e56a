package engine

import (
	"context"
	"errors"
	"testing"

	"distmsg/routing"
)

// closing notes that a registry was closed.
type closing struct {
	routing.Registry
	closed int
}

func (r *closing) Close() error {
	r.closed++
	return r.Registry.Close()
}

// NewShared ties a registry to its engine, which closes it at the end.
func TestNewShared(t *testing.T) {
	reg := &closing{Registry: routing.NewMemory(routing.MemoryConfig{})}
	var share Share
	open := func(_ context.Context, s Share) (routing.Registry, error) {
		share = s
		if s.Gone(routing.Presence{Node: "other"}) {
			t.Error("somebody is gone before there is an engine")
		}
		return reg, nil
	}
	secret := []byte("at least sixteen bytes")
	e, err := NewShared(t.Context(), Config{Addr: "none", Loops: 1, Logger: quiet(), ClusterSecret: secret}, open)
	if err != nil {
		t.Fatal(err)
	}
	if share.Cluster != defaultCluster || share.Fingerprint == "" || share.Fingerprint != share.Fingerprints()[0] || share.Fingerprint == fingerprints(e.secrets.cluster, "another")[0] {
		t.Errorf("%+v", share)
	}
	if !share.Gone(routing.Presence{Node: "other"}) || share.Gone(routing.Presence{Node: e.NodeID(), Incarnation: e.Incarnation()}) {
		t.Error("Gone is not the engine's")
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	<-e.Ready()
	stop()
	if err := <-ended; err != nil || reg.closed != 1 {
		t.Errorf("%v, closed %d times", err, reg.closed)
	}
	if _, err := NewShared(t.Context(), Config{Loops: -1}, open); err == nil || reg.closed != 2 {
		t.Errorf("%v, closed %d times", err, reg.closed)
	}
	no := errors.New("no registry")
	if _, err := NewShared(t.Context(), Config{}, func(context.Context, Share) (routing.Registry, error) { return nil, no }); err != no {
		t.Error(err)
	}
	_, _ = NewShared(t.Context(), Config{}, func(_ context.Context, s Share) (routing.Registry, error) {
		if s.Fingerprint != "" || len(s.Fingerprints()) != 0 {
			t.Error("a fingerprint without a secret")
		}
		return nil, no
	})
}
