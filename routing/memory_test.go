package routing_test

import (
	"slices"
	"testing"
	"time"

	"distmsg/routing"
	"distmsg/routing/registrytest"
)

func TestMemoryContract(t *testing.T) {
	histories := 100_000
	if routing.RaceEnabled {
		histories = 5_000
	}
	registrytest.Run(t, histories, func(t *testing.T, clock func() time.Time) routing.Registry {
		return routing.NewMemory(routing.MemoryConfig{Clock: clock})
	})
}

// BenchmarkMemoryBind binds as one session does that brings 100,000 IDs: 1000 at a time. Its
// unit is one ID.
//
//	go test -run '^$' -bench BenchmarkMemoryBind -benchtime 100000x -count 5 ./routing
func BenchmarkMemoryBind(b *testing.B) {
	const batch = 1000
	registry := routing.NewMemory(routing.MemoryConfig{})
	session := routing.NewSessionID()
	ops := make([]routing.BindOp, b.N)
	for k := range ops {
		ops[k] = routing.BindOp{ID: idOf(k), Session: session}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for part := range slices.Chunk(ops, batch) {
		if _, err := registry.Bind(b.Context(), part); err != nil {
			b.Fatal(err)
		}
	}
}
