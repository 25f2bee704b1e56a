// Package redis is the registry of a cluster: a [routing.Registry] whose truth is in Redis, alone,
// under sentinels or as a Redis Cluster, and shared by all nodes. For whoever runs that Redis:
// docs/registry.md.
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
// Every bucket and every session belongs to one of 256 groups, and since the group stands in
// braces, a group's keys and its marker are always on one master. The keys of a script are of one
// group.
//
// # When Redis has lost data
//
// A marker that is gone or another one says that the keys of its group are lost, and one with a run
// ID that is not that of a master says that the latest of them may be (rule S18 of the design). A
// miss counts only if the marker, read after it on the same connection, is the known one; run IDs
// are compared on each new connection and every second. After a loss a window opens in which no
// miss counts, on all nodes, and Lost says so, for the node to re-assert what it knows.
//
// # When Redis does not answer
//
// The first call that it leaves without an answer waits for its timeout, the others fail at once,
// until a check, of which there is one every second, is answered. A Redis Cluster is asked all the
// same, for its other masters may be well.
//
// # The dead
//
// EndSession makes a session dead at once and removes the bindings that its caller names soon
// after. The rest is the sweep's, one node's at a time: it walks all buckets, slowly, ends sessions
// that have been attached nowhere for long, and removes what dead sessions hold (rule S17). Each
// step has a budget of time and reads large buckets in parts. What cannot be read or removed holds
// nothing else up, and is tried again.
//
// # What was true once
//
// Data that come back from a backup, or with a replica that was behind, hold bindings and presences
// that are over. The registry cannot tell. So once in each VerifyPeriod, and soon after a loss, the
// walk shows all it finds to whoever calls Claims, which is a node, and that passes on to the other
// nodes what names them (rule S27). Redis is read by one node only.
package redis
