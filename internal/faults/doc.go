// Package faults starts a whole cluster of real processes, injects faults, and observes what its
// users notice. It proves that the promises of docs/semantics.md hold when nodes, Redis and
// ZooKeeper die.
//
//   - [Cluster] is redis-server, ZooKeeper or DNS, and relays, with their addresses and logs. Tests
//     inject faults with the methods of its processes (package proc: Kill, Pause, Stop, Restart)
//     and hosts (Partition).
//   - [Load] is the load test, with its ledger, for as long as the fault takes.
//
// - [Users] are sessions at known nodes. They measure how long a fault lasts: until waiting senders
// hear an outcome, and until all IDs can be reached again.
// - [Findings] compares what was promised with what was measured.
//
// The tests are the proofs. Other tests count what moving and binding cost Redis. A short set runs
// with all other tests. The full set takes a few minutes:
//
//	go test ./internal/faults -v -faults.full
//	go test ./internal/faults -v -faults.full -run TestFaults/partition
package faults
