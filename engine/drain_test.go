package engine

import (
	"fmt"
	"slices"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// pinged returns the nonce of the echo's ping that comes next, and the frames before it. It does
// not answer the ping.
func (c *client) pinged() (nonce uint64, before []frame) {
	c.t.Helper()
	for {
		f, err := c.read()
		switch {
		case err != nil:
			c.t.Fatalf("waiting for a ping: %v", err)
		case f.kind == codec.KindError:
			c.t.Fatalf("the link ended before a ping came: %s", describe(f))
		case f.kind != codec.KindPing:
			before = append(before, f)
			continue
		}
		nonce, err = codec.DecodePing(f.body)
		c.decoded(err)
		if nonce&echoPing != 0 {
			return nonce, before
		}
		c.write(codec.AppendPong(nil, nonce)) // a heartbeat
	}
}

// kindsOf returns the kinds of frames, in order.
func kindsOf(frames []frame) (kinds []codec.Kind) {
	for _, f := range frames {
		kinds = append(kinds, f.kind)
	}
	return kinds
}

// A node that drains does not end before the other nodes know where its sessions are. What another
// node sent it until then comes back, and has arrived there when the drain ends (S23).
func TestDrainWaitsForOtherNodes(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		g := startGroup(t, 2, loops)
		n := g.nodes[0]
		to, p := n.join("to"), n.linkAs("n9")
		id := to.sessionID()
		drained := make(chan error, 1)
		go func() {
			drained <- n.Drain(patient(t))
			p.nc.Close()
		}()
		to.hearsDrain(1)
		to.write(codec.AppendLeave(nil))
		to.expect(codec.KindLeft)
		to.nc.Close()

		first, _ := p.pinged()
		// The forward left before this node heard that the session is not attached there any more.
		p.gives(codec.KindForward, codec.Forward{Deliver: codec.Deliver{Token: make([]byte, 8), To: []byte("to"), From: []byte("from"),
			TTL: 1000, Flags: codec.FlagAck, Epoch: 1 << 52, Payload: []byte("late")}, Session: id[:]})
		p.write(codec.AppendPong(nil, first))
		second, before := p.pinged()
		if kinds := kindsOf(before); len(kinds) != 1 || kinds[0] != codec.KindNotAttached {
			t.Errorf("%v came, want the message back", kinds)
		}
		select {
		case err := <-drained:
			t.Fatalf("the drain has ended before the message was back: %v", err)
		default:
		}
		p.write(codec.AppendPong(nil, second))
		if err := <-drained; err != nil {
			t.Error(err)
		}
	})
}

// A node that answers nothing does not hold a drain up for longer than its link.
func TestDrainWithSilentNode(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	p := n.linkAs("n9")
	drained := make(chan error, 1)
	go func() { drained <- n.Drain(patient(t)) }()
	p.pinged()
	p.nc.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// A pong that comes behind everything else comes behind what other loops have for the link, too: a
// message for the other node, and the refusal of a message that the other node has sent.
func TestEchoBehindOtherLoops(t *testing.T) {
	g := startGroup(t, 1, 2)
	n := g.nodes[0]
	senders := []*client{n.joinOn(0, "from-0"), n.joinOn(1, "from-1")}
	receivers := []*client{n.joinOn(0, "to-0"), n.joinOn(1, "to-1")}
	p, there := n.linkAs("n9"), routing.NewSessionID()
	p.attach(there)
	g.bindFor("there", there)
	link := int(n.cluster.linkTo("n9").handle.Loop)
	from, to := senders[1-link], receivers[1-link]
	fromID, toID := fmt.Sprint("from-", 1-link), fmt.Sprint("to-", 1-link)
	known := from.send(fromID, "there", "makes the route known")
	p.write(codec.AppendAnswer(nil, &codec.Answer{Token: p.forwarded().Token, Code: codec.CodeAcked, Session: there[:]}))
	from.hears(known, codec.CodeAcked)
	fromConn, toConn, id := n.handleOf(from), n.handleOf(to), to.sessionID()

	// beforePong has the loop of the link handle frames and then a ping, while the other loop waits
	// between two things that it does. It returns what comes before the pong.
	beforePong := func(frames []byte, n1 uint64, first, second func(*loop)) (kinds []codec.Kind) {
		n.on(1-link, func(l *loop) {
			first(l)
			before := n.framesOn(link)
			p.write(codec.AppendPing(frames, echoPing|1))
			n.eventually("the frames have been handled", func() bool { return n.framesOn(link) == before+n1 })
			second(l)
		})
		for f := p.next(); f.kind != codec.KindPong; f = p.next() {
			kinds = append(kinds, f.kind)
		}
		return kinds
	}
	nothing := func(*loop) {}
	kinds := beforePong(nil, 1, func(l *loop) {
		l.conn(fromConn).frame(sendFrame(9, fromID, "there", "hi", codec.FlagAck, 0)[codec.PrefixLen:])
	}, nothing)
	if !slices.Contains(kinds, codec.KindForward) {
		t.Errorf("%v came before the pong, want the forward", kinds)
	}
	forward := codec.AppendForward(nil, codec.KindForward, &codec.Forward{Deliver: codec.Deliver{Token: make([]byte, 8), To: []byte(toID),
		From: []byte("from"), TTL: 1000, Flags: codec.FlagAck, Epoch: 1 << 52, Payload: []byte("hi")}, Session: id[:]})
	kinds = beforePong(forward, 2, nothing, func(l *loop) { l.conn(toConn).end() })
	if !slices.Contains(kinds, codec.KindRefuse) {
		t.Errorf("%v came before the pong, want the refusal", kinds)
	}
	p.nc.Close()
}

// A multicast of which a part has been decided on is under way, even if nothing of it is pending.
func TestDrainWaitsForTheRestOfAMulticast(t *testing.T) {
	n := start(t, Config{})
	c := n.join("a")
	body := codec.AppendMulticast(nil, &codec.Multicast{From: []byte("a")}, [][]byte{[]byte("nobody")})[codec.PrefixLen:]
	sender := n.handleOf(c)
	n.on(0, func(l *loop) {
		n.drain.at.Store(1) // the grace is over
		defer n.drain.at.Store(0)
		if n.drain.busy(l) {
			t.Error("busy, with nothing under way")
		}
		r := relaying{body: body}
		conn := l.conn(sender)
		conn.sender.multicast()
		conn.in.suspend(r.keep())
		if !n.drain.busy(l) {
			t.Error("idle in the middle of a multicast")
		}
	})
	c.alive()
}

// A node does not give another one up because both were stalled for a while.
func TestStallIsNoSilenceOfLinks(t *testing.T) {
	g := startGroup(t, 1, 1)
	n := g.nodes[0]
	p := n.linkAs("n9")
	k := n.cluster.linkTo("n9")
	n.on(0, func(l *loop) {
		k.conn.live.lastFrame -= 2 * linkDead.Milliseconds()
		l.links.check()
		if k.conn.closed() {
			t.Error("the link was closed")
		}
	})
	p.settled()
	p.nc.Close()
}

// handleOf returns the only connection of a client's session.
func (n *node) handleOf(c *client) routing.Handle { return n.table.Session(c.sessionID()).Handles()[0] }

// framesOn returns how many frames a loop has handled.
func (n *node) framesOn(index int) (count uint64) {
	n.on(index, func(l *loop) { count = l.stats.framesIn })
	return count
}
