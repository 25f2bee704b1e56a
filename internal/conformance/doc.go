// Package conformance plays a node that does what real nodes do seldom or never, and judges what a
// client makes of it: it kicks, delivers under stale epochs, sends kinds, fields and codes of the
// future, grants little credit, falls silent, fences, drains and moves. docs/conformance.md is the
// page for those who write a client.
//
// A Scenario is one such play with one client. Config.Client runs the client, and Run returns a
// Verdict for each scenario. The scenarios stand in tables, in the files named scenarios_….go; what
// they have in common (the rules that hold in all of them) stands in rules.go and messages.go.
//
// The node here speaks with package codec alone and shares nothing with package engine: it has to
// do what a real node never does.
package conformance
