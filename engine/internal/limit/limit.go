// Package limit holds the arithmetic of rates, and counts what the clients of one identity use. It
// reads no clock: each call gets the time.
//
// A rate is a token bucket. A frame may use more tokens than the bucket holds, if the bucket is not
// empty: it then owes the rest, and the next frame waits until that is paid. So a frame that is
// larger than the burst is slow, but not impossible.
package limit

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Rate is how many tokens come in a second, and how many may be used at once. The zero value is no
// limit.
type Rate struct {
	PerSecond int64
	Burst     int64 // at least 1 if PerSecond is not 0
}

const (
	// unbounded bounds the tokens that come in a time.
	unbounded = math.MaxInt64 / 4
	// longest bounds the time that tokens take to come.
	longest = math.MaxInt64 / 4
)

const (
	// batchesPerSecond says for how much of a second a caller takes tokens in advance.
	batchesPerSecond = 1000
	// freeBatch is how many tokens without a limit a caller takes at once. It uses them up before
	// it notices that there is a limit now.
	freeBatch = 1 << 20
)

// batch returns how many tokens a caller takes at once: those of a millisecond, and at least one.
func (r Rate) batch() int64 {
	if r.PerSecond == 0 {
		return freeBatch
	}
	return max(1, min(r.PerSecond/batchesPerSecond, r.Burst))
}

// timeOf returns how long n tokens take to come, rounded up.
func (r Rate) timeOf(n int64) time.Duration {
	hi, lo := bits.Mul64(uint64(n), uint64(time.Second))
	if hi >= uint64(r.PerSecond) {
		return longest
	}
	d, rest := bits.Div64(hi, lo, uint64(r.PerSecond))
	if rest > 0 {
		d++
	}
	return time.Duration(min(d, longest))
}

// in returns how many tokens come in d.
func (r Rate) in(d time.Duration) int64 {
	hi, lo := bits.Mul64(uint64(d), uint64(r.PerSecond))
	if hi >= uint64(time.Second) {
		return unbounded
	}
	n, _ := bits.Div64(hi, lo, uint64(time.Second))
	return int64(min(n, unbounded))
}

// A bucket is one moment: when all tokens that were used will have come. It is full if that moment
// is a whole burst or more ago, and empty if the moment is not before now.

// take takes up to n tokens, and returns the new moment and how many it took.
func (r Rate) take(moment, now time.Duration, n int64) (time.Duration, int64) {
	if r.PerSecond == 0 {
		return moment, n
	}
	moment = r.full(moment, now)
	if n = min(n, r.Burst, r.in(max(0, now-moment))); n <= 0 {
		return moment, 0
	}
	return used(moment + r.timeOf(n)), n
}

// owe uses n tokens, whether or not they have come.
func (r Rate) owe(moment, now time.Duration, n int64) time.Duration {
	if r.PerSecond == 0 {
		return moment
	}
	return used(min(r.full(moment, now), longest) + r.timeOf(n))
}

// used returns the moment of a bucket that was used. 0 would mean that it never was, and in the
// first moments of a clock it could come out as that.
func used(moment time.Duration) time.Duration {
	if moment == 0 {
		return 1
	}
	return moment
}

// full returns the moment of a bucket that holds at most a burst.
func (r Rate) full(moment, now time.Duration) time.Duration {
	if least := now - r.timeOf(r.Burst); moment == 0 || moment < least { // 0: nothing was ever used
		return least
	}
	return moment
}

// wait returns how long it takes from now until a token has come.
func (r Rate) wait(moment, now time.Duration) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	return max(0, moment-now+r.timeOf(1))
}

// Bucket is a token bucket of one goroutine. The zero value is full.
type Bucket struct{ moment time.Duration }

// Take takes up to n tokens and returns how many.
func (b *Bucket) Take(r Rate, now time.Duration, n int64) (got int64) {
	b.moment, got = r.take(b.moment, now, n)
	return got
}

// Wait returns how long it takes until a token is there, or 0.
func (b *Bucket) Wait(r Rate, now time.Duration) time.Duration {
	if r.PerSecond == 0 {
		return 0
	}
	return r.wait(r.full(b.moment, now), now)
}

// Full reports whether the bucket is as if nothing had been used.
func (b *Bucket) Full(r Rate, now time.Duration) bool {
	return r.PerSecond == 0 || b.moment == 0 || b.moment <= now-r.timeOf(r.Burst)
}

// giveBack undoes a part of the latest Take.
func (b *Bucket) giveBack(r Rate, n int64) {
	if r.PerSecond != 0 && n > 0 {
		b.moment -= r.timeOf(n)
	}
}

// Pool is a token bucket that many goroutines share without a lock. The zero value is full.
type Pool struct{ moment atomic.Int64 }

// Take takes up to n tokens and returns how many.
func (p *Pool) Take(r Rate, now time.Duration, n int64) int64 {
	for {
		old := p.moment.Load()
		moment, got := r.take(time.Duration(old), now, n)
		if got == 0 || int64(moment) == old || p.moment.CompareAndSwap(old, int64(moment)) {
			return got
		}
	}
}

// fill makes the bucket full.
func (p *Pool) fill() { p.moment.Store(0) }

// owe uses n tokens, whether or not they have come.
func (p *Pool) owe(r Rate, now time.Duration, n int64) {
	for {
		old := p.moment.Load()
		if p.moment.CompareAndSwap(old, int64(r.owe(time.Duration(old), now, n))) {
			return
		}
	}
}

// Meter is what one connection may use of a rate of its own and of one that it shares. One
// goroutine owns it. It takes tokens in batches of about a millisecond, so that most uses cost one
// comparison and no atomic operation.
type Meter struct {
	left int64 // taken from both buckets and not used
	own  Bucket
}

// Use uses n tokens of those that the meter has. If it returns false, Draw may help.
func (m *Meter) Use(n int64) bool {
	if m.left < n {
		return false
	}
	m.left -= n
	return true
}

// Renew makes the meter ask its buckets before the next use, because a rate has changed. What it
// owes at the old rate could be much at the new one, so its own bucket is full again.
func (m *Meter) Renew() { *m = Meter{} }

// Return gives back n tokens that were used.
func (m *Meter) Return(n int64) { m.left += n }

// Draw uses n tokens, and takes more of them from its buckets. If one of the rates is used up, Draw
// uses nothing, and says which rate it is and for how long. shared may be nil.
func (m *Meter) Draw(n int64, own, common Rate, shared *Pool, now time.Duration) (over Over, wait time.Duration) {
	want := n - m.left + min(own.batch(), common.batch())
	got := m.own.Take(own, now, want)
	if m.left+got == 0 {
		return OverOwn, own.wait(m.own.moment, now)
	}
	if shared != nil {
		granted := shared.Take(common, now, got)
		m.own.giveBack(own, got-granted)
		if got = granted; m.left+got == 0 {
			return OverShared, common.wait(time.Duration(shared.moment.Load()), now)
		}
	}
	if m.left += got - n; m.left < 0 {
		m.own.moment = own.owe(m.own.moment, now, -m.left)
		if shared != nil {
			shared.owe(common, now, -m.left)
		}
		m.left = 0
	}
	return Within, 0
}

// Over says which of two rates is used up.
type Over uint8

// The results of Meter.Draw.
const (
	Within Over = iota
	OverOwn
	OverShared
)
