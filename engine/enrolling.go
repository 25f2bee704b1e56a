package engine

import (
	"net"
	"sync"
	"time"
)

// A loop enrolls a connection in its next iteration. If the acceptor waited for each one, a busy
// loop would take one new connection per iteration, and a client behind a thousand others would
// wait for seconds. So the acceptor enrolls several at a time.

const (
	// enrollAtOnce is how many connections of a port are enrolled at a time. Each needs two file
	// descriptors meanwhile.
	enrollAtOnce = 32
	// enrollPatience is how long the acceptor waits for one when no other is under way. gnet gives
	// a connection to the loop with the fewest, and counts only enrolled ones.
	enrollPatience = 200 * time.Microsecond
)

// enrolling holds the connections of a port that are on their way to their loops. The acceptor's
// goroutine owns it.
type enrolling struct {
	eng    *Engine
	port   *port
	places chan struct{} // holds one element per connection
	failed chan error    // holds one
	work   sync.WaitGroup
}

func newEnrolling(e *Engine, p *port) *enrolling {
	return &enrolling{eng: e, port: p, places: make(chan struct{}, enrollAtOnce), failed: make(chan error, 1)}
}

// begin enrolls an admitted connection. It returns the error of this connection, or of one before
// it.
func (n *enrolling) begin(nc net.Conn, c *conn) error {
	n.places <- struct{}{}
	alone := len(n.places) == 1
	done := make(chan struct{})
	n.work.Go(func() {
		defer close(done)
		n.enroll(nc, c)
	})
	if alone {
		patience := time.NewTimer(enrollPatience)
		defer patience.Stop()
		select {
		case <-done:
		case <-patience.C:
		}
	}
	return n.failure()
}

// beginShake has an admitted connection shake hands before it is enrolled. It returns the error of
// a connection before it.
func (n *enrolling) beginShake(nc net.Conn, c *conn) error {
	s := n.port.begin(nc, c, n.eng.cfg.HelloTimeout)
	c.deadline = (n.eng.clock() + n.eng.cfg.HelloTimeout).Milliseconds()
	n.work.Go(func() {
		if s.run(n.eng) {
			n.places <- struct{}{}
			n.enroll(nc, c)
		}
	})
	return n.failure()
}

// enroll enrolls a connection that has a place among those that are enrolled at a time.
func (n *enrolling) enroll(nc net.Conn, c *conn) {
	defer func() { <-n.places }()
	if err := n.eng.acceptor.enroll(nc, c); err != nil {
		n.port.closed(c)
		n.eng.acceptor.refused.Add(1)
		select {
		case n.failed <- err:
		default:
		}
		return
	}
	n.port.hasLoop(c)
}

// failure returns the error of a connection that could not be enrolled, or nil.
func (n *enrolling) failure() error {
	select {
	case err := <-n.failed:
		return err
	default:
		return nil
	}
}

// wait ends the handshakes, and returns when no connection is under way.
func (n *enrolling) wait() {
	for _, s := range n.port.shakes() {
		s.stop()
	}
	n.work.Wait()
}
