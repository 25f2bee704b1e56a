// Package peers is how a node deals with the other nodes of its cluster. [Handshake] is what two of
// them say to each other before a link between them opens.
package peers
