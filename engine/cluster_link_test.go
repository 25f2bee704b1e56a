package engine

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/engine/internal/peers"
	"distmsg/routing"
)

// dialPeer connects to the address for other nodes and sends nothing.
func (n *node) dialPeer() *client {
	n.t.Helper()
	nc, err := net.DialTimeout("tcp", n.acceptor.peerListener.Addr().String(), patience)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	return clientOn(n.t, n, nc)
}

// peerHello returns the hello of a node with that name.
func (n *node) peerHello(name string) codec.PeerHello {
	return codec.PeerHello{MinVersion: codec.PeerVersion, MaxVersion: codec.PeerVersion, Cluster: []byte(n.cfg.Cluster),
		Node: []byte(name), Incarnation: 7, Nonce: randomBytes(codec.NonceLen)}
}

// challenged sends a hello. It returns the answer, and the bytes that the proofs cover.
func (c *client) challenged(h codec.PeerHello) (f codec.PeerChallenge, said []byte) {
	c.t.Helper()
	c.write(codec.AppendPeerHello(nil, &h))
	c.decoded(codec.DecodePeerChallenge(c.expect(codec.KindPeerChallenge), &f))
	return f, peers.Transcript(&h, &f)
}

// linkAs does the handshake as a node with that name. Frames about sessions may follow.
func (n *node) linkAs(name string) *client {
	n.t.Helper()
	c := n.dialPeer()
	f, said := c.challenged(n.peerHello(name))
	if n.cluster.self.Proves(f.Proof, peers.Accepted, said) == nil {
		n.t.Fatal("the node's proof is wrong")
	}
	c.write(codec.AppendPeerProof(nil, peers.Proof(n.cluster.self.Secrets.First(), peers.Dialled, said)))
	c.expect(codec.KindPeerReady)
	return c
}

// attach announces a session as attached at this peer, and waits until the node knows it.
func (c *client) attach(id routing.SessionID) {
	c.t.Helper()
	c.write(codec.AppendPresence(nil, codec.KindAttached, id[:], 1))
	c.settled()
}

// settled waits until the other node has handled everything sent so far. It skips all frames but
// the answer.
func (c *client) settled() {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendPing(nil, c.seq))
	for {
		if f := c.next(); f.kind == codec.KindPong {
			return
		}
	}
}

// allForwarded returns all forwards sent so far.
func (c *client) allForwarded() (all []codec.Forward) {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendPing(nil, c.seq))
	for {
		f := c.next()
		switch f.kind {
		case codec.KindPong:
			return all
		case codec.KindForward:
			var fw codec.Forward
			c.decoded(codec.DecodeForward(f.body, f.kind, &fw))
			all = append(all, fw)
		}
	}
}

// forwarded waits for a forward.
func (c *client) forwarded() codec.Forward {
	c.t.Helper()
	for {
		f := c.next()
		switch f.kind {
		case codec.KindForward:
			var fw codec.Forward
			c.decoded(codec.DecodeForward(f.body, f.kind, &fw))
			return fw
		case codec.KindAttached, codec.KindDetached, codec.KindGone, codec.KindExpel:
		default:
			c.t.Fatalf("%v came, want a forward", f.kind)
		}
	}
}

func (c *client) gives(kind codec.Kind, f codec.Forward) {
	c.t.Helper()
	c.write(codec.AppendForward(nil, kind, &f))
}

func (g *group) bindFor(id string, s routing.SessionID) uint64 {
	g.t.Helper()
	held, err := g.registry.Lookup(g.t.Context(), []string{id})
	if err != nil {
		g.t.Fatal(err)
	}
	res, err := g.registry.Bind(g.t.Context(), []routing.BindOp{{ID: id, Session: s, Expect: held[0].Binding}})
	if err != nil || res[0].Status != routing.Bound {
		g.t.Fatalf("bind: %v %v", res, err)
	}
	return res[0].Epoch
}

