// Package loadtest sends messages through running nodes, keeps a ledger of every one of them, and
// reports how fast they went and whether the node told the truth about each.
//
// [Run] is the whole of it: a [Config] goes in, a [Report] comes out. Inside there are four parts,
// and each knows only the next:
//
//   - run.go leads a run through its phases: connect, warm up, measure, let what is in flight end,
//     judge.
//   - traffic.go decides what is sent when: a window of messages per connection (closed loop), or a
//     rate (open loop). It hears of every delivery and outcome and passes them to the ledger and
//     the meter.
//   - internal/ledger knows of every message whether it was delivered and how it ended, and finds
//     the faults. It also knows when things happened.
//   - a driver (driver.go) moves the bytes. wire.go drives any protocol on one event loop, relay.go
//     and nats.go are such protocols; sdk.go drives the client SDK instead.
//
// Nodes may die, drain and be replaced while it runs; that is no fault, as long as what is said of
// each message is true. A connection that is lost is made again at the next node that is known, one
// whose node drains moves without a gap (wire.go: another leg first, then the old one leaves), and
// a session goes on where it can be resumed. What the ledger must know of it to judge order by S20
// (docs/semantics.md) is which message left first over a new connection, and from when to when the
// route to a receiver changed: messages sent before the end of a change may be overtaken, but not
// before its beginning. How long nodes take to tell each other cannot be seen from outside: a
// change counts as over a second after its end, if there are several nodes. With sessions at
// several nodes ([Config].Attach) order is judged for what one of their connections carries to one
// ID. The SDK does not tell which message was the first to take a new connection, nor when an old
// one is gone, and tells of deliveries and of changes on different goroutines, so that the ledger
// may hear of a change up to a second after its beginning; so with that driver all messages in
// flight at a change may be overtaken, and a drain counts as a change until its deadline is over
// and 5 s more.
//
// With [Config].Fanout each message is a multicast. Its copies are messages of their own to the
// ledger, with numbers that follow each other; they share one payload, so that which of them
// arrived is read off the ID that it came to.
//
// A no_route is false if the receiver's session held its ID from before the send, and is later
// found to have lived all the time (Faults.FalseNoRoute). The same goes for a denied and the
// sender's session (Faults.FalseDenied). Of an ID that had to be bound anew, nothing is concluded.
//
// Programs that break things meanwhile learn from [Config.Started] when messages flow and what has
// happened so far, and end the run with [Config.Until].
//
// All of a run's state belongs to one goroutine at a time (the driver's event loop, or whoever
// holds the SDK driver's lock); nothing but the driver knows which.
package loadtest
