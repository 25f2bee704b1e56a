// Package loadtest sends messages through running nodes, keeps a ledger of every one of them, and
// reports how fast they went and whether the node told the truth about each.
//
// [Run] is the whole of it: a [Config] goes in, a [Report] comes out. Inside there are four parts,
// and each knows only the next:
//
//   - run.go leads a run through its phases: connect, warm up, measure, let what is in flight end, judge.
//   - traffic.go decides what is sent when: a window of messages per connection (closed loop), or a
//     rate (open loop). It hears of every delivery and outcome and passes them to the ledger and the meter.
//   - ledger.go knows of every message whether it was delivered and how it ended, and finds the faults.
//   - a driver (driver.go) moves the bytes. wire.go drives any protocol on one event loop, relay.go
//     and nats.go are such protocols; sdk.go drives the client SDK instead.
//
// All of a run's state belongs to one goroutine at a time (the driver's event loop, or whoever holds
// the SDK driver's lock); nothing but the driver knows which.
package loadtest
