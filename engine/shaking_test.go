package engine

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// clientHello returns the first record of a handshake.
func clientHello(t testing.TB) []byte {
	t.Helper()
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	go func() { _ = tls.Client(theirs, &tls.Config{InsecureSkipVerify: true}).Handshake() }()
	b := make([]byte, 5, 4096)
	if _, err := io.ReadFull(ours, b); err != nil {
		t.Fatal(err)
	}
	b = b[:5+int(b[3])<<8+int(b[4])]
	if _, err := io.ReadFull(ours, b[5:]); err != nil {
		t.Fatal(err)
	}
	return b
}

// Handshakes that do not go on hold no place that others need, wherever they stand still, and no
// turn. Those that are over, and have no hello yet, do not have to make room for them.
func TestHandshakesThatStandStill(t *testing.T) {
	t.Parallel()
	s := secure(t)
	n := start(t, Config{TLS: s.server, HelloTimeout: time.Hour}, func(e *Engine) {
		e.acceptor.clients.shaking.most = 4
		e.acceptor.clients.shaking.turns = make(chan struct{}, 1)
	})
	first := n.joinTLS(s.client, "first")
	waits := n.dialTLS(s.client) // for its own hello
	hello := clientHello(t)
	for i := range 20 {
		c := n.dial()
		c.write(hello[:[]int{0, 3, 5, 100, len(hello)}[i%5]])
	}
	last := n.joinTLS(s.client, "last")
	last.exchange("last", first, "first")
	waits.hello(codec.Hello{})
	if s := n.counters(); s.Displaced < 17 || s.Connections != 3 {
		t.Errorf("%d displaced, %d connections", s.Displaced, s.Connections)
	}
}

// A client that sends its part of the handshake in drops has to make room as well.
func TestHandshakeInDrops(t *testing.T) {
	t.Parallel()
	s := secure(t)
	n := start(t, Config{TLS: s.server, HelloTimeout: time.Hour}, func(e *Engine) { e.acceptor.clients.shaking.most = 1 })
	slow := n.dial()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for _, b := range clientHello(t) {
			if _, err := slow.nc.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // it takes seconds for all of it
		}
	}()
	n.eventually("it has its place", func() bool { return n.acceptor.clients.sockets() == 1 })
	n.joinTLS(s.client).alive()
	// It sends on, so its end may come as a reset.
	if f, err := slow.read(); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v, %v, want the end of the stream", f.kind, err)
	}
	slow.nc.Close()
	<-over
}

// While all handshakes that are under way have work to do, nobody makes room for newer ones.
func TestHandshakesInTurns(t *testing.T) {
	t.Parallel()
	s := secure(t)
	n := start(t, Config{TLS: s.server, HelloTimeout: time.Hour}, func(e *Engine) {
		e.acceptor.clients.shaking.most = 4
		e.acceptor.clients.shaking.turns = make(chan struct{}, 1)
	})
	turns := n.acceptor.clients.shaking.turns
	turns <- struct{}{} // the test has the only turn
	joined := make(chan error, 8)
	for range cap(joined) {
		nc := n.dial().nc
		go func() { joined <- tls.Client(nc, s.client).HandshakeContext(t.Context()) }()
	}
	n.eventually("as many as have places wait for their turns", func() bool {
		all := n.acceptor.clients.shakes()
		waiting := 0
		for _, s := range all {
			if s.ready() {
				waiting++
			}
		}
		return waiting == 4
	})
	<-turns
	for range cap(joined) {
		if err := <-joined; err != nil {
			t.Error(err)
		}
	}
	if s := n.counters(); s.Displaced != 0 || s.TLSFailed != 0 {
		t.Errorf("%d displaced, %d failed", s.Displaced, s.TLSFailed)
	}
}

// A handshake that gets its turn too late fails, and gives the turn back.
func TestLateTurnIsGivenBack(t *testing.T) {
	t.Parallel()
	s := secure(t)
	n := start(t, Config{TLS: s.server, HelloTimeout: time.Hour}, func(e *Engine) {
		e.acceptor.clients.shaking.turns = make(chan struct{}, 1)
	})
	port := n.acceptor.clients
	port.shaking.turns <- struct{}{} // the test has the only turn
	late := n.dial()
	late.write(clientHello(t))
	n.eventually("it waits for its turn", func() bool {
		all := port.shakes()
		return len(all) == 1 && all[0].ready()
	})
	port.shakes()[0].until = time.Now().Add(-time.Second) // nobody reads it before the turn
	<-port.shaking.turns
	late.ends()
	n.eventually("the turn is free", func() bool { return len(port.shaking.turns) == 0 })
	n.joinTLS(s.client).alive()
}

