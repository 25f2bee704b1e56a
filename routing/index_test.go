package routing

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// TestFindWhileGrowing makes one shard grow again and again while readers are on its
// chains. What stands in it must be found each time.
func TestFindWhileGrowing(t *testing.T) {
	rounds := 200
	if RaceEnabled {
		rounds = 20
	}
	for range rounds {
		table := newTable(1)
		s := table.OpenSession(NewSessionID(), "")
		const standing = minBuckets
		var ids [standing][]byte
		for k := range ids {
			ids[k] = fmt.Appendf(nil, "standing-%d", k)
			table.Bind(string(ids[k]), s, 1)
		}
		var stop atomic.Bool
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for !stop.Load() {
					for _, id := range ids {
						if _, ok := table.Lookup(id); !ok {
							t.Errorf("%s is missing", id)
							return
						}
					}
				}
			})
		}
		for k := range 1000 {
			table.Bind(fmt.Sprint(k), s, 1)
		}
		stop.Store(true)
		readers.Wait()
	}
}
