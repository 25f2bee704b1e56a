// Package attack measures the effect on innocent clients while their node is attacked. There is one
// node alone, or three that share a real Redis and ZooKeeper, each a process of its own.
//
//   - attacks.go is the list of attacks, with one small function for each; registry.go has those
//     that cost the registry, and secure.go those on TLS and logins. To add one, write a function
//     and a line in the list.
//
// - [Measure] runs one attack through its phases: a baseline, the attack, five seconds for
// recovery, and a check of the recovery.
//   - [Innocents] are 50 connections: a load with the ledger, senders, binders and lookers at fixed
//     rates, and besides them new sessions.
//
// - [Row] is the result of the measurement, with the bounds.
//
// The attackers are one more process, with a lower priority than the others, because on real
// networks they would not use the CPU of the nodes' and innocents' machines. They connect only to
// loopback addresses. In a full measure, the nodes have half of the CPUs for themselves; see
// [Apart].
//
// The tests run short versions of all attacks and assert counts. The full ones take some minutes
// and print a table:
//
//	go test ./internal/attack -v -attack.full
//	go test ./internal/attack -v -attack.full -run TestAttacks/pending
package attack