// A peer that is not a node of this cluster gets one clear error and is disconnected. Nobody else
// notices.
func TestLinkRefusals(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	by := n.watchOver()
	hello := func(change func(*codec.PeerHello)) func(*client) {
		return func(c *client) {
			h := n.peerHello("n9")
			change(&h)
			c.write(codec.AppendPeerHello(nil, &h))
		}
	}
	prove := func(proof func(f codec.PeerChallenge, said []byte) []byte) func(*client) {
		return func(c *client) {
			f, said := c.challenged(n.peerHello("n9"))
			c.write(codec.AppendPeerProof(nil, proof(f, said)))
		}
	}
	for _, v := range []struct {
		name  string
		do    func(*client)
		fault codec.Fault
		says  string
	}{
		{"another cluster", hello(func(h *codec.PeerHello) { h.Cluster = []byte("other") }), codec.FaultUnauthenticated, `cluster "distmsg", not "other"`},
		{"no version in common", hello(func(h *codec.PeerHello) { h.MinVersion, h.MaxVersion = 8, 9 }), codec.FaultBadVersion, "8 to 9"},
		{"the same name", hello(func(h *codec.PeerHello) { h.Node = []byte("n0") }), codec.FaultUnauthenticated, "give one of them another ID"},
		{"another secret", prove(func(codec.PeerChallenge, []byte) []byte { return randomBytes(codec.SecretLen) }), codec.FaultUnauthenticated, "secret"},
		{"a reflected proof", prove(func(f codec.PeerChallenge, _ []byte) []byte { return f.Proof }), codec.FaultUnauthenticated, "secret"},
		{"a client", func(c *client) {
			c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: codec.Version, MaxVersion: codec.Version}))
		}, codec.FaultUnexpectedKind, n.Addr().String()},
		{"a proof first", func(c *client) { c.write(codec.AppendPeerProof(nil, randomBytes(codec.SecretLen))) }, codec.FaultUnexpectedKind, "handshake"},
		{"a forward first", func(c *client) {
			c.gives(codec.KindForward, codec.Forward{Deliver: codec.Deliver{To: []byte("x")}, Session: randomBytes(codec.SessionIDLen)})
		}, codec.FaultUnexpectedKind, "handshake"},
		{"a second hello", func(c *client) {
			h := n.peerHello("n9")
			c.challenged(h)
			c.write(codec.AppendPeerHello(nil, &h))
		}, codec.FaultUnexpectedKind, "handshake"},
		{"bad bytes", func(c *client) { c.write(prefixed(0xc1, 0xff)) }, codec.FaultWrongType, ""},
		{"a large frame", func(c *client) { c.write([]byte{0, 1, 0, 0}) }, codec.FaultFrameTooLarge, ""},
		{"a token that nobody gives out", func(c *client) {
			c.nc.Close()
			*c = *n.linkAs("n9")
			c.settled()
			c.gives(codec.KindForward, codec.Forward{Deliver: codec.Deliver{Token: make([]byte, codec.MaxToken), To: []byte("x"), Flags: codec.FlagAck}, Session: randomBytes(codec.SessionIDLen)})
		}, codec.FaultBadValue, "forward.token"},
		{"an ack without a token", func(c *client) {
			c.nc.Close()
			*c = *n.linkAs("n9")
			c.settled()
			c.gives(codec.KindForward, codec.Forward{Deliver: codec.Deliver{To: []byte("x"), Flags: codec.FlagAck}, Session: randomBytes(codec.SessionIDLen)})
		}, codec.FaultBadValue, "forward.token"},
		{"bad bytes on an open link", func(c *client) {
			c.nc.Close()
			*c = *n.linkAs("n9")
			c.settled()
			c.write(prefixed(0x91, byte(codec.KindForward)))
		}, codec.FaultBadLength, ""},
	} {
		t.Run(v.name, func(t *testing.T) {
			c := n.dialPeer()
			c.t = t
			v.do(c)
			if e := c.fails(v.fault); !strings.Contains(e.Message, v.says) {
				t.Errorf("%q does not say %q", e.Message, v.says)
			}
		})
	}
	c := n.dial()
	h := n.peerHello("n9")
	c.write(codec.AppendPeerHello(nil, &h))
	if e := c.fails(codec.FaultUnexpectedKind); !strings.Contains(e.Message, "nodes connect to") {
		t.Errorf("a node at the clients' address hears %q", e.Message)
	}
	n.eventually("no link", func() bool { return n.Stats().Links == 0 })
	by.unharmed()
}

// An attacker cannot use a handshake that it has recorded.
func TestReplayedHandshake(t *testing.T) {
	n := startGroup(t, 1, 1).nodes[0]
	h := n.peerHello("n9")
	first := n.dialPeer()
	_, said := first.challenged(h)
	proof := peers.Proof(n.cluster.self.Secrets.First(), peers.Dialled, said)
	first.write(codec.AppendPeerProof(nil, proof))
	first.expect(codec.KindPeerReady)
	again := n.dialPeer()
	again.challenged(h)
	again.write(codec.AppendPeerProof(nil, proof))
	again.fails(codec.FaultUnauthenticated)
	first.settled() // and it did not push out the one it was stolen from
}

