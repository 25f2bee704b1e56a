package engine

import (
	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// wire carries the bytes of a connection. It is a socket, or a connection in memory (see pipe).
// Only the connection's loop calls it, once for each write or change of state and never for each
// message.
type wire interface {
	// write hands bufs over, in order. The wire owns the buffers from here on. If a write fails, it
	// closes the connection in the middle of the call.
	write(l *loop, bufs [][]byte)
	// backlog returns how many bytes wait that the kernel has not taken.
	backlog() int
	// inKernel returns how many bytes the kernel has taken and the peer has not.
	inKernel() int
	// hold stops input, or starts it again.
	hold(l *loop, on bool)
	// shut closes our side. The peer reads what was written, and then the end.
	shut()
	// cut closes both sides and drops the backlog.
	cut()
	// close frees the wire. It calls conn.wireClosed before it returns.
	close(l *loop)
}

// socket is a connection of gnet's.
type socket struct{ gc gnet.Conn }

func (s *socket) write(l *loop, bufs [][]byte) {
	// The loop's scratch is taken away meanwhile, because the end of a connection can make another
	// one flush.
	spent := l.scratch.spent
	l.scratch.spent = nil
	spent = append(spent[:0], bufs...) // gnet changes the slice that it gets
	if len(bufs) == 1 {
		_, _ = s.gc.Write(bufs[0])
	} else {
		_, _ = s.gc.Writev(bufs)
	}
	for _, b := range spent {
		l.bufs.put(b)
	}
	l.scratch.spent = spent
}

func (s *socket) backlog() int { return s.gc.OutboundBuffered() }

// inKernel asks the kernel. Without it a client that reads slowly would look dead: gnet hears of
// room only when a third of the kernel's buffer is free, and that can be megabytes.
func (s *socket) inKernel() int {
	n, err := unix.IoctlGetInt(s.gc.Fd(), unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}

// hold makes epoll report no input of the socket, or report it again. gnet itself reads on when its
// buffer for the kernel runs full or empty, because it then sets what epoll reports.
func (s *socket) hold(l *loop, on bool) {
	if l.poll.epoll < 0 {
		return
	}
	var events uint32
	if !on {
		events = unix.EPOLLIN | unix.EPOLLPRI
	}
	if s.gc.OutboundBuffered() > 0 {
		events |= unix.EPOLLOUT
	}
	fd := s.gc.Fd()
	_ = unix.EpollCtl(l.poll.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
}

// readOn reads into buf input that gnet has not read.
func (s *socket) readOn(buf []byte) int {
	n, _ := unix.Read(s.gc.Fd(), buf)
	return max(n, 0)
}

func (s *socket) shut() { _ = unix.Shutdown(s.gc.Fd(), unix.SHUT_WR) }

func (s *socket) cut() { _ = unix.Shutdown(s.gc.Fd(), unix.SHUT_RDWR) }

// close closes the file descriptor. gnet calls OnClose in the middle of it.
func (s *socket) close(l *loop) { _ = l.el.Close(s.gc) }
