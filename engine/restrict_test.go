package engine

import (
	"context"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// keeping is a registry that removes nothing while it is stuck.
type keeping struct {
	routing.Registry
	stuck atomic.Bool
	asked atomic.Int32
}

func (k *keeping) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	k.asked.Add(1)
	if k.stuck.Load() {
		return nil, routing.ErrUnavailable
	}
	return k.Registry.Unbind(ctx, ops)
}

// While the registry cannot take an ID from a session that may not hold it any more, the node
// itself forgets the ID, does not deny what it cannot confirm, and goes on trying.
func TestRestrictAgain(t *testing.T) {
	long(t)
	t.Parallel()
	registry := &keeping{Registry: routing.NewMemory(routing.MemoryConfig{})}
	cfg, change := only("a", "b")
	cfg.Registry = registry
	n := start(t, cfg)
	old := n.join("a")
	epoch := old.bind("b")
	registry.stuck.Store(true)
	change(Identity{Name: "alice", IDs: []string{"a"}})
	c := n.dial()
	c.hello(old.resume())
	c.expect(codec.KindReassert)
	n.eventually("it has tried twice", func() bool { return registry.asked.Load() >= 2 })
	c.hears(c.send("b", "a", "x"), codec.CodeDenied)
	if got := c.tryBind(codec.PolicyKickOld, codec.IDEpoch{ID: []byte("b"), Epoch: epoch})[0].Code; got != codec.CodeRegistryUnavailable {
		t.Error(got)
	}
	registry.stuck.Store(false)
	n.eventually("the registry has removed the binding", func() bool {
		found, err := registry.Lookup(t.Context(), []string{"b"})
		return err == nil && found[0].Binding.Epoch == 0
	})
	if got := c.tryBind(codec.PolicyKickOld, codec.IDEpoch{ID: []byte("b"), Epoch: epoch})[0].Code; got != codec.CodeDenied {
		t.Error(got)
	}
}
