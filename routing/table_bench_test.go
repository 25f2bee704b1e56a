package routing

import (
	"fmt"
	"hash/maphash"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkTable is the benchmark behind docs/decisions/0003-route-table.md: the table
// against other ways to build it, under the load of event loops: lookups, and one bind
// (a later epoch for an ID that is bound) in 1000 operations. It reports CPU time, of
// which a noisy neighbour takes nothing.
//
//	go test -run '^$' -bench BenchmarkTable -benchtime 3000000x -count 1 ./routing  # five times
func BenchmarkTable(b *testing.B) {
	variants := []struct {
		name string
		make func() lookuper
	}{
		{"table-1", func() lookuper { return newRealTable(1) }},
		{"table-256", func() lookuper { return newRealTable(256) }},
		{"rwmutex-1", func() lookuper { return newRWShards(1) }},
		{"rwmutex-256", func() lookuper { return newRWShards(256) }},
		{"mutex-256", func() lookuper { return newMutexShards(256) }},
		{"sync.Map", func() lookuper { return &syncMap{session: benchSession()} }},
	}
	for _, v := range variants {
		for _, ids := range []int{10_000, 1_000_000} {
			b.Run(fmt.Sprintf("%s/ids=%d", v.name, ids), func(b *testing.B) {
				table := v.make()
				for i := range ids {
					table.bind(string(appendBenchID(nil, i)), 1)
				}
				for _, goroutines := range []int{1, 2, 4} {
					b.Run(fmt.Sprintf("goroutines=%d", goroutines), func(b *testing.B) {
						benchMixed(b, table, ids, goroutines)
					})
				}
			})
		}
	}
}

// benchMixed divides b.N operations among goroutines.
func benchMixed(b *testing.B, table lookuper, ids, goroutines int) {
	runtime.GC() // not on the bill
	b.ReportAllocs()
	b.ResetTimer()
	began := cpuTime(b)
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			x := uint64(g + 1)
			var id []byte // hot, as if just read from a socket
			for i := range b.N / goroutines {
				x = x*6364136223846793005 + 1442695040888963407
				id = appendBenchID(id[:0], int(x>>33%uint64(ids)))
				if i%1000 == 999 {
					table.bind(string(id), uint64(i+2))
				} else if !table.lookup(id) {
					panic("an ID is missing")
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(cpuTime(b)-began)/float64(b.N), "cpu-ns/op")
}

// BenchmarkFill binds a million new IDs on one goroutine and reports the longest bind, in
// CPU time: the one that made a shard grow. That, not the lookups, wants shards.
//
//	go test -run '^$' -bench BenchmarkFill -benchtime 1x -count 5 ./routing
func BenchmarkFill(b *testing.B) {
	ids := make([]string, 1_000_000)
	for i := range ids {
		ids[i] = string(appendBenchID(nil, i))
	}
	for _, shards := range []int{1, 16, 64, 256, 1024} {
		b.Run(fmt.Sprintf("table-%d", shards), func(b *testing.B) {
			for range b.N {
				b.ReportMetric(float64(longestBind(b, newRealTable(shards), ids).Microseconds()), "longest-µs")
			}
		})
	}
}

func longestBind(b *testing.B, table lookuper, ids []string) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var longest time.Duration
	last := threadTime(b)
	for _, id := range ids {
		table.bind(id, 1)
		now := threadTime(b)
		longest = max(longest, now-last)
		last = now
	}
	return longest
}

// threadTime is the CPU time that this thread has used so far.
func threadTime(b *testing.B) time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// cpuTime is what the process has used so far, in user mode and in the kernel.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// appendBenchID appends the i-th ID, 23 bytes.
func appendBenchID(b []byte, i int) []byte {
	b = append(b, "somebody@somewhere-"...)
	return append(b, byte(i>>18&63)+'0', byte(i>>12&63)+'0', byte(i>>6&63)+'0', byte(i&63)+'0')
}

// lookuper is what the alternatives have in common: an ID is looked up and a connection
// picked; a bind moves its epoch.
type lookuper interface {
	lookup(id []byte) bool
	bind(id string, epoch uint64)
}

// benchSession is attached once.
func benchSession() *Session {
	t := NewTable()
	s := t.OpenSession(NewSessionID(), "")
	t.Attach(s, Handle{})
	return s
}

type realTable struct {
	*Table
	session *Session
}

func newRealTable(shards int) realTable {
	return realTable{newTable(shards), benchSession()}
}

func (t realTable) lookup(id []byte) bool {
	route, ok := t.Lookup(id)
	return ok && picks(route)
}

func (t realTable) bind(id string, epoch uint64) { t.Bind(id, t.session, epoch) }

func picks(route Route) bool {
	_, ok := route.Session.Pick(route.Hash)
	return ok
}

// The alternatives hold the least that a table could: a Go map to a route in place,
// without the lists of a session's IDs.

type alternative struct {
	seed    maphash.Seed
	session *Session
}

type rwShards struct {
	alternative
	shards []rwShard
}

type rwShard struct {
	mu  sync.RWMutex
	ids map[string]Route
	_   [32]byte
}

func newRWShards(n int) *rwShards {
	t := &rwShards{alternative{maphash.MakeSeed(), benchSession()}, make([]rwShard, n)}
	for i := range t.shards {
		t.shards[i].ids = make(map[string]Route)
	}
	return t
}

func (t *rwShards) lookup(id []byte) bool {
	hash := maphash.Bytes(t.seed, id)
	sh := &t.shards[hash&uint64(len(t.shards)-1)]
	sh.mu.RLock()
	route, ok := sh.ids[string(id)]
	sh.mu.RUnlock()
	return ok && picks(route)
}

func (t *rwShards) bind(id string, epoch uint64) {
	hash := maphash.String(t.seed, id)
	sh := &t.shards[hash&uint64(len(t.shards)-1)]
	sh.mu.Lock()
	sh.ids[id] = Route{Session: t.session, Epoch: epoch, Hash: hash}
	sh.mu.Unlock()
}

type mutexShards struct {
	alternative
	shards []mutexShard
}

type mutexShard struct {
	mu  sync.Mutex
	ids map[string]Route
	_   [48]byte
}

func newMutexShards(n int) *mutexShards {
	t := &mutexShards{alternative{maphash.MakeSeed(), benchSession()}, make([]mutexShard, n)}
	for i := range t.shards {
		t.shards[i].ids = make(map[string]Route)
	}
	return t
}

func (t *mutexShards) lookup(id []byte) bool {
	hash := maphash.Bytes(t.seed, id)
	sh := &t.shards[hash&uint64(len(t.shards)-1)]
	sh.mu.Lock()
	route, ok := sh.ids[string(id)]
	sh.mu.Unlock()
	return ok && picks(route)
}

func (t *mutexShards) bind(id string, epoch uint64) {
	hash := maphash.String(t.seed, id)
	sh := &t.shards[hash&uint64(len(t.shards)-1)]
	sh.mu.Lock()
	sh.ids[id] = Route{Session: t.session, Epoch: epoch, Hash: hash}
	sh.mu.Unlock()
}

type syncMap struct {
	session *Session
	ids     sync.Map
}

func (t *syncMap) lookup(id []byte) bool {
	v, ok := t.ids.Load(string(id))
	return ok && picks(*v.(*Route))
}

func (t *syncMap) bind(id string, epoch uint64) {
	t.ids.Store(id, &Route{Session: t.session, Epoch: epoch})
}
