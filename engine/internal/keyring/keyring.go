// Package keyring holds keys that can be replaced while others use them. It takes no lock.
package keyring

import "sync/atomic"

// Ring is a list of keys. The first is the one to sign with, and all of them may have signed what
// comes from elsewhere. Any goroutine may use it.
type Ring struct {
	keys atomic.Pointer[[][]byte] // never changed, only replaced
}

// New makes a ring. There must be a key, unless nobody ever asks for one.
func New(keys ...[]byte) *Ring {
	r := new(Ring)
	r.Set(keys)
	return r
}

// Set replaces all keys. The ring keeps the slice.
func (r *Ring) Set(keys [][]byte) { r.keys.Store(&keys) }

// First returns the key to sign with.
func (r *Ring) First() []byte { return (*r.keys.Load())[0] }

// All returns the keys that may have signed. The caller must not change the slice.
func (r *Ring) All() [][]byte { return *r.keys.Load() }