// The node ends a handshake that makes no progress.
func TestHandshakeTimeout(t *testing.T) {
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n0", 1, func(c *Config) { c.HelloTimeout = 50 * time.Millisecond })
	n.dialPeer().fails(codec.FaultHelloTimeout)
	c := n.dialPeer()
	c.challenged(n.peerHello("n9"))
	c.fails(codec.FaultHelloTimeout)
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

// A node with another secret cannot join, and the log says why.
func TestOtherSecret(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroup(t, 1, 1)
	var log lines
	stranger := g.start("n1", 1, func(c *Config) {
		c.ClusterSecret = []byte("the secret of somebody else")
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	stranger.eventually("a line", func() bool { return log.has("--cluster-secret-file") || log.has("the proof does not match") })
	if stranger.Stats().Links != 0 || g.nodes[0].Stats().Links != 0 {
		t.Error("linked")
	}
}

// Nodes of two versions work together. Each pair uses the highest version that both speak.
func TestPeerVersions(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	for i, versions := range [][2]uint64{{1, 2}, {1, 1}, {2, 2}} {
		cfg := Config{NodeID: fmt.Sprintf("n%d", i), Registry: g.registry, Membership: &hubMember{hub: g.hub},
			ClusterSecret: []byte("the secret of the test cluster"), PeerAddr: "127.0.0.1:0"}
		g.nodes = append(g.nodes, start(t, cfg, func(e *Engine) { e.cluster.self.MinVersion, e.cluster.self.MaxVersion = versions[0], versions[1] }))
	}
	both, old, newer := g.nodes[0], g.nodes[1], g.nodes[2]
	both.eventually("links", func() bool { return both.Stats().Links == 2 && old.Stats().Links == 1 && newer.Stats().Links == 1 })
	a, b, c := both.join("a"), old.join("b"), newer.join("c")
	a.exchange("a", b, "b")
	a.exchange("a", c, "c")
	b.exchange("b", a, "a")
	c.exchange("c", a, "a")
	b.hears(b.send("b", "c", "x"), codec.CodeUnreachable) // they have no version in common
}

// A node gives up a silent peer within 2 s. The sends that wait for it end lost.
func TestSilentPeer(t *testing.T) {
	long(t)
	t.Parallel()
	g := startGroup(t, 1, 2)
	n := g.nodes[0]
	a := n.join("a")
	s := routing.NewSessionID()
	g.bindFor("x", s)
	p := n.linkAs("n9")
	p.attach(s)
	seq := a.send("a", "x", "hello?")
	p.forwarded()
	began := time.Now() // from here on the peer reads nothing and says nothing
	a.hears(seq, codec.CodeLost)
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("lost after %v, want 2 s and some slack", took)
	}
	n.eventually("no link", func() bool { return n.Stats().Links == 0 })
}

// A node that does not read fills only its own link. Senders to it get overflow, control frames
// between nodes still get through, and links to others are not affected (S21).
func TestFullLink(t *testing.T) {
	g := startGroupWith(t, 2, 2, func(c *Config) { c.MaxPayload, c.MaxPending = 64<<10, 128<<10 })
	n := g.nodes[0]
	a, c, b := n.join("a"), n.join("c"), g.nodes[1].join("b")
	s := routing.NewSessionID()
	g.bindFor("x", s)
	p := n.linkAs("n9")
	p.attach(s)
	const sends = 400 // 25 MiB: more than link and kernel take
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := range sends {
			if _, err := a.nc.Write(sendFrame(uint64(i+1), "a", "x", strings.Repeat("x", 64<<10), codec.FlagAck, 60_000)); err != nil {
				return // the test hears of it in vain
			}
		}
	}()
	// However long all this takes, the node that does not read counts as alive.
	alive := time.NewTicker(linkPing)
	defer alive.Stop()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		for {
			select {
			case <-alive.C:
				_, _ = p.nc.Write(codec.AppendPing(nil, 1))
			case <-stopped:
				return
			}
		}
	}()
	if o := a.outcome(); o.Code != codec.CodeOverflow {
		t.Fatalf("%v", o)
	}
	<-written
	late := n.join()
	c.exchange("c", b, "b")
	for frames := 0; ; frames++ {
		f := p.next()
		if id, _, err := codec.DecodePresence(f.body, f.kind); f.kind == codec.KindAttached && err == nil && routing.SessionID(id) == late.sessionID() {
			if frames < 30 {
				t.Errorf("it came behind %d frames: the link was not full", frames)
			}
			break
		}
	}
	c.exchange("c", b, "b")
	p.nc.Close()
	a.nc.Close()
}

// A new link of a node first ends the older one: sends that wait there end lost, and its sessions
// are gone.
func TestLinkReplaced(t *testing.T) {
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 1, loops)
		n := g.nodes[0]
		a := n.join("a")
		s := routing.NewSessionID()
		g.bindFor("x", s)
		before := n.linkAs("n9")
		before.attach(s)
		seq := a.send("a", "x", "to the old one")
		before.forwarded()
		next := n.linkAs("n9")
		a.hears(seq, codec.CodeLost)
		for f := before.next(); f.kind != codec.KindError; f = before.next() {
		}
		before.ends()
		a.hears(a.send("a", "x", "too early"), codec.CodeUnreachable)
		next.attach(s)
		seq = a.send("a", "x", "to the new one")
		f := next.forwarded()
		next.write(codec.AppendAnswer(nil, &codec.Answer{Token: f.Token, Code: codec.CodeAcked, Session: f.Session}))
		a.hears(seq, codec.CodeAcked)
		if links := n.Stats().Links; links != 1 {
			t.Errorf("%d links", links)
		}
	})
}

