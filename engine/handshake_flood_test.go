package engine

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/peers"
	"distmsg/routing"
)

// silentPeers connects count times to the address for other nodes, and says nothing.
func (n *node) silentPeers(count int) (all []*client) {
	n.t.Helper()
	for range count {
		all = append(all, n.dialPeer())
	}
	return all
}

// Connections to the peer port that stay silent hold no place that a node needs: the oldest go. A
// node that is attacked gets its links, and so does one that proves itself in the middle of it.
func TestSilentConnectionsAtThePeerPort(t *testing.T) {
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	attacked := g.start("n1", 1, func(c *Config) { c.HelloTimeout = time.Hour })
	silent := attacked.silentPeers(400)
	g.nodes = append(g.nodes, attacked, g.start("n0", 1, nil))
	g.linked(2)
	a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
	a.exchange("a", b, "b")

	// The newest stay, and the link is none of them any more.
	attacked.eventually("the oldest make room", func() bool {
		s := attacked.Stats()
		return s.DisplacedPeers == 401-defaultMaxPeerHandshakes && attacked.acceptor.peers.sockets() == defaultMaxPeerHandshakes
	})
	if e := silent[0].fails(codec.FaultHelloTimeout); e.Flags != codec.ErrorClosing || e.Message != "no proof yet, and too many newer connections wait" {
		t.Errorf("the oldest hears %+v", e)
	}
	attacked.silentPeers(400)
	attacked.linkAs("n2").settled()
	attacked.eventually("both links", func() bool { return attacked.Stats().Links == 2 })
	a.exchange("a", b, "b")
}

// What strangers send in place of a proof keeps no place either, although those connections linger
// until they have been read.
func TestWrongHandshakesAtThePeerPort(t *testing.T) {
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n0", 1, func(c *Config) { c.HelloTimeout, c.MaxPeerHandshakes = time.Hour, 4 })
	for i := range 40 {
		c := n.dialPeer()
		if i%2 == 0 {
			c.write([]byte("GET / HTTP/1.1\r\n\r\n"))
			continue
		}
		c.challenged(n.peerHello("n9"))
		c.write(codec.AppendPeerProof(nil, make([]byte, codec.SecretLen)))
	}
	for range 3 { // the newer one replaces the link of before
		n.linkAs("n1").settled()
	}
	n.eventually("one link", func() bool { return n.Stats().Links == 1 })
	n.eventually("nobody else holds a place for long", func() bool { return n.acceptor.peers.sockets() <= 4+3 })
}

// Clients that say nothing hold no place that others need, also when MaxConns is reached. Whoever
// has been welcomed is never closed for them.
func TestSilentClients(t *testing.T) {
	t.Parallel()
	n := start(t, Config{MaxConns: 8, MaxHandshakes: 3, HelloTimeout: time.Hour})
	first := n.join("first")
	var silent []*client
	for range 20 {
		silent = append(silent, n.dial())
	}
	others := []*client{n.join(), n.join(), n.join(), n.join(), n.join(), n.join()}
	if e := silent[0].fails(codec.FaultHelloTimeout); e.Message != "no hello yet, and too many newer connections wait" {
		t.Errorf("%+v", e)
	}
	last := n.join("last") // the eighth: there is no room for any that is silent
	last.exchange("last", first, "first")
	for i, c := range silent[1:] {
		if e := c.fails(codec.FaultHelloTimeout); e.Flags != codec.ErrorClosing {
			t.Errorf("%d: %+v", i, e)
		}
	}
	for _, c := range others {
		c.alive()
	}
	if s := n.counters(); s.Displaced != 20 || s.Connections != 8 || s.JoinsRefused != 0 {
		t.Errorf("%d displaced, %d connections, %d refused", s.Displaced, s.Connections, s.JoinsRefused)
	}
	ninth := n.dial()
	ninth.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	others[2].nc.Close()
	ninth.expect(codec.KindWelcome)
}

// helloFrom is dial from another address of this machine, with a hello.
func (n *node) helloFrom(source string) *client {
	n.t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: patience}
	nc, err := dialer.DialContext(n.t.Context(), "tcp", n.Addr().String())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	c := clientOn(n.t, n, nc)
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	return c
}

// Credentials that are being checked are bounded, and one address gets half of what is free. A
// client that does not wait for the answer keeps its place until the hook returns.
func TestSlowAuthentication(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}, 16), make(chan struct{})
	n := start(t, Config{MaxHandshakes: 4, Hooks: Hooks{
		Authenticate: func(context.Context, Login) (Identity, error) {
			asked <- struct{}{}
			<-answer
			return Identity{}, nil
		},
	}})
	var in []*client
	for _, try := range []struct {
		source string
		in     bool
	}{
		{"127.0.0.1", true}, {"127.0.0.1", true}, {"127.0.0.1", false}, {"127.0.0.2", true},
		{"127.0.0.2", false}, {"127.0.0.3", true}, {"127.0.0.4", false},
	} {
		c := n.helloFrom(try.source)
		if !try.in {
			if e := c.fails(codec.FaultGoingAway); e.Message != "too many clients are connecting: try again later" {
				t.Errorf("%s: %+v", try.source, e)
			}
			continue
		}
		select {
		case <-asked:
		case <-time.After(patience):
			t.Fatalf("%s: the hook is not asked", try.source)
		}
		in = append(in, c)
	}
	in[0].nc.Close()
	n.eventually("it is gone", func() bool { return n.Stats().Connections == 3 })
	n.helloFrom("127.0.0.5").fails(codec.FaultGoingAway)
	if s := n.counters(); s.JoinsRefused != 4 {
		t.Errorf("%d refused, want 4", s.JoinsRefused)
	}
	close(answer)
	for _, c := range in[1:] {
		c.expect(codec.KindWelcome)
	}
	for range 8 { // all places are free again
		n.helloFrom("127.0.0.1").expect(codec.KindWelcome)
	}
}

