// Package directory is the office of a node: everything that may wait for the registry. It binds
// and unbinds IDs, opens and ends sessions, finds out who holds an ID, and keeps the registry in
// line with what the node knows.
//
// A loop must never wait, so it hands its work in: [Directory.Do] for a request of a client,
// [Directory.Join] for a hello, [Directory.Resolve] for the receiver of a message. The directory
// works on goroutines of its own, in lanes (see lane.go), and answers by [Loops] and [Peers]. Those
// only queue what they are given for a loop. So nothing in this package touches a connection, and
// no connection can reach the registry.
//
// Lock order. Under watcher.mu, a method of Loops may take the lock of a loop's inbox. Under
// watcher.mu, room.mu and takeovers.mu, refusals.mu may be taken. All other locks of this package
// are taken alone.
package directory
