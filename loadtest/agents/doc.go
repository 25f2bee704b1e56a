// Package agents makes several load tests, on several machines, one run.
//
// An [Agent] serves runs on one machine. [Run] is the coordinator: it gives each agent its share of
// the load, starts and stops all of them at the same moment, and makes one report of their reports.
// Coordinator and agents speak HTTP with JSON, with or without TLS (wire.go). The coordinator reads
// each agent's clock at the beginning and at the end, up to half a round trip (link.go). It
// measures the server itself (server.go).
//
// The connections of an agent send to each other, not to those of other agents. So one ledger sees
// both ends of every message, and judges it by the same code, and on the same clock, as in a run of
// one process. The alternative is to collect the records of all agents at the end. That would cost
// memory for every message, and would judge the order of deliveries on clocks that differ. It could
// not keep a window without ack at all. A node sees no difference: in both cases a message goes
// from one connection to another. A message that reaches the wrong agent counts as misrouted there,
// because each agent is a run with its own IDs and its own number.
//
// Latencies are merged as histograms (merge.go), never as percentiles.
package agents
