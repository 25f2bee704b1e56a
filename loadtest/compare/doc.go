// Package compare measures our node against nats-server, Redis, and a relay without features
// (loadtest/floor). It starts the servers itself and puts the same loads on all of them.
//
//   - shapes.go has the loads, and what we aim at.
//   - programs.go finds the programs, or builds them from this repository.
//   - servers.go starts a server, on a CPU of its own, and cluster.go two nodes with a link.
//   - compare.go makes the rounds. In each round, each load goes to each server once, so that all
//     of them meet the same moods of the machine.
//
// Each run has a fresh server. The driver runs in this process.
package compare
