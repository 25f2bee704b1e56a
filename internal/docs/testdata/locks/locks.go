// Package locks takes locks under each other in ways that its documentation denies. It says:
//
//	a.mu > b.mu, d.mu
//	b.mu > a.mu, c.mu
package locks

import "sync"

type a struct{ mu sync.Mutex }
type b struct{ mu sync.Mutex }
type c struct{ mu sync.RWMutex }
type d struct{ mu, other sync.Mutex }

type taker interface{ take() }

func (x *b) take() {
	x.mu.Lock()
	defer x.mu.Unlock()
}

func (x *d) takeMine() {
	x.mu.Lock()
	x.mu.Unlock()
}

// By way of an interface.
func (x *a) takeBoth(t taker) {
	x.mu.Lock()
	t.take()
	x.mu.Unlock()
}

// At once; and what is released on one branch is held on the other.
func (x *b) both(y *a, early bool) {
	x.mu.Lock()
	if early {
		x.mu.Unlock()
		return
	}
	y.mu.Lock()
	y.mu.Unlock()
	x.mu.Unlock()
}

// In a function literal, behind a deferred unlock.
func (x *c) each(y *d, z *a) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	func() { y.takeMine() }()
	go z.mu.Lock() // not under it
}

// By way of a method, and not when it is released before.
func (x *a) late(y *d, z *c) {
	z.mu.Lock()
	z.mu.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	y.takeMine()
}

func (x *d) twice() {
	x.other.Lock()
	defer x.other.Unlock()
	x.takeMine()
}

// A literal that is kept is not called under the lock, one that each calls is.
func (x *b) given(y *c) {
	x.mu.Lock()
	defer x.mu.Unlock()
	keep(func() { y.mu.Lock() })
}

var kept func()

func keep(f func()) { kept = f }
