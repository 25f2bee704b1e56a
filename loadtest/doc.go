// Package loadtest sends messages through running nodes and keeps a ledger of every message. It
// reports how fast the messages were, and whether the outcome of each is true.
//
// [Run] does all of this: it takes a [Config] and returns a [Report]. Inside there are these
// parts, and each knows only the next ones:
//
//   - run.go runs the phases: connect, warm up, measure, wait for messages in flight, judge.
//   - sampler.go makes the time series: once a second it takes what has happened since.
//   - internal/drive moves the bytes. Its drivers connect to servers, by a protocol or with the
//     SDK. churn.go changes their connections meanwhile.
//   - internal/traffic decides what is sent when: a window of messages per connection (closed
//     loop), or a schedule (open loop, internal/shape). It receives every delivery and outcome and
//     passes them to the ledger and the meter.
//   - internal/ledger knows for every message whether it was delivered and how it ended, and finds
//     the faults.
//
// Nodes may die, drain and be replaced during a run. That is not a fault, as long as the outcome of
// each message is true. A lost connection is opened again at the next known node. A connection
// whose node drains moves without a gap: it opens another leg first, and then the old leg leaves
// (drive/wire.go). So does a connection whose node asks it to log in again. A session continues
// where it can be resumed.
//
// Messages that were sent before the end of a change may be overtaken, but not before its beginning
// (S20). So the ledger must know which message left first over a new connection, and from when to
// when the route to a receiver changed. Nobody outside can see how long
// nodes take to notify each other. So if there are several nodes, a change counts as over one
// second after its end. If sessions are attached to several nodes ([Config].Attach), the order is
// judged among the messages that one of their connections carries to one ID.
//
// The SDK does not report which message was the first on a new connection, nor when an old
// connection has closed. It reports deliveries and changes on different goroutines, so the ledger
// may hear of a change up to a second after its beginning. So with that driver all messages in
// flight at a change may be overtaken, and a drain counts as a change until 5 s after its deadline.
//
// With [Config].Fanout, each message is a multicast. For the ledger, its copies are messages of
// their own with consecutive numbers. They share one payload, so the ID that a copy came to tells
// which copy it is.
//
// A no_route is false if the receiver's session held its ID from before the send, and is later
// found to have lived all the time (Faults.FalseNoRoute). The same holds for a denied and the
// sender's session (Faults.FalseDenied). The ledger concludes nothing about an ID that had to be
// bound again.
//
// Programs that inject faults during a run learn from [Config.Started] when messages flow and what
// has happened so far. They end the run with [Config.Until].
//
// All of a run's state belongs to one goroutine at a time (the driver's event loop, or the holder
// of the SDK driver's lock). Only the driver knows which.
package loadtest
