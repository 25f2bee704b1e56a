package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/internal/callback"
	"distmsg/internal/tlsline"
)

// With TLS, a connection has its handshake before a loop gets it, on a goroutine of its own (see
// tlsline). The header of a load balancer is part of the handshake (see proxied.go). Handshakes are
// expensive for the node and cheap for whoever only begins them. So two things are bounded (S32):
//
//   - How many are under way. If one more comes, the node closes the oldest of those that have let
//     the node wait for long.
//   - How many compute at the same time. The others wait for their turns, so the loops keep their
//     processors. A handshake that waits for its peer has no turn.

const (
	// shakeCost is about how many bytes a handshake takes. All of a port's take at most memory's
	// budget divided by shakePart, but there are places for leastShakes.
	shakeCost   = 64 << 10
	shakePart   = 8
	leastShakes = 64
	// shakePatience is how long a handshake may wait for its peer before it may have to make room.
	shakePatience = 250 * time.Millisecond
	// lingerBytes is how much a peer may still send after its handshake has failed.
	lingerBytes = 1 << 20
)

// shaking bounds the handshakes of a port.
type shaking struct {
	// static
	config  *tls.Config // nil: the port does not use TLS
	proxies proxies
	most    int           // handshakes under way
	turns   chan struct{} // holds one element for each handshake that computes

	running int // guarded by port.mu
}

func newShaking(config *tls.Config, proxies proxies, most int) shaking {
	return shaking{config: config, proxies: proxies, most: most, turns: make(chan struct{}, max(1, UsableCPUs()/2))}
}

// has reports whether a connection from there has a handshake before a loop gets it.
func (s *shaking) has(remote net.Addr) bool { return s.config != nil || s.proxies.have(remote) }

// full reports whether no further handshake may begin. The caller holds the port's mu.
func (s *shaking) full() bool {
	return (s.config != nil || len(s.proxies) > 0) && s.running >= s.most
}

// shake is the handshake of a connection that no loop has yet.
type shake struct {
	// static
	port   *port
	conn   *conn
	nc     net.Conn
	began  time.Time
	until  time.Time
	ended  chan struct{} // closed when it has to end at once
	ending sync.Once

	computes bool // it has a turn; owned by its goroutine

	since  time.Time     // guarded by port.mu; since when it waits for its peer; zero: it does not
	waited time.Duration // guarded by port.mu; how long it has waited before
}

var errDisplaced = errors.New("engine: the handshake has to make room")

// begin makes the handshake of a connection that the port has admitted.
func (p *port) begin(nc net.Conn, c *conn, within time.Duration) *shake {
	now := time.Now()
	s := &shake{port: p, conn: c, nc: nc, began: now, until: now.Add(within), ended: make(chan struct{})}
	_ = nc.SetDeadline(s.until)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.since = now
	c.place.phase, c.place.shake = placeShaking, s
	p.shaking.running++
	return s
}

// run does the handshake, and gives the connection what comes out of it. If the handshake fails, or
// code of the application in it does not return, run closes the socket.
func (s *shake) run(e *Engine) bool {
	var err error
	broken := func(f callback.Failure) {
		e.acceptor.tlsFailed.Add(1)
		if e.acceptor.panicked.Due(e.clock()) { // clients may cause it as often as they like
			f.Log(e.cfg.Logger, "a TLS handshake", "remote", s.conn.remote)
		}
		s.close()
	}
	if !callback.Contain(func() { err = s.handshake() }, broken) {
		return false
	}
	if err == nil {
		err = s.done()
	}
	if err != nil {
		s.refuse(e, err)
		s.close()
		return false
	}
	if s.conn.wire != nil {
		e.acceptor.shakes.Add(time.Since(s.began))
	}
	return true
}

func (s *shake) handshake() error {
	if err := s.readProxyHeader(); err != nil || s.port.shaking.config == nil {
		return err
	}
	line := tlsline.Server(s.nc, s.port.shaking.config, s)
	s.conn.wire = &tlsWire{conn: s.conn, line: line}
	return line.Handshake()
}

// close ends the connection, which has no loop.
func (s *shake) close() {
	s.nc.Close()
	s.port.closed(s.conn)
}

