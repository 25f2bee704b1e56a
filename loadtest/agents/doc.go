// Package agents makes several load tests, on several machines, one run.
//
// An [Agent] serves runs on one machine. [Run] is the coordinator: it gives each agent its share of
// the load, lets all of them start and stop at the same moment, and makes one report of theirs.
// Coordinator and agents speak HTTP with JSON (wire.go). The coordinator asks each agent for its
// clock, and knows it up to half a round trip (link.go).
//
// The connections of an agent send to each other, not to those of other agents. So one ledger sees
// both ends of every message, and judges it by the same code, and on the same clock, as in a run of
// one process. The other way is to bring the records of all agents together at the end. It would
// cost memory for every message, would judge the order of deliveries on clocks that differ, and a
// window without ack could not be kept at all. For a node there is no difference: a message goes
// from one connection to another in both cases. What comes to a wrong agent counts as misrouted
// there, because each agent is a run with IDs and a number of its own.
//
// Latencies are merged as histograms (merge.go), never as percentiles.
package agents
