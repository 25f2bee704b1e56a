// Package faults starts a whole cluster of real processes, lets it suffer, and looks at what its
// users notice: it proves that the promises of docs/semantics.md hold when nodes, Redis and
// ZooKeeper die.
//
//   - [Cluster] is redis-server, ZooKeeper and relays, with their addresses and logs. Faults are
//     injected by the methods of its processes (package proc: Kill, Pause, Stop, Restart) and hosts
//     (Partition).
//   - [Load] is the load test, with its ledger, for as long as the fault takes.
//   - [Users] are sessions whose place is known, to ask how long a fault was felt: until waiting
//     senders heard, until all IDs could be reached again.
//   - [Findings] are what was promised beside what was measured.
//
// The proofs are the tests, and with them those that count what moving and binding cost Redis. A
// short set runs with all other tests; the full one takes a few minutes:
//
//	go test ./internal/faults -v -faults.full
//	go test ./internal/faults -v -faults.full -run TestFaults/partition
package faults
