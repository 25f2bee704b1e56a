package routing

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

const (
	shardCount = 256 // a power of two; docs/decisions/0003-route-table.md says why
	minBuckets = 8   // of a shard, a power of two
)

// index is the table's hash map from ID to entry. Readers take no lock: each shard is an array of
// chains, every link of which is an atomic pointer. Writers hold the shard's lock. An unlinked
// entry keeps its own link, so a reader that has reached it can walk on. The garbage collector
// keeps the entry alive that long.
type index struct {
	seed   maphash.Seed // against IDs that were chosen to collide
	shards []shard      // a power of two of them
}

// shard is a part of the index, in a cache line of its own.
type shard struct {
	mu      sync.Mutex
	buckets atomic.Pointer[[]atomic.Pointer[entry]] // nil while it grows; written with mu held
	count   int                                     // guarded by mu
	_       [40]byte
}

func newIndex(shards int) index {
	x := index{seed: maphash.MakeSeed(), shards: make([]shard, shards)}
	for i := range x.shards {
		buckets := make([]atomic.Pointer[entry], minBuckets)
		x.shards[i].buckets.Store(&buckets)
	}
	return x
}

func (x *index) hashBytes(id []byte) uint64  { return maphash.Bytes(x.seed, id) }
func (x *index) hashString(id string) uint64 { return maphash.String(x.seed, id) }

// shard takes the low bits of the hash. A bucket takes the ones from the middle, and
// Session.Pick, in effect, the highest.
func (x *index) shard(hash uint64) *shard { return &x.shards[hash&uint64(len(x.shards)-1)] }

func bucket(buckets []atomic.Pointer[entry], hash uint64) *atomic.Pointer[entry] {
	return &buckets[hash>>24&uint64(len(buckets)-1)]
}

// chained walks the chain of a hash for an ID, without a lock or an allocation.
func chained[ID string | []byte](buckets []atomic.Pointer[entry], hash uint64, id ID) *entry {
	for e := bucket(buckets, hash).Load(); e != nil; e = e.next.Load() {
		if string(e.bytes()) == string(id) {
			return e
		}
	}
	return nil
}

// find is the hot path. A hit is always valid. A miss may be caused by a growing shard, because
// growing moves entries between chains while readers walk them. Growing first removes the buckets.
// So if the buckets are still the same, the miss is valid, too. Otherwise find looks again under
// the lock.
func (sh *shard) find(hash uint64, id []byte) *entry {
	if buckets := sh.buckets.Load(); buckets != nil {
		if e := chained(*buckets, hash, id); e != nil || sh.buckets.Load() == buckets {
			return e
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return chained(*sh.buckets.Load(), hash, id)
}

// The caller of the methods below must hold sh.mu.

func (sh *shard) findLocked(hash uint64, id string) *entry {
	return chained(*sh.buckets.Load(), hash, id)
}

func (sh *shard) insert(x *index, hash uint64, e *entry) {
	if sh.count == len(*sh.buckets.Load()) {
		sh.grow(x)
	}
	push(*sh.buckets.Load(), hash, e)
	sh.count++
}

func push(buckets []atomic.Pointer[entry], hash uint64, e *entry) {
	head := bucket(buckets, hash)
	e.next.Store(head.Load())
	head.Store(e)
}

// replace puts e in the place of old, so that a reader finds one of the two.
func (sh *shard) replace(hash uint64, old, e *entry) {
	e.next.Store(old.next.Load())
	sh.linkTo(hash, old).Store(e)
}

func (sh *shard) remove(hash uint64, e *entry) {
	sh.linkTo(hash, e).Store(e.next.Load())
	sh.count--
}

// linkTo returns the link that points to e.
func (sh *shard) linkTo(hash uint64, e *entry) *atomic.Pointer[entry] {
	link := bucket(*sh.buckets.Load(), hash)
	for link.Load() != e {
		link = &link.Load().next
	}
	return link
}

// grow doubles the buckets. They never shrink: 8 to 16 bytes for each ID of the peak. Entries do
// not store their hashes, so grow computes them.
func (sh *shard) grow(x *index) {
	old := *sh.buckets.Swap(nil)
	grown := make([]atomic.Pointer[entry], 2*len(old))
	for i := range old {
		for e := old[i].Load(); e != nil; {
			next := e.next.Load()
			push(grown, x.hashBytes(e.bytes()), e)
			e = next
		}
	}
	sh.buckets.Store(&grown)
}

// The methods below take sh.mu.

func (sh *shard) appendAll(entries []*entry) []*entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	buckets := *sh.buckets.Load()
	for i := range buckets {
		for e := buckets[i].Load(); e != nil; e = e.next.Load() {
			entries = append(entries, e)
		}
	}
	return entries
}