// mute accepts connections and never answers.
func mute(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
		}
	}()
	return l.Addr().String()
}

// Many listed nodes that accept and stay silent do not keep a node from those that answer.
func TestSilentMembers(t *testing.T) {
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n0", 1, func(c *Config) { c.HelloTimeout = time.Hour })
	apart := &group{t: t, hub: newHub(), registry: g.registry}
	good := apart.start("n2", 1, nil)
	addr := mute(t)
	g.hub.mu.Lock()
	for i := range 300 {
		id := fmt.Sprintf("n1-%d", i)
		g.hub.members[id] = discovery.Record{ID: id, Incarnation: 1, PeerAddr: addr}
	}
	g.hub.mu.Unlock()
	if err := (&hubMember{hub: g.hub}).Announce(t.Context(), good.cluster.peers.Record()); err != nil {
		t.Fatal(err)
	}
	n.eventually("a link to the one that answers", func() bool { return n.cluster.linkTo("n2") != nil })
	if busy := n.acceptor.dialled.Load(); busy > 3*peers.MaxDials {
		t.Errorf("%d sockets to other nodes", busy)
	}
	n.join("a").exchange("a", good.join("b"), "b")
}

// A session has a bounded number of connections to a node, as each new one costs a look at all
// others. A client that replaces them gets in.
func TestConnectionsOfOneSession(t *testing.T) {
	t.Parallel()
	n := start(t, Config{Heartbeat: patience})
	// Without a promise it is soon in doubt, and leaves its place.
	first := n.promising(uint64(patience.Milliseconds()), "a")
	h := first.resume()
	h.Heartbeat = uint64(patience.Milliseconds())
	for range maxSessionConns - 1 {
		n.dial().hello(h)
	}
	h.MinVersion, h.MaxVersion = codec.Version, codec.Version
	one := n.dial()
	one.write(codec.AppendHello(nil, &h))
	if e := one.fails(codec.FaultGoingAway); e.Message != "the session has 64 connections to this node: close some, or replace them" {
		t.Errorf("%+v", e)
	}
	h.Flags = codec.HelloReplace
	last := n.dial()
	if w := last.hello(h); w.Flags&codec.WelcomeResumed == 0 {
		t.Error("the session is another one")
	}
	first.fails(codec.FaultReplaced)
	n.eventually("one is left", func() bool { return n.Stats().Connections == 1 })
	last.session, last.secret = first.session, first.secret
	n.join("b").exchange("b", last, "a")
}

// Clients of one address do not get the last places of a node: others get in, and nobody who is
// there is closed for them.
func TestConnectionsOfOneAddress(t *testing.T) {
	t.Parallel()
	const most, kept = 64, 64 / reservePart
	n := start(t, Config{MaxConns: most})
	var greedy []*client
	for range most - kept {
		c := n.helloFrom("127.0.0.1")
		c.expect(codec.KindWelcome)
		greedy = append(greedy, c)
	}
	for range 2 * kept {
		if e := n.helloFrom("127.0.0.1").fails(codec.FaultGoingAway); !strings.Contains(e.Message, "few places for connections left") {
			t.Errorf("the fault says %q", e.Message)
		}
	}
	for i := range kept {
		c := n.helloFrom("127.0.0." + strconv.Itoa(2+i))
		c.expect(codec.KindWelcome)
		c.alive()
	}
	greedy[0].alive()
	if s := n.counters(); s.ConnsOverShare != 2*kept || s.Connections != most {
		t.Errorf("%d refused, %d connections", s.ConnsOverShare, s.Connections)
	}
	for _, c := range greedy[:2*kept] {
		c.nc.Close()
	}
	n.eventually("they have closed", func() bool { return n.acceptor.clients.sockets() == most-2*kept })
	n.helloFrom("127.0.0.1").expect(codec.KindWelcome)
}

// A client that closes its connection before its hello is handled counts for its address no longer.
func TestHelloOfAClosedConnection(t *testing.T) {
	p := newPort(8, 8)
	c := newConn(clientConn, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, 0)
	if !p.tryAdmit(c) {
		t.Fatal("there is no place")
	}
	p.closed(c)
	p.proved(c, 0)
	if len(p.from) > 0 || p.open != 0 {
		t.Errorf("%d connections are open, and %v", p.open, p.from)
	}
}
