// Package conformance plays a node that does what real nodes do seldom or never, and judges how a
// client reacts. The node kicks, delivers under stale epochs, sends kinds, fields and codes of
// future versions, grants little credit, falls silent, fences, drains and moves.
// docs/conformance.md is the page for authors of clients.
//
// A Scenario is one such play with one client. Config.Client runs the client, and Run returns a
// Verdict for each scenario. The files scenarios_….go have tables of scenarios. rules.go and
// messages.go have the rules that hold in all of them.
//
// The node here uses only package codec and shares nothing with package engine, because it must do
// what a real node never does.
package conformance
