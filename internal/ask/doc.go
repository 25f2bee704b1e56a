// Package ask has the commands with which operators ask a node about the whole cluster, and give
// orders: relay nodes, relay where, relay drain and so on. They are clients of the API in package
// admin, so they work from any machine that may reach the admin port of one node.
//
// Each command prints a table for people, or with --json the answer of the API. Names and IDs come
// from clients of the cluster, so whatever a terminal could take for a command is quoted.
package ask
