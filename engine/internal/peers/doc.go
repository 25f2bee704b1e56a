// Package peers is how a node deals with the other nodes of its cluster.
//
// [Peers] announces this node, follows the list of nodes, dials those that it has to dial, and
// looks for others with this node's name. All of that may wait, on goroutines of its own, and
// reaches the event loops only through [Engine]. [Members] is what is known of the other nodes. A
// [Handshake] is what two nodes say to each other before a link between them opens. It does no I/O
// and never waits.
package peers
