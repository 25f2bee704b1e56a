package engine

import (
	"reflect"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

const (
	// readBuffer is how many bytes gnet reads from a socket at once. Before the loop can do
	// anything else, gnet reads all sockets that have input, one after the other. With large
	// buffers, 2,000 full ones would delay everybody else for long.
	readBuffer = 16 << 10
	// readMost is how many bytes a loop that has time reads from a socket at once, including what
	// gnet has read. A link carries the sends of many connections, and what the loop reads in one
	// go it also writes in one go.
	readMost = 256 << 10
)

// gnet has no call that stops reading from a connection. epoll's events decide what gnet reads. So
// the loop itself asks epoll to report no input of a connection whose input has to wait.

// poller is what the loop knows of gnet's poller, and how the loop reads from sockets itself. The
// loop owns it.
type poller struct {
	loop *loop // static

	epoll  int            // static; its epoll descriptor, or -1, see epollOf
	nudged bool           // again was called since gnet last read
	nudge  [1]byte        // what again writes
	polled [1]unix.PollFd // scratch of inputWaits
	more   []byte         // scratch of readOn
}

// epollOf returns the epoll descriptor of a gnet loop. It returns -1 if this version of gnet keeps
// the descriptor elsewhere. Then nothing stops gnet from reading, and up to maxConnUnread of input
// waits.
func epollOf(el gnet.EventLoop) int {
	v := reflect.Indirect(reflect.ValueOf(el))
	if v.Kind() != reflect.Struct {
		return -1
	}
	poller := reflect.Indirect(v.FieldByName("poller"))
	if poller.Kind() != reflect.Struct {
		return -1
	}
	fd := poller.FieldByName("fd")
	if !fd.IsValid() || !fd.CanInt() {
		return -1
	}
	return int(fd.Int())
}

// setReading starts or stops the input of the connection.
func (in *input) setReading(on bool) {
	c := in.conn
	if c.wire != nil {
		c.wire.hold(c.loop, !on)
	}
}

// readOn reads what the socket has beyond a full readBuffer. It reads nothing if the connection has
// to wait. The bytes are valid until the next call. gnet reads the rest, and sees the end of the
// input.
func (p *poller) readOn(c *conn) []byte {
	l := p.loop
	s := c.socket()
	if s == nil || c.closed() || c.in.inTurns || l.pace.full && c.kind != linkConn {
		return nil
	}
	if p.more == nil {
		p.more = make([]byte, readMost-readBuffer)
	}
	n := s.readOn(p.more)
	l.pace.worked(callbackWork)
	return p.more[:n]
}

// inputWaits reports whether sockets that gnet reads have input, or others have queued something
// for this loop. It takes no event away: it only asks epoll whether there are any.
func (p *poller) inputWaits() bool {
	if p.loop.armed.Load() || p.epoll < 0 {
		return true
	}
	p.polled[0] = unix.PollFd{Fd: int32(p.epoll), Events: unix.POLLIN}
	n, err := unix.Poll(p.polled[:], 0)
	return n != 0 || err != nil
}