// done ends the handshake's part in what bounds handshakes. It returns an error if the handshake
// had to make room before.
func (s *shake) done() error {
	p, c := s.port, s.conn
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.place.phase != placeShaking {
		return errDisplaced
	}
	c.place.phase, c.place.shake = placeArriving, nil
	p.shaking.running--
	wake.Nudge(p.freed)
	return nil
}

// Pause ends the handshake's turn, because it waits for its peer.
func (s *shake) Pause() {
	if s.computes {
		s.computes = false
		<-s.port.shaking.turns
	}
	s.port.mu.Lock()
	defer s.port.mu.Unlock()
	if s.since.IsZero() {
		s.since = time.Now()
	}
}

// Resume waits for a turn. If it returns an error, the handshake has none.
func (s *shake) Resume() error {
	s.port.mu.Lock()
	s.waited += time.Since(s.since)
	s.since = time.Time{}
	s.port.mu.Unlock()
	select {
	case s.port.shaking.turns <- struct{}{}:
		s.computes = true
	case <-s.ended:
		return errDisplaced
	}
	if time.Now().After(s.until) { // the peer has given up by now
		s.Pause()
		return os.ErrDeadlineExceeded
	}
	return nil
}

// timeLeft returns after how much more time it may have to make room. The caller holds port.mu.
func (s *shake) timeLeft() time.Duration {
	if s.since.IsZero() {
		return shakePatience
	}
	return shakePatience - s.waited - time.Since(s.since)
}

// stop makes the handshake fail soon.
func (s *shake) stop() {
	s.ending.Do(func() { close(s.ended) })
	_ = s.nc.SetDeadline(time.Unix(1, 0))
}

// stopped reports whether the node has made the handshake fail.
func (s *shake) stopped() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// shakes returns the handshakes of the port that are under way.
func (p *port) shakes() (all []*shake) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.waiting.Front(); e != nil; e = e.Next() {
		if s := e.Value.(*conn).place.shake; s != nil {
			all = append(all, s)
		}
	}
	return all
}

// refuse answers a peer whose handshake has failed, and says in the log why.
func (s *shake) refuse(e *Engine, err error) {
	a, log, remote := &e.acceptor, e.cfg.Logger, s.conn.remote
	if errors.Is(err, errNoProxyHeader) {
		a.noProxy.Add(1)
		a.complain("a load balancer sent no PROXY protocol header of version 2", "remote", remote, "error", err)
		return
	}
	if s.conn.wire != nil && !s.stopped() && !errors.Is(err, errDisplaced) {
		a.tlsFailed.Add(1)
	}
	header := tls.RecordHeaderError{}
	plain := errors.As(err, &header) && header.Conn != nil
	who, complain := "a client", a.complain
	if s.conn.kind == linkConn {
		who, complain = "a node or a stranger", e.cluster.peers.Complain
	}
	switch {
	case errors.Is(err, errDisplaced), isGone(err):
		log.Debug("a handshake has not ended", "remote", remote, "error", err)
		return
	case plain:
		complain("refused "+who+" without TLS: this address is for TLS only", "remote", remote)
		_, _ = s.nc.Write(codec.AppendError(nil, &codec.ErrorFrame{
			Fault: codec.FaultBadVersion, Flags: codec.ErrorClosing, Message: "this address is for TLS only",
		}))
	default:
		complain("the TLS handshake with "+who+" failed", "remote", remote, "error", err)
	}
	s.linger()
}

// isGone reports whether the peer has closed the connection, or was silent for too long.
func isGone(err error) bool {
	for _, gone := range []error{os.ErrDeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

// linger waits until the peer has closed its side, so that it can read why the handshake has
// failed. See lingerMillis.
func (s *shake) linger() {
	if tcp, ok := s.nc.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	_ = s.nc.SetReadDeadline(time.Now().Add(lingerMillis * time.Millisecond))
	if !s.stopped() { // else it may have set the deadline before
		_, _ = io.CopyN(io.Discard, s.nc, lingerBytes)
	}
}

// complain logs what is wrong with a client, at most once a second, because clients and strangers
// try again and again.
func (a *acceptor) complain(message string, args ...any) {
	a.complained.Warn(a.eng.clients.log, a.eng.clock(), message, args...)
}
