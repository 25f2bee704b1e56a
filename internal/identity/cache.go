package identity

import (
	"container/list"
	"sync"
	"time"
)

// cacheKey is a keyed hash of what a client showed. The credentials themselves are not kept.
type cacheKey [32]byte

// cache remembers a bounded number of values for a while. When it is full, it forgets the one that
// was used least recently.
type cache[V any] struct {
	most int

	mu    sync.Mutex
	byKey map[cacheKey]*list.Element // of *cached[V]
	order *list.List                 // the one that was used last is in front
}

type cached[V any] struct {
	key   cacheKey
	value V
	until time.Time
}

func newCache[V any](most int) *cache[V] {
	return &cache[V]{most: most, byKey: make(map[cacheKey]*list.Element), order: list.New()}
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

func (c *cache[V]) put(key cacheKey, value V, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[key]; e != nil {
		c.remove(e)
	}
	c.byKey[key] = c.order.PushFront(&cached[V]{key, value, until})
	if c.order.Len() > c.most {
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
	delete(c.byKey, e.Value.(*cached[V]).key)
	c.order.Remove(e)
}
