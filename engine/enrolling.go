package engine

import (
	"net"
	"sync"
	"time"
)

// A connection is enrolled when its loop comes to it, which takes an iteration. If the acceptor
// waited for each, a busy loop would take one new connection in an iteration, and a client that
// comes behind a thousand others would wait for seconds. So several are enrolled at a time.

const (
	// enrollAtOnce is how many connections of a port are enrolled at a time. Each has two file
	// descriptors for as long.
	enrollAtOnce = 32
	// enrollPatience is for how long the acceptor waits for one when no other is under way. gnet
	// gives a connection to the loop with the fewest, and counts those that are enrolled.
	enrollPatience = 200 * time.Microsecond
)

// enrolling is the connections of a port that are on their way to their loops. It belongs to the
// acceptor's goroutine.
type enrolling struct {
	eng    *Engine
	port   *port
	places chan struct{} // has one for each
	failed chan error    // holds one
	work   sync.WaitGroup
}

func newEnrolling(e *Engine, p *port) *enrolling {
	return &enrolling{eng: e, port: p, places: make(chan struct{}, enrollAtOnce), failed: make(chan error, 1)}
}

// begin enrolls an admitted connection. The error is why that failed, or why it failed for one
// before.
func (n *enrolling) begin(nc net.Conn, c *conn) error {
	n.places <- struct{}{}
	alone := len(n.places) == 1
	done := make(chan struct{})
	n.work.Go(func() {
		defer close(done)
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
	})
	if alone {
		patience := time.NewTimer(enrollPatience)
		defer patience.Stop()
		select {
		case <-done:
		case <-patience.C:
		}
	}
	select {
	case err := <-n.failed:
		return err
	default:
		return nil
	}
}

// wait returns when none is under way.
func (n *enrolling) wait() { n.work.Wait() }
