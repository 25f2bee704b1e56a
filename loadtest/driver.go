package loadtest

import "context"

// A driver connects to the nodes, sends what the traffic tells it, and tells the traffic what came
// in. It grants an exclusive right to the traffic's state: the driver's own calls into traffic have
// it, everybody else gets it with do.
type driver interface {
	// connect opens all connections and binds their IDs.
	connect(ctx context.Context) error
	// do runs f with the exclusive right and returns after it.
	do(f func())
	// send takes a message for a connection that is up. false: not now; the driver will call
	// traffic.fill when it can. The caller has the exclusive right.
	send(conn int, m *message) bool
	// settle returns once everything has been heard that the nodes wrote before settle was called.
	settle(ctx context.Context) error
	// close ends the connections, in good order where that is possible, and frees everything.
	close()
}

// A protocol speaks for one leg of the wire driver (wire.go). It appends bytes to what the
// leg will write and tells the traffic what it reads. All methods are called on the event loop.
type protocol interface {
	// open appends what a new leg says first.
	open(b []byte) []byte
	// send appends a message; false: not now.
	send(b []byte, m *message) ([]byte, bool)
	// parse reads the complete frames of b and returns how many bytes they took. What it wants to
	// say goes to the leg's pending bytes. b ends with the call. An error ends the leg.
	parse(b []byte) (used int, err error)
	// ping appends a question whose answer comes behind everything the node has written so far;
	// parse passes the answer to the leg's ponged.
	ping(b []byte) []byte
	// beat appends a question whose answer only shows that the node lives; or nothing.
	beat(b []byte) []byte
	// leave appends that nothing more is to be delivered here; the answer goes to the leg's gone.
	// Called only if the protocol moves.
	leave(b []byte) []byte
	// bye appends a farewell.
	bye(b []byte) []byte
}
