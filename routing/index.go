package routing

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"unsafe"
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

// shard is a part of the index, in a cache line of its own. It stores the address of its first
// bucket and their number, not a pointer to a slice. With a slice, a reader would wait for the
// slice header before it could ask for a bucket.
type shard struct {
	mu      sync.Mutex
	first   atomic.Pointer[chain] // of the buckets; nil while it grows; written with mu held
	buckets atomic.Uint64         // how many there are; written with mu held, while first is nil
	count   int                   // guarded by mu
	_       [32]byte
}

// chain is a bucket: the entries whose hashes belong there.
type chain = atomic.Pointer[entry]

func newIndex(shards int) index {
	x := index{seed: maphash.MakeSeed(), shards: make([]shard, shards)}
	for i := range x.shards {
		x.shards[i].set(make([]chain, minBuckets))
	}
	return x
}

func (x *index) hashBytes(id []byte) uint64  { return maphash.Bytes(x.seed, id) }
func (x *index) hashString(id string) uint64 { return maphash.String(x.seed, id) }

// shard takes the low bits of the hash. A bucket takes the ones from the middle, and
// Session.Pick, in effect, the highest.
func (x *index) shard(hash uint64) *shard { return &x.shards[hash&uint64(len(x.shards)-1)] }

// set gives the shard its buckets. The caller holds sh.mu, or nobody else knows the shard yet.
func (sh *shard) set(buckets []chain) {
	sh.buckets.Store(uint64(len(buckets)))
	sh.first.Store(&buckets[0])
}

// bucket is the place of a hash among so many buckets.
func bucket(first *chain, buckets, hash uint64) *chain {
	return (*chain)(unsafe.Add(unsafe.Pointer(first), (hash>>24&(buckets-1))*uint64(unsafe.Sizeof(*first))))
}

// chained walks a chain for an ID, without a lock or an allocation.
func chained[ID string | []byte](c *chain, id ID) *entry {
	for e := c.Load(); e != nil; e = e.next.Load() {
		if string(e.bytes()) == string(id) {
			return e
		}
	}
	return nil
}

// find is the hot path. A hit is always valid. A miss may be caused by a growing shard, because
// growing moves entries between chains while readers walk them. Growing first removes the buckets,
// and then changes how many there are. So if the first bucket is still the same, the number is that
// of its buckets, and the miss is valid, too. Otherwise find looks again under the lock.
func (sh *shard) find(hash uint64, id []byte) *entry {
	if first := sh.first.Load(); first != nil {
		buckets := sh.buckets.Load()
		if sh.first.Load() == first {
			if e := chained(bucket(first, buckets, hash), id); e != nil || sh.first.Load() == first {
				return e
			}
		}
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return chained(sh.bucket(hash), id)
}

// The caller of the methods below must hold sh.mu.

func (sh *shard) bucket(hash uint64) *chain {
	return bucket(sh.first.Load(), sh.buckets.Load(), hash)
}

func (sh *shard) findLocked(hash uint64, id string) *entry { return chained(sh.bucket(hash), id) }

func (sh *shard) insert(x *index, hash uint64, e *entry) {
	if uint64(sh.count) == sh.buckets.Load() {
		sh.grow(x)
	}
	push(sh.bucket(hash), e)
	sh.count++
}

func push(c *chain, e *entry) {
	e.next.Store(c.Load())
	c.Store(e)
}

// replace puts e in the place of old, so that a reader finds one of the two.
func (sh *shard) replace(hash uint64, old, e *entry) {
	e.next.Store(old.next.Load())
	sh.linkTo(hash, old).Store(e)
	old.remove()
}

func (sh *shard) remove(hash uint64, e *entry) {
	sh.linkTo(hash, e).Store(e.next.Load())
	e.remove()
	sh.count--
}

// linkTo returns the link that points to e.
func (sh *shard) linkTo(hash uint64, e *entry) *chain {
	link := sh.bucket(hash)
	for link.Load() != e {
		link = &link.Load().next
	}
	return link
}

// grow doubles the buckets. They never shrink: 8 to 16 bytes for each ID of the peak. Entries do
// not store their hashes, so grow computes them.
func (sh *shard) grow(x *index) {
	old := sh.all()
	sh.first.Store(nil)
	grown := make([]chain, 2*len(old))
	for i := range old {
		for e := old[i].Load(); e != nil; {
			next := e.next.Load()
			push(bucket(&grown[0], uint64(len(grown)), x.hashBytes(e.bytes())), e)
			e = next
		}
	}
	sh.set(grown)
}

// all returns the buckets.
func (sh *shard) all() []chain { return unsafe.Slice(sh.first.Load(), sh.buckets.Load()) }

// The methods below take sh.mu.

func (sh *shard) appendAll(entries []*entry) []*entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for i, all := 0, sh.all(); i < len(all); i++ {
		for e := all[i].Load(); e != nil; e = e.next.Load() {
			entries = append(entries, e)
		}
	}
	return entries
}
