package limit

import "sync/atomic"

// Count is a number that many goroutines share without a lock. Its zero value counts nothing.
type Count struct{ n atomic.Int64 }

// take adds up to n to the count, but not beyond most. It returns how many it has added.
func (c *Count) take(most, n int) int {
	for {
		old := c.n.Load()
		got := min(int64(n), int64(most)-old)
		if got <= 0 {
			return 0
		}
		if c.n.CompareAndSwap(old, old+got) {
			return int(got)
		}
	}
}

func (c *Count) giveBack(n int) { c.n.Add(int64(-n)) }

// Places are what one connection uses of a number of its own and of one that it shares. One
// goroutine owns them. It reserves shared places in batches, so that most uses cost one comparison
// and no atomic operation.
//
// If nothing is used, nothing is reserved. So a connection that is idle keeps no place from others.
type Places struct {
	used     int
	allowed  int // how many may be used until Reserve is called
	least    int // Trim has something to do if fewer are used
	reserved int // of those that are shared
}

const (
	// mostPlaces bounds how many places a connection reserves at once.
	mostPlaces = 64
	// placesPart is the part of the shared places that a connection reserves at once. If there are
	// fewer places, it reserves only those that it uses.
	placesPart = 1024
)

// placesBatch returns how many places a connection reserves in advance.
func placesBatch(common int) int { return min(max(0, common)/placesPart, mostPlaces) }

// Used returns how many places are used.
func (p *Places) Used() int { return p.used }

// Free reports whether there is a place. If not, Reserve may help.
func (p *Places) Free() bool { return p.used < p.allowed }

// Use uses a place. The caller has asked whether it is free. If it does not use it, it asks Trims.
func (p *Places) Use() { p.used++ }

// Drop frees a place. It is still reserved: unless the caller uses it again at once, it asks Trims.
func (p *Places) Drop() { p.used-- }

// Trims reports whether Trim has something to do.
func (p *Places) Trims() bool { return p.used < p.least }

// Reserve reserves a place, and some in advance. own is how many the connection may use. common is
// how many all that share may use, or 0 for any number. If there is no place, Reserve says which of
// the two is used up.
func (p *Places) Reserve(own, common int, shared *Count) Over {
	if p.used >= own {
		return OverOwn
	}
	if common <= 0 {
		p.free(shared)
		p.allowed, p.least = own, 1
		return Within
	}
	p.reserved += shared.take(common, min(p.used+max(1, placesBatch(common)), own)-p.reserved)
	p.keep(common)
	if !p.Free() {
		return OverShared
	}
	return Within
}

// Trim gives back what is reserved and is not needed soon.
func (p *Places) Trim(common int, shared *Count) {
	if p.used == 0 {
		p.free(shared)
		return
	}
	if over := p.reserved - p.used - placesBatch(common); over > 0 {
		shared.giveBack(over)
		p.reserved -= over
	}
	p.keep(common)
}

// Renew makes the connection reserve anew before the next use, because a limit has changed.
func (p *Places) Renew() { p.allowed = 0 }

// keep allows what is reserved to be used, unless the limit is lower by now, and until that is too
// much in advance.
func (p *Places) keep(common int) {
	p.allowed, p.least = min(p.reserved, max(0, common)), max(1, p.reserved-2*placesBatch(common))
}

// Close gives back all that is reserved. No place may be used afterwards.
func (p *Places) Close(shared *Count) { p.free(shared) }

func (p *Places) free(shared *Count) {
	if p.reserved > 0 {
		shared.giveBack(p.reserved)
	}
	p.reserved, p.allowed, p.least = 0, 0, 0
}
