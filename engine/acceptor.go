package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// The engine accepts connections itself and enrolls them into gnet's loops: gnet as a listener
// shuts down when it runs out of file descriptors, and accepts before anyone can count.

const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
	// spareFDs are left to everything that is not a client socket, and spareForNodes besides to a
	// node of a cluster: for links, for handshakes, and for nodes that do not answer.
	spareFDs      = 128
	spareForNodes = 512
)

// defaultMaxConns leaves some of the process's file descriptors to others.
func defaultMaxConns(clustered bool) int {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil || lim.Cur > 1<<20 {
		return 1 << 20
	}
	n, spare := int(lim.Cur), spareFDs
	if clustered {
		spare += spareForNodes
	}
	return max(n-spare, n/2)
}

// acceptor takes the connections of clients and of other nodes, and gives them to the loops.
type acceptor struct {
	// static
	eng     *Engine
	clients *port // where clients connect
	peers   *port // where other nodes connect
	inside  *port // where clients in this process connect

	// static after Run has started
	listener     net.Listener
	peerListener net.Listener // for other nodes; nil without a cluster

	// shared
	refused atomic.Uint64
	dialled atomic.Int64 // open sockets to nodes that this one has dialled
}

func (a *acceptor) listen(ctx context.Context) error {
	e := a.eng
	lc := net.ListenConfig{KeepAlive: -1} // heartbeats are the protocol's own
	if e.cfg.Addr != noListener {
		ln, err := lc.Listen(ctx, "tcp", e.cfg.Addr)
		if err != nil {
			return fmt.Errorf("engine: %w", err)
		}
		a.listener = ln
	}
	if e.cluster != nil {
		ln, err := lc.Listen(ctx, "tcp", e.cfg.PeerAddr)
		if err != nil {
			return errors.Join(fmt.Errorf("engine: for other nodes: %w", err), a.close())
		}
		a.peerListener = ln
		if ln.Addr().(*net.TCPAddr).IP.IsUnspecified() && e.cfg.PeerAdvertise == "" {
			err := fmt.Errorf("engine: nodes cannot be told to come to %v: set PeerAdvertise, or a PeerAddr that is no wildcard", ln.Addr())
			return errors.Join(err, a.close())
		}
	}
	return nil
}

func (a *acceptor) close() error {
	var errs []error
	for _, l := range []net.Listener{a.listener, a.peerListener} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// accept takes the connections of a port, of other nodes if peers is set, until the engine begins
// to stop or the listener ends. Whatever goes wrong with one, and running out of file descriptors,
// makes new ones wait and touches no live one.
func (a *acceptor) accept(ln net.Listener, p *port, peers *cluster) {
	e := a.eng
	backoff := acceptBackoffMin
	enrolling := newEnrolling(e, p)
	defer enrolling.wait()
	for {
		err := a.acceptOne(ln, p, peers, enrolling)
		switch {
		case e.serving.Err() != nil:
			return
		case err == nil:
			backoff = acceptBackoffMin
			continue
		// The listener itself is closed or broken.
		case errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.ENOTSOCK):
			e.fail(fmt.Errorf("engine: accept: %w", err))
			return
		}
		e.cfg.Logger.Warn("cannot accept a connection", "error", err, "wait", backoff)
		select {
		case <-e.serving.Done():
			return
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, acceptBackoffMax)
	}
}

// acceptOne takes one connection. With MaxConns open it waits, and so do those in the kernel's
// queue.
func (a *acceptor) acceptOne(ln net.Listener, p *port, peers *cluster, enrolling *enrolling) error {
	e := a.eng
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	c := newConn(clientConn, nc.RemoteAddr(), e.cfg.MaxPending)
	if peers != nil {
		c.kind, c.link = linkConn, newLink(peers)
	}
	if !p.admit(e.serving, c) {
		return nc.Close()
	}
	return enrolling.begin(nc, c)
}

// enroll gives a connection to the loop with the fewest. It returns when the loop has it.
func (a *acceptor) enroll(nc net.Conn, c *conn) error {
	if _, err := a.eng.client.EnrollContext(nc, c); err != nil {
		return err
	}
	if c.loop == nil {
		return errNotOpened // gnet could not add it to epoll, and has closed it
	}
	return nil
}

var errNotOpened = fmt.Errorf("the event loop refused the connection: %w", syscall.ENOMEM)

// wireClosed gives back the place of a connection whose wire has closed.
func (a *acceptor) wireClosed(c *conn) {
	if c.port == nil {
		a.dialled.Add(-1)
		return
	}
	c.port.closed(c)
}

// anchor is the context of a connection that finds out which loop it was put on, and stays there:
// its end is that of the loop.
type anchor struct{ el chan gnet.EventLoop }

var errLoopEnded = errors.New("engine: an event loop has ended")

// findLoops learns gnet's event loops: one connection after the other goes to the loop with the
// fewest, so as many connections as there are loops visit them all. gnet does not tell when a loop
// fails, but closes its connections.
func (e *Engine) findLoops() error {
	known := make(map[gnet.EventLoop]bool)
	for i := range e.loops {
		ours, theirs, err := socketPair()
		if err != nil {
			return err
		}
		e.anchors = append(e.anchors, ours)
		a := &anchor{el: make(chan gnet.EventLoop, 1)}
		if _, err := e.client.EnrollContext(theirs, a); err != nil {
			return err
		}
		el := <-a.el
		if known[el] {
			return errors.New("a loop was found twice")
		}
		known[el] = true
		e.loops[i].el, e.loops[i].poll.epoll = el, epollOf(el)
	}
	return nil
}

func (e *Engine) dropAnchors() {
	for _, c := range e.anchors {
		_ = c.Close()
	}
}

func socketPair() (net.Conn, net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		conns[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	return conns[0], conns[1], nil
}

// gnetLogger hands what gnet has to say to slog, at levels that suit a library inside a library.
type gnetLogger struct{ log *slog.Logger }

func (g gnetLogger) Debugf(format string, args ...any) {}
func (g gnetLogger) Infof(format string, args ...any)  {}
func (g gnetLogger) Warnf(format string, args ...any) {
	g.log.Debug("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLogger) Errorf(format string, args ...any) {
	g.log.Debug("gnet: " + fmt.Sprintf(format, args...))
}
func (g gnetLogger) Fatalf(format string, args ...any) {
	g.log.Error("gnet: " + fmt.Sprintf(format, args...))
}