// A node that the membership does not list for a while, for example because its ZooKeeper session
// expired, keeps its link. Nothing is lost.
func TestLinkOfARelistedNode(t *testing.T) {
	g := startGroup(t, 2, 1)
	dials, other := g.nodes[0], g.nodes[1]
	a, b := dials.join("a"), other.join("b")
	b.exchange("b", a, "a")
	before := dials.cluster.linkTo("n1")
	seq := a.send("a", "b", "over the link")
	d := b.delivered()
	g.hub.unlist("n1")
	g.hub.record(other.cluster.peers.Record())
	// A second link would come up within this time.
	for began := time.Now(); time.Since(began) < 100*time.Millisecond; {
		b.hears(b.send("b", "nobody", "x"), codec.CodeNoRoute)
	}
	b.ack(d, "")
	a.hears(seq, codec.CodeAcked)
	if dials.cluster.linkTo("n1") != before {
		t.Error("it was dialled again")
	}
	hall{dials.Engine}.Close([]routing.Handle{before.handle}, codec.FaultIdleTimeout, "to see that it is dialled again")
	dials.eventually("a new link", func() bool { k := dials.cluster.linkTo("n1"); return k != nil && k != before })
}

// dialTo connects to a listener.
func dialTo(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Error(err)
	}
	return nc
}

// A link whose other end is silent does not keep the node from stopping.
func TestDiallingEndsWithTheNode(t *testing.T) {
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	n := g.start("n0", 1, func(c *Config) { c.HelloTimeout = time.Hour })
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := n.cluster.ShakeHands(ctx, dialTo(t, mute), discovery.Record{ID: "n1"})
		ended <- err
	}()
	nc, err := mute.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	clientOn(t, n, nc).expect(codec.KindPeerHello) // from here on it is a connection of a loop
	cancel()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Error("it still waits for the link")
	}
}

// The pause before the next dial depends on how long the link was open. A handshake that the other
// end leaves unanswered does not count, however long it takes.
func TestUnansweredHandshake(t *testing.T) {
	long(t)
	t.Parallel()
	g := &group{t: t, hub: newHub(), registry: routing.NewMemory(routing.MemoryConfig{})}
	const timeout = 1200 * time.Millisecond // longer than any pause between two attempts
	n := g.start("n0", 1, func(c *Config) { c.HelloTimeout = timeout })
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	began := time.Now()
	k, err := n.cluster.ShakeHands(t.Context(), dialTo(t, mute), discovery.Record{ID: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	if up, took := k.Wait(t.Context()), time.Since(began); took < timeout-100*time.Millisecond || up != 0 {
		t.Errorf("after %v the link counts as having been up for %v", took, up)
	}
}

// When a link ends and opens again, messages keep their order, and every send has one outcome.
func TestOrderOverReplacedLinks(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		a, b := g.nodes[0].join("a"), g.nodes[1].join("b")
		a.exchange("a", b, "b")
		const rounds, each = 40, 25
		var answering sync.WaitGroup
		answering.Go(func() {
			last := -1
			for last < rounds*each-1 {
				d, i := b.delivered(), 0
				if _, err := fmt.Sscan(string(d.Payload), &i); err != nil || i <= last {
					t.Errorf("%q after %d", d.Payload, last)
				}
				last = i
				b.ack(d, "")
			}
		})
		codes := make(map[codec.Code]int)
		for round := range rounds {
			seqs := make(map[uint64]bool)
			switch round {
			case 10, 20:
				n := g.nodes[round/10-1]
				hall{n.Engine}.Close(*n.cluster.open.Load(), codec.FaultInternal, "a test ends it")
			case 30: // the last messages must arrive
				g.linked(2)
				g.nodes[0].eventually("b", func() bool { return a.lookupCode("b") == codec.CodeOK })
			}
			for i := range each {
				seqs[a.send("a", "b", fmt.Sprint(round*each+i))] = true
			}
			for range each {
				o := a.outcome()
				if !seqs[o.Seq] {
					t.Fatalf("a second outcome of %d", o.Seq)
				}
				delete(seqs, o.Seq)
				codes[o.Code]++
			}
		}
		answering.Wait()
		if codes[codec.CodeAcked] < 10*each || codes[codec.CodeNoRoute] != 0 {
			t.Errorf("%v", codes)
		}
	})
}
