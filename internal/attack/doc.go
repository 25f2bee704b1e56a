// Package attack measures what innocent clients feel while somebody attacks their node: one node
// alone, or three that share a real Redis and ZooKeeper, each a process of its own.
//
//   - attacks.go is the list of attacks, with one small function for each; registry.go has those that
//     cost the registry. To add one, write a function and a line in the list.
//   - [Measure] leads one attack through its phases: a baseline, the attack, the five seconds in
//     which all must be as before, and a look at whether it is.
//   - [Innocents] are 50 connections: a load with the ledger, senders, binders and lookers at fixed
//     rates, and besides them new sessions.
//   - [Row] is what was measured, beside the bounds.
//
// The attackers are one more process, with a lower priority than the others: on real networks they
// do not take the CPU of the nodes' machines, nor that of the innocents. They speak to loopback
// addresses only. In a full measure, the nodes have half of the CPUs for themselves; see [Apart].
//
// The tests run short versions of all attacks and assert counts. The full ones take some minutes
// and print a table:
//
//	go test ./internal/attack -v -attack.full
//	go test ./internal/attack -v -attack.full -run TestAttacks/pending
package attack
