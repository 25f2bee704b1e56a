// Package routing answers one question: who gets it?
//
// It has two halves.
//
// [Table] is what this node knows: client ID -> session -> connections, in
// memory, shared by all event loops, read for every message and written when an
// ID is bound or a connection comes or goes. [Table.Lookup] and [Session.Pick]
// together turn an ID into a connection without a lock or an allocation.
//
// [Registry] is what the cluster knows: which session holds an ID, and on which
// nodes that session is attached. [Memory] is the registry of a single node;
// package routing/redis holds the one of a cluster. Both pass the contract suite
// in routing/registrytest.
//
// The truth flows one way: a node asks the registry, and what the registry says
// goes into the table. The table never decides who holds an ID. What makes that
// safe against late and repeated answers is the epoch, a number that the registry
// mints for each bind and that only grows for one ID (rules S10 to S13 of
// the design).
//
// The package does no I/O, starts no goroutine, and imports nothing else of this
// module.
package routing
