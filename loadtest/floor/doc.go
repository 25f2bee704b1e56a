// Package floor is a relay that does as little as a relay can do, and so shows what a message costs
// at least. `loadtest compare` measures the node against it. It is of no other use: it has no IDs,
// sessions, outcomes, limits or security, and it drops what it cannot deliver.
//
// It stands on the same event loop as the node (gnet), with the same flush policy: it reads what a
// socket has, copies each frame once, and writes each destination once per iteration.
//
// A client is known by numbers that it claims. A frame is
//
//	0  length of what follows (4 bytes, little endian)
//	4  destination (4 bytes, little endian)
//	8  kind
//	9  body, which only clients read
//
// The relay passes a frame on as it is to the client that has claimed its destination. With the
// kind [Claim], the sender claims the number instead. With the kind [Join], it joins the group with
// that number: the relay passes a frame to a group on to all who have joined, but for the sender. A
// number that a client has claimed is no group.
//
// A receiver acks a message with a frame of its own to the number of the sender. So a message with
// ack costs four frames, as it does at the node. A frame to a number of one's own comes back behind
// all that the relay has written before.
package floor
