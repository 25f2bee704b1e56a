// Package redis is the registry of a cluster: a [routing.Registry] whose data are in Redis, which
// all nodes share. Redis may run alone, under sentinels or as a Redis Cluster. docs/registry.md is
// for people who run that Redis.
//
// # Keys
//
//	<prefix>:{G}:b:N      bucket N: hash of ID -> session, epoch; its field "" is the greatest epoch it ever held
//	<prefix>:{G}:l:N      the same for IDs over 64 bytes, which would spoil the compact form of a bucket
//	<prefix>:{G}:s:HEX    session HEX: hash of incarnation, node -> attach serial; or "dead", for some time
//	<prefix>:{G}          marker of group G: a random name, the server's run ID, and the key of the hash
//	<prefix>:hash         the key of the hash that says which bucket an ID belongs to; see hashKey
//	<prefix>:{G}:ended    ring of the sessions that have ended last; see end.lua
//	<prefix>:{G}:probe    what Probe writes, and removes at once
//	<prefix>:sweeper      which node sweeps
//	<prefix>:fingerprint  of the cluster that the keys belong to
//
// Every bucket and every session belongs to one of 256 groups. Because the group is in braces, a
// group's keys and its marker are always on one master. All keys of a script belong to one group.
//
// # When Redis has lost data
//
// If a marker is gone or has changed, the keys of its group are lost. If a marker's run ID is not
// that of a master, the latest keys may be lost (rule S18 of the design). A miss counts only if the
// marker, read after the miss on the same connection, is the known one. Run IDs are compared on
// each new connection and every second. After a loss, a window opens on all nodes in which no miss
// counts, and Lost reports the loss, so that the node re-asserts what it knows.
//
// # When Redis does not answer
//
// The first unanswered call waits for its timeout. The others fail at once until a check is
// answered. There is a check every second. Calls to a Redis Cluster are always sent, because its
// other masters may answer.
//
// # The dead
//
// EndSession makes a session dead at once, and soon after removes the bindings that its caller
// names. The sweep does the rest, on one node at a time. It walks all buckets, slowly, ends
// sessions that have been detached for a long time, and removes the bindings of dead sessions (rule
// S17). Each step has a time budget and reads large buckets in parts. What cannot be read or
// removed delays nothing else, and is tried again.
//
// # What was true once
//
// Data from a backup, or from a replica that was behind, contain bindings and presences that are
// over. The registry cannot detect that. So once in each VerifyPeriod, and soon after a loss, the
// walk reports all that it finds to the node that calls Claims. That node passes the entries that
// name other nodes on to them (rule S27). Only one node at a time reads through Redis.
package redis
