// Package tlsline lets crypto/tls run on an event loop, where nothing may wait and no connection
// has a goroutine of its own.
//
// A Conn begins on a socket, and a goroutine of its own does the handshake, because that waits for
// the peer and takes long. Then the Conn is detached from the socket. From there on the loop, which
// reads the socket and writes to it, feeds in what it has read and gets what is to be written. The
// same tls.Conn works on: it finds a connection whose reads time out when there is no more input.
//
// While the handshake lasts, a Conn reads single records, so what the peer sends behind its
// handshake stays in the socket for the loop.
package tlsline
