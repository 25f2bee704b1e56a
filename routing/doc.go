// Package routing answers one question: who gets it?
//
// It has two halves.
//
// [Table] is what this node knows: client ID -> session -> connections. It is in memory, and all
// event loops share it. They read it for every message and write it when an ID is bound or a
// connection opens or closes. [Table.Lookup] and [Session.Pick] together turn an ID into a
// connection without a lock or an allocation.
//
// [Registry] is what the cluster knows: which session holds an ID, and on which nodes that session
// is attached. [Memory] is the registry of a single node; package routing/redis has that of a
// cluster. Both pass the contract suite in routing/registrytest.
//
// Information flows in one direction: a node asks the registry and writes the answer into the
// table. The table never decides who holds an ID. The epoch makes that safe against late and
// repeated answers: the registry mints a number for each bind, and for one ID these numbers only
// grow (rules S10 to S13 of the design).
//
// The package does no I/O, starts no goroutine, and imports nothing else of this
// module.
package routing
