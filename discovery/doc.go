// Package discovery answers one question: which nodes exist?
//
// A [Membership] is the list of nodes as one source knows it. [Static] is a list that never
// changes. Package discovery/zookeeper has the list of a cluster, in which each node registers a
// [Record]. [Peers] is the list that you configure in the nodes of a small cluster. A [Strategy]
// chooses one node of a list for a message: [Random], [RoundRobin] or [PairHash].
//
// The package does no I/O, starts no goroutine, and imports nothing else of this module.
package discovery
