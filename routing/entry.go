package routing

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// entry is one bound ID. The ID follows the entry in memory: its length as a byte, and its bytes.
// So an entry of an ID of up to 23 bytes fits into one cache line, and comparing the ID costs no
// further cache miss. Only newEntry makes entries.
type entry struct {
	next    atomic.Pointer[entry] // in the bucket; written with the shard's mu held
	session *Session              // static

	// Read without a lock, written with the shard's mu held: the epoch, and removedBit. The epoch
	// grows when the same session binds the ID again, which also takes the session's mu.
	state atomic.Uint64

	// Guarded by session.mu.
	older, newer *entry // in the session's list
}

// removedBit in the state of an entry says that the entry has left the index. A reader that found
// the entry before may still hold it. All epochs are below the bit.
const removedBit = 1 << 63

// maxID is the length of the longest ID.
const maxID = 255

// withID is an entry with room for the ID, of which B is an array of bytes.
type withID[B any] struct {
	entry
	_ B
}

func room[B any]() *entry { return &new(withID[B]).entry }

// newEntry copies the ID. The sizes are those that the allocator has.
func newEntry(id string, s *Session, epoch uint64) *entry {
	var e *entry
	switch n := 1 + len(id); {
	case n <= 8:
		e = room[[8]byte]()
	case n <= 24:
		e = room[[24]byte]()
	case n <= 40:
		e = room[[40]byte]()
	case n <= 56:
		e = room[[56]byte]()
	case n <= 88:
		e = room[[88]byte]()
	case n <= 136:
		e = room[[136]byte]()
	case n <= 184:
		e = room[[184]byte]()
	case n <= 1+maxID:
		e = room[[1 + maxID]byte]()
	default:
		panic(fmt.Sprintf("routing: an ID of %d bytes: at most %d are allowed", len(id), maxID))
	}
	e.session = s
	e.state.Store(epoch)
	*e.length() = byte(len(id))
	copy(e.bytes(), id)
	return e
}

// length points to the byte after the entry.
func (e *entry) length() *byte {
	return (*byte)(unsafe.Add(unsafe.Pointer(e), unsafe.Sizeof(*e)))
}

// bytes returns the ID. It is static as soon as the entry can be found, and nobody may change it.
func (e *entry) bytes() []byte {
	n := e.length()
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(n), 1)), *n)
}

// id returns a copy.
func (e *entry) id() string { return string(e.bytes()) }

func (e *entry) epoch() uint64 { return e.state.Load() &^ removedBit }

func (e *entry) removed() bool { return e.state.Load()&removedBit != 0 }

// remove marks an entry that leaves the index. The caller holds the shard's mu.
func (e *entry) remove() { e.state.Or(removedBit) }

// route returns what the entry says. The caller knows the hash of the ID.
func (e *entry) route(hash uint64) Route {
	return Route{Session: e.session, Epoch: e.epoch(), Hash: hash}
}
