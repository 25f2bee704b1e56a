// Package ackmgr answers one question: did it arrive?
//
// A [Manager] remembers what one event loop has delivered and not yet heard
// about. The loop arms an entry for each delivery that wants an ack and puts
// the entry's [Token] on the wire; the receiver echoes the token. From then on
// the entry ends exactly once, in one of four ways:
//
//   - [Manager.End]: the ack came, or the caller gave up;
//   - [Manager.Advance]: the deadline passed;
//   - [Manager.EndDest]: the connection it was delivered to died;
//   - [Manager.EndOrigin]: the connection it came from died.
//
// A million can end at one moment. [Manager.AdvanceSome], [Manager.EndDestSome] and
// [Manager.EndOriginSome] end some of them, so that the loop can do other things in
// between.
//
// The caller looks up a token that comes back from the network first. [Manager.Lookup]
// distinguishes a pending entry, an entry that has ended (a late ack, which is normal), and a token
// that was never handed out (a forgery).
//
// The package does no I/O, starts no goroutine and reads no clock: now is an
// argument, in milliseconds on the caller's monotonic clock. A Manager belongs
// to one event loop and must not be used by two goroutines at once. Its
// callbacks run in the middle of a call and may call every method.
//
// # How it is built
//
// Entries live in a slab of fixed pages and refer to each other by index. Each entry is on three
// rings: a bucket of the timer wheel, its destination's list and its origin's list (slab.go). The
// wheel has 4 levels of 256 buckets, one millisecond each at the lowest, so a deadline is met to
// the millisecond. The wheel skips an empty stretch of time by counting zero bits (wheel.go).
//
// Arming, ending and expiring take constant time (an entry moves
// down the wheel at most three times) and allocate nothing once the slab has
// grown to the load. A pending entry takes 64 bytes. The slab does not shrink.
//
// # How long a token stays unique
//
// Slots are reused first in, first out, and each use has the next of 2^22-1
// generations. The slab is never smaller than a page of 4096 slots, so at least
// 17 billion entries are armed before a token repeats: more than two hours at
// two million a second.
package ackmgr
