// Package discovery answers one question: which nodes exist?
//
// A [Membership] is the list of nodes as one source knows it; [Static] is one that never changes,
// package discovery/zookeeper has that of a cluster, in which each node registers a [Record].
// [Peers] is the list that the nodes of a small cluster are simply told. A [Strategy] chooses one
// node of a list for a message: [Random], [RoundRobin] or [PairHash].
//
// The package does no I/O, starts no goroutine, and imports nothing else of this module.
package discovery