// Code of the application that runs in a handshake and does not return ends that handshake only.
func TestHandshakeDoesNotReturn(t *testing.T) {
	for name, ends := range notReturning {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log notes
			s := secure(t)
			s.server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
				if h.ServerName != s.client.ServerName {
					ends()
				}
				return nil, nil
			}
			n := start(t, Config{TLS: s.server, Logger: log.logger()}, func(e *Engine) {
				e.acceptor.clients.shaking.turns = make(chan struct{}, 1)
			})
			other := s.client.Clone()
			other.ServerName = "another"
			began := time.Now()
			for range 3 {
				if err := tls.Client(n.dial().nc, other).HandshakeContext(t.Context()); err == nil {
					t.Error("it got in")
				}
			}
			log.has(n, "a TLS handshake", "remote=127.0.0.1", "TestHandshakeDoesNotReturn", "stack=")
			if lines := log.lines("a TLS handshake"); lines > 1+int(time.Since(began)/time.Second) {
				t.Errorf("%d lines in the log", lines)
			}
			n.joinTLS(s.client).alive()
			if s := n.counters(); s.TLSFailed != 3 || s.Connections != 1 || n.acceptor.clients.sockets() != 1 {
				t.Errorf("%d failed, %d connections, %d sockets", s.TLSFailed, s.Connections, n.acceptor.clients.sockets())
			}
		})
	}
}

// ready reports whether the handshake waits for a turn, or has one.
func (s *shake) ready() bool {
	s.port.mu.Lock()
	defer s.port.mu.Unlock()
	return s.since.IsZero()
}

// A client has one HelloTimeout for its handshake and its hello together.
func TestHandshakeCountsForHello(t *testing.T) {
	s := secure(t)
	n := start(t, Config{TLS: s.server, HelloTimeout: time.Hour})
	c := n.dial()
	n.eventually("it is accepted", func() bool { return len(n.acceptor.clients.shakes()) == 1 })
	accepted := n.clock()
	n.eventually("time passes", func() bool { return n.clock() > accepted+10*time.Millisecond })
	if err := tls.Client(c.nc, s.client).HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.eventually("its loop has it", func() bool { return n.counters().Connections == 1 })
	n.on(0, func(l *loop) {
		if got := l.handshakes[0].deadline; got > (accepted + time.Hour).Milliseconds() {
			t.Errorf("its hello is due %d ms after it was accepted", got-accepted.Milliseconds())
		}
	})
}

// Connections are in the order in which their hellos are due.
func TestExpectHello(t *testing.T) {
	l := new(loop)
	for _, deadline := range []int64{5, 7, 7, 6, 1, 9, 8} {
		l.expectHello(hello{routing.Handle{}, deadline})
	}
	last := int64(0)
	for _, h := range l.handshakes {
		if h.deadline < last {
			t.Fatalf("%v", l.handshakes)
		}
		last = h.deadline
	}
}

// A loop forgets connections that have sent hello, long before the time for it is over.
func TestHelloIsForgotten(t *testing.T) {
	n := start(t, Config{HelloTimeout: time.Hour})
	for range 3 {
		n.join()
	}
	n.eventually("no hello is due", func() (none bool) {
		n.on(0, func(l *loop) { none = len(l.handshakes) == 0 })
		return none
	})
}

// A handshake that does not end in time fails.
func TestTLSHandshakeTimeout(t *testing.T) {
	n := start(t, Config{TLS: secure(t).server, HelloTimeout: 20 * time.Millisecond})
	c := n.dial()
	c.write(clientHello(t)[:10])
	c.ends()
	n.eventually("it counts", func() bool { return n.Stats().TLSFailed == 1 && n.acceptor.clients.sockets() == 0 })
}

// A node that stops waits for no handshake.
func TestStopDuringHandshakes(t *testing.T) {
	n := start(t, Config{TLS: secure(t).server, HelloTimeout: time.Hour})
	hello := clientHello(t)
	for _, part := range []int{0, 10, len(hello)} {
		n.dial().write(hello[:part])
	}
	n.eventually("they are under way", func() bool { return len(n.acceptor.clients.shakes()) == 3 })
	if err := n.stop(); err != nil {
		t.Error(err)
	}
}

// What a configuration of TLS lacks is an error of New.
func TestTLSConfig(t *testing.T) {
	s := secure(t)
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{TLS: &tls.Config{}}, "engine: TLS has no certificate"},
		{Config{PeerTLS: &tls.Config{}}, "engine: PeerTLS has no certificate"},
		{Config{TLS: &tls.Config{Certificates: s.server.Certificates, MaxVersion: tls.VersionTLS11}}, "engine: TLS allows no version from TLS 1.2 on"},
		{Config{PeerTLSClient: func(string) *tls.Config { return nil }}, "PeerTLSClient is set, and PeerTLS is not"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}
