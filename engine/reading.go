package engine

import (
	"reflect"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

const (
	// readBuffer is how many bytes gnet reads from a socket at once. It reads all sockets that have
	// something, one after the other, before the loop can turn to anything else: 2,000 with a full
	// buffer for each would hold up everybody else for long.
	readBuffer = 16 << 10
	// readMost is what a loop that has the time for it reads from a socket at once, with what gnet
	// has read. A link carries what many connections send, and what is read in one go is written in
	// one go.
	readMost = 256 << 10
)

// gnet has no way to stop reading from a connection. What epoll reports of a socket decides that,
// so the loop asks epoll itself to report no input of a connection whose input has to wait.

// poller is what the loop knows of gnet's poller, and how it reads from sockets besides. The loop
// owns it.
type poller struct {
	loop *loop // static

	epoll  int            // static; its epoll descriptor, or -1, see epollOf
	nudged bool           // again was called since gnet has last read
	nudge  [1]byte        // what again writes
	polled [1]unix.PollFd // scratch of inputWaits
	more   []byte         // scratch of readOn
}

// epollOf returns the epoll descriptor of a gnet loop, or -1 if this version of gnet keeps it
// elsewhere. Then nothing stops gnet from reading, and input waits up to maxConnUnread.
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

// setReading has input of the connection come or not.
func (in *input) setReading(on bool) {
	c := in.conn
	if c.wire != nil {
		c.wire.hold(c.loop, !on)
	}
}

// readOn reads what the socket has beyond a full readBuffer, unless the connection has to wait. The
// bytes are valid until the next call. What does not fit is gnet's again, and so is the end of the
// input.
func (p *poller) readOn(c *conn) []byte {
	l := p.loop
	if c.wire == nil || c.state == stateClosed || c.in.inTurns || l.pace.full && c.kind != linkConn {
		return nil
	}
	if p.more == nil {
		p.more = make([]byte, readMost-readBuffer)
	}
	n := c.wire.readOn(p.more)
	l.pace.worked(callbackWork)
	return p.more[:n]
}

// inputWaits reports whether sockets that gnet reads have something, or others have left something
// for this loop. It takes nothing away: it does not ask epoll for events, but whether there are
// any.
func (p *poller) inputWaits() bool {
	if p.loop.armed.Load() || p.epoll < 0 {
		return true
	}
	p.polled[0] = unix.PollFd{Fd: int32(p.epoll), Events: unix.POLLIN}
	n, err := unix.Poll(p.polled[:], 0)
	return n != 0 || err != nil
}
