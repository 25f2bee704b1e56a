package loadtest

import "context"

// A driver connects to the nodes, sends the messages of the traffic, and passes what arrives to the
// traffic. It grants the exclusive right to the traffic's state: the driver's own calls into
// traffic have it, and all others get it with do.
type driver interface {
	// connect opens all connections and binds their IDs.
	connect(ctx context.Context) error
	// do runs f with the exclusive right and returns after it.
	do(f func())
	// send accepts a message for a connection that is up. If it cannot at the moment, it returns
	// false, and the driver calls traffic.fill when it can. The caller has the exclusive right.
	send(conn int, m *message) bool
	// settle returns when everything has arrived that the nodes wrote before the call.
	settle(ctx context.Context) error
	// close ends the connections, gracefully where possible, and frees everything.
	close()
}

// A protocol speaks for one leg of the wire driver (wire.go). It appends bytes to what the leg will
// write, and passes what it reads to the traffic. All methods are called on the event loop.
type protocol interface {
	// open appends the first bytes of a new leg.
	open(b []byte) []byte
	// send appends a message. It returns false if it cannot at the moment.
	send(b []byte, m *message) ([]byte, bool)
	// parse reads the complete frames of b and returns how many bytes they took. It appends its
	// answers to the leg's pending bytes. b is valid only during the call. An error ends the leg.
	parse(b []byte) (used int, err error)
	// ping appends a request whose answer comes after everything that the node has written so far.
	// parse passes the answer to the leg's ponged.
	ping(b []byte) []byte
	// beat appends a request whose answer only shows that the node lives, or nothing.
	beat(b []byte) []byte
	// leave appends a request to deliver nothing more here. The answer goes to the leg's gone. It
	// is called only if the protocol moves.
	leave(b []byte) []byte
	// bye appends a farewell.
	bye(b []byte) []byte
}
