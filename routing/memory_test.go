package routing_test

import (
	"testing"
	"time"

	"distmsg/routing"
	"distmsg/routing/registrytest"
)

func TestMemoryContract(t *testing.T) {
	histories := 100_000
	if testing.Short() || raceEnabled {
		histories = 5_000
	}
	registrytest.Run(t, histories, func(t *testing.T, clock func() time.Time) routing.Registry {
		return routing.NewMemory(routing.MemoryConfig{Clock: clock})
	})
}
