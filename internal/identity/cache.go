package identity

import (
	"container/list"
	"sync"
	"time"
)

// cacheKey is a keyed hash of what a client showed. The credentials themselves are not kept.
type cacheKey [32]byte

// cache remembers values for a while, up to a number of them, and up to a number of bytes. When it
// is full, it forgets those that were used least recently.
type cache[V any] struct {
	most      int
	mostBytes int

	mu    sync.Mutex
	byKey map[cacheKey]*list.Element // of *cached[V]
	order *list.List                 // the one that was used last is in front
	bytes int                        // of all values
}

type cached[V any] struct {
	key   cacheKey
	value V
	bytes int
	until time.Time
}

func newCache[V any](most, mostBytes int) *cache[V] {
	return &cache[V]{most: most, mostBytes: mostBytes, byKey: make(map[cacheKey]*list.Element), order: list.New()}
}

func (c *cache[V]) get(key cacheKey, now time.Time) (value V, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.byKey[key]
	if e == nil {
		return value, false
	}
	entry := e.Value.(*cached[V])
	if !now.Before(entry.until) {
		c.remove(e)
		return value, false
	}
	c.order.MoveToFront(e)
	return entry.value, true
}

// put remembers a value that takes so many bytes.
func (c *cache[V]) put(key cacheKey, value V, bytes int, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
	c.byKey[key] = c.order.PushFront(&cached[V]{key, value, bytes, until})
	c.bytes += bytes
	for c.order.Len() > c.most || c.bytes > c.mostBytes {
		c.remove(c.order.Back())
	}
}

func (c *cache[V]) drop(key cacheKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
}

func (c *cache[V]) remove(e *list.Element) {
	entry := e.Value.(*cached[V])
	delete(c.byKey, entry.key)
	c.order.Remove(e)
	c.bytes -= entry.bytes
}
