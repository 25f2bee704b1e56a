package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"distmsg/internal/asynclog"
	"distmsg/internal/histogram"
)

// The engine accepts connections itself and enrolls them into gnet's loops. gnet's own listener
// shuts down when the process runs out of file descriptors, and it accepts connections before the
// engine can count them.

const (
	acceptBackoffMin = 5 * time.Millisecond
	acceptBackoffMax = time.Second
	// spareFDs is how many file descriptors are reserved for everything but client sockets. A node
	// of a cluster reserves spareForNodes more: for links, for handshakes, and for attempts to
	// reach nodes that do not answer.
	spareFDs      = 128
	spareForNodes = 512
)

// defaultMaxConns returns the process's limit of file descriptors, less a reserve for other uses.
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

// acceptor accepts the connections of clients and of other nodes, and hands them to the loops.
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
	refused    atomic.Uint64
	shakes     histogram.Shared // how long TLS handshakes took
	tlsFailed  atomic.Uint64    // TLS connections that have failed, most of them in their handshake
	noProxy    atomic.Uint64    // connections from a load balancer that lack its header
	complained asynclog.Seldom  // about clients without TLS or a header
	panicked   asynclog.Seldom  // a handshake that did not return was logged
	dialled    atomic.Int64     // open sockets that this node has dialled
}

func (a *acceptor) listen(ctx context.Context) error {
	e := a.eng
	lc := net.ListenConfig{KeepAlive: -1} // the protocol has its own heartbeats
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
			return errors.Join(fmt.Errorf("engine: PeerAddr: %w", err), a.close())
		}
		a.peerListener = ln
		if ln.Addr().(*net.TCPAddr).IP.IsUnspecified() && e.cfg.PeerAdvertise == "" {
			err := fmt.Errorf("engine: other nodes cannot connect to %v, a wildcard address: set PeerAdvertise, or a PeerAddr with an IP address", ln.Addr())
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

// accept accepts the connections of a port until the engine begins to stop or the listener fails.
// They are other nodes' connections if peers is set. An error on one connection, or a lack of file
// descriptors, delays new connections and leaves open ones alone.
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

// acceptOne accepts one connection. While MaxConns connections are open it waits, and further
// connections wait in the kernel's queue.
func (a *acceptor) acceptOne(ln net.Listener, p *port, peers *cluster, enrolling *enrolling) error {
	e := a.eng
	nc, err := ln.Accept()
	if err != nil {
		return err
	}
	trim(nc.LocalAddr())
	trim(nc.RemoteAddr())
	c := newConn(clientConn, nc.RemoteAddr(), e.cfg.MaxPending)
	if peers != nil {
		c.kind, c.link = linkConn, newLink(peers)
	}
	if !p.shaking.proxies.have(c.remote) {
		if wait := p.sources.mayShake(sourceOf(c.remote), e.clk.glance()); wait > 0 {
			return a.turnAway(nc, p, wait)
		}
	}
	if !p.admit(e.serving, c) {
		return nc.Close()
	}
	if p.shaking.has(c.remote) {
		return enrolling.beginShake(nc, c)
	}
	return enrolling.begin(nc, c)
}

// trim makes an address of a new socket take less memory. Its IP is a part of what the kernel has
// answered, and would hold all of it as long as the connection lives.
func trim(addr net.Addr) {
	if tcp, ok := addr.(*net.TCPAddr); ok {
		tcp.IP = slices.Clone(tcp.IP)
	}
}

// enroll hands a connection to the loop with the fewest connections. It returns when the loop has
// it.
func (a *acceptor) enroll(nc net.Conn, c *conn) error {
	if _, err := a.eng.client.EnrollContext(nc, c); err != nil {
		return err
	}
	if c.loop == nil {
		// gnet could not add the socket to epoll, and has closed it.
		return errNotOpened
	}
	return nil
}

var errNotOpened = fmt.Errorf("the event loop refused the connection: %w", syscall.ENOMEM)

// wireClosed releases the place of a connection whose socket has closed.
func (a *acceptor) wireClosed(c *conn) {
	if c.port == nil {
		a.dialled.Add(-1)
		return
	}
	c.port.closed(c)
}

// anchor is the context of a connection that finds out on which loop gnet has put it. The
// connection stays there, and if it closes, the loop has ended.
type anchor struct{ el chan gnet.EventLoop }

var errLoopEnded = errors.New("engine: an event loop has ended")

// findLoops finds gnet's event loops. gnet puts each new connection on the loop with the fewest, so
// one connection per loop visits them all. gnet does not report when a loop fails; it closes the
// loop's connections, and the engine sees its anchor close.
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

// gnetLogger passes gnet's log lines to slog, at levels that fit a library inside a library.
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
