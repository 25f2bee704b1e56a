package engine

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/wake"
	"distmsg/routing"
)

// A link is a connection to another node: an ordinary connection of an event loop, with another
// handshake and other frames. There is one for each pair of nodes.
//
// The handshake proves to both sides that the other knows the cluster's secret, and puts nothing of
// it on the wire: each side's proof is a MAC over its role, both nodes, both incarnations, both nonces, the
// version and the name of the cluster. A proof can neither be replayed (the nonces are fresh) nor
// reflected (the roles differ).

const (
	linkPing = 500 * time.Millisecond // silence after which a peer is pinged
	linkDead = 2 * time.Second        // silence after which it is given up
	// linkRoom is how much more than for a client may wait to be written to a peer. Control frames have room beyond it.
	linkRoom = 16
)

// link is the cluster's half of a connection to another node.
type link struct {
	// static
	cluster *cluster
	dialled bool
	up      chan struct{} // closed when the link opens
	ended   chan struct{} // closed with the connection

	// owned by the loop; static once open
	handle      routing.Handle
	node        string // the other one; known from the start if we dialled
	incarnation uint64
	identity    codec.PeerIdentity // the other's

	// owned by the loop
	proven     bool            // the other has proved that it knows the secret
	differs    string          // what the two do not agree on
	expects    codec.Kind      // the frame that the handshake goes on with, beside an error
	hello      codec.PeerHello // ours, if we dialled
	transcript []byte
	sessions   map[routing.SessionID]attachment // those attached at the other node
	shares     map[uint64]linkShare             // by session, see mayRelay
	opened     int64                            // when the link opened
	lasted     int64                            // for how many milliseconds it was open; set when it ends
	contested  int64                            // when another node of that name first came; 0: none has
}

// attachment is a session at the other node, and the serial of its latest attach there.
type attachment struct {
	session *routing.Session
	serial  uint64
}

func newLink(c *cluster) *link {
	return &link{cluster: c, up: make(chan struct{}), ended: make(chan struct{})}
}

// prove notes that the other node has proved that it knows the secret.
func (k *link) prove(c *conn) {
	k.proven = true
	if c.port != nil {
		c.port.proved(c)
	}
}

// begin is called when the connection is on its loop.
func (k *link) begin(c *conn) {
	k.handle = c.handle()
	k.sessions = make(map[routing.SessionID]attachment)
	if !k.dialled {
		k.expects = codec.KindPeerHello
		return
	}
	k.expects = codec.KindPeerChallenge
	k.hello = c.loop.eng.peerHello(c.loop.eng.cfg.NodeID, c.loop.fenced)
	c.out.wroteControl(codec.AppendPeerHello(c.out.buf(), &k.hello))
}

// wait returns when the link has ended, or ctx has, and for how long the link was open if it has
// ended. Any goroutine may call it.
func (k *link) wait(ctx context.Context) (up time.Duration) {
	select {
	case <-k.ended:
		return time.Duration(k.lasted) * time.Millisecond
	case <-ctx.Done():
		return 0
	}
}

func (e *Engine) peerHello(node string, incarnation uint64) codec.PeerHello {
	return codec.PeerHello{
		MinVersion: e.peerVersions[0], MaxVersion: e.peerVersions[1], Cluster: []byte(e.cfg.Cluster),
		Node: []byte(node), Incarnation: incarnation, Nonce: randomBytes(codec.NonceLen),
		PeerIdentity: e.identity(),
	}
}

// handshake handles a frame before the link is open.
func (k *link) handshake(c *conn, kind codec.Kind, body []byte) {
	switch {
	case kind == codec.KindError:
		k.handleError(c, body)
	case kind == codec.KindHello:
		c.unexpected(kind, "this address is for other nodes; clients connect to "+c.loop.eng.member().Addr)
	case kind != k.expects:
		c.unexpected(kind, "not in this state of the handshake between nodes")
	case kind == codec.KindPeerHello:
		k.handleHello(c, body)
	case kind == codec.KindPeerProof:
		k.handleProof(c, body)
	case kind == codec.KindPeerChallenge:
		k.handleChallenge(c, body)
	case kind == codec.KindPeerReady:
		if err := codec.DecodePeerReady(body); err != nil {
			c.decodeFault(err, kind)
			return
		}
		if k.differs != "" {
			c.close(codec.FaultUnauthenticated, "the two nodes do not agree: "+k.differs)
			return
		}
		k.open(c)
	}
}

func (k *link) handleHello(c *conn, body []byte) {
	var f codec.PeerHello
	if err := codec.DecodePeerHello(body, &f); err != nil {
		c.decodeFault(err, codec.KindPeerHello)
		return
	}
	e := c.loop.eng
	version := min(f.MaxVersion, e.peerVersions[1])
	switch {
	case string(f.Cluster) != e.cfg.Cluster:
		c.close(codec.FaultUnauthenticated, fmt.Sprintf("this node is of cluster %q, not %q", e.cfg.Cluster, f.Cluster))
		return
	case version < f.MinVersion || version < e.peerVersions[0]:
		c.close(codec.FaultBadVersion, fmt.Sprintf("this node speaks versions %d to %d with its peers, the other %d to %d",
			e.peerVersions[0], e.peerVersions[1], f.MinVersion, f.MaxVersion))
		return
	case string(f.Node) == e.cfg.NodeID:
		wake.Nudge(k.cluster.doubt)
		c.close(codec.FaultUnauthenticated, fmt.Sprintf("this node is called %q too: give one of them another ID", f.Node))
		return
	}
	k.node, k.incarnation, k.identity = string(f.Node), f.Incarnation, f.PeerIdentity
	challenge := codec.PeerChallenge{
		Version: version, Node: []byte(e.cfg.NodeID), Incarnation: c.loop.fenced, Nonce: randomBytes(codec.NonceLen),
		PeerIdentity: e.identity(),
	}
	k.differs = disagreement(&challenge.PeerIdentity, &k.identity)
	k.transcript = transcript(&f, &challenge)
	challenge.Proof = e.proof("accepted", k.transcript)
	k.expects = codec.KindPeerProof
	c.out.wroteControl(codec.AppendPeerChallenge(c.out.buf(), &challenge))
}

func (k *link) handleChallenge(c *conn, body []byte) {
	var f codec.PeerChallenge
	if err := codec.DecodePeerChallenge(body, &f); err != nil {
		c.decodeFault(err, codec.KindPeerChallenge)
		return
	}
	e := c.loop.eng
	if f.Version < e.peerVersions[0] || f.Version > e.peerVersions[1] {
		c.close(codec.FaultBadVersion, fmt.Sprintf("version %d was not offered", f.Version))
		return
	}
	k.transcript = transcript(&k.hello, &f)
	if !e.proves(f.Proof, "accepted", k.transcript) {
		k.badSecret(c)
		return
	}
	if string(f.Node) != k.node {
		c.close(codec.FaultUnauthenticated, fmt.Sprintf("node %q was expected at this address, %q answers", k.node, f.Node))
		return
	}
	k.incarnation, k.identity, k.expects = f.Incarnation, f.PeerIdentity, 0
	k.prove(c)
	prove := func() {
		k.expects = codec.KindPeerReady
		c.out.wroteControl(codec.AppendPeerProof(c.out.buf(), e.proof("dialled", k.transcript)))
	}
	if k.differs = disagreement(&k.hello.PeerIdentity, &k.identity); k.differs != "" {
		k.cluster.refuse(k.node, k.differs)
		prove() // so that the other believes what it finds, and refuses
		return
	}
	k.supersede(c, prove)
}

func (k *link) handleProof(c *conn, body []byte) {
	proof, err := codec.DecodePeerProof(body)
	if err != nil {
		c.decodeFault(err, codec.KindPeerProof)
		return
	}
	if !c.loop.eng.proves(proof, "dialled", k.transcript) {
		k.badSecret(c)
		return
	}
	k.expects = 0
	k.prove(c)
	if k.differs != "" {
		k.cluster.refuse(k.node, k.differs)
		c.close(codec.FaultUnauthenticated, "the two nodes do not agree: "+k.differs)
		return
	}
	k.supersede(c, func() {
		c.out.wroteControl(codec.AppendPeerReady(c.out.buf()))
		k.open(c)
	})
}

// supersede closes an older link to the same node and then goes on, so that nothing on the old one can come after
// what comes on the new one. Each side does it before its last word of the handshake: what follows finds the way clear.
// If the two lead to two nodes of one name, the new link is not always the one that stays.
func (k *link) supersede(c *conn, goOn func()) {
	old := k.cluster.linkTo(k.node)
	if old == nil {
		goOn()
		return
	}
	own, h, remote := c.loop, c.handle(), c.remote.String()
	other := own.eng.loops[old.handle.Loop]
	other.post(func() {
		then := func(*conn) { goOn() }
		if oc := other.conn(old.handle); oc != nil {
			switch old.contest(oc, &k.identity) {
			case rivalNone:
				oc.close(codec.FaultReplaced, "the node has a newer link")
			case rivalEnds:
				oc.close(codec.FaultNameTaken, nameTaken(k.node, remote))
			case rivalStays:
				where := oc.remote.String()
				then = func(c *conn) { k.refuseName(c, where) }
			case rivalSilent:
				then = func(c *conn) { c.close(codec.FaultReplaced, "another node of that name may live: try again") }
			}
		}
		own.post(func() {
			if c := own.conn(h); c != nil {
				then(c)
			}
		})
	})
}

func (k *link) badSecret(c *conn) {
	k.cluster.complain("a node does not know the cluster's secret: give all nodes the same", "node", k.node, "remote", c.remote)
	c.close(codec.FaultUnauthenticated, "the proof is not one that the cluster's secret makes")
}

// handleError reports why the other side ends the link.
func (k *link) handleError(c *conn, body []byte) {
	var f codec.ErrorFrame
	if err := codec.DecodeError(body, &f); err != nil {
		c.decodeFault(err, codec.KindError)
		return
	}
	switch f.Fault {
	case codec.FaultGoingAway, codec.FaultReplaced, codec.FaultFenced: // as things go
	case codec.FaultNameTaken:
		if k.proven { // else anybody who listens at an address could end this node
			k.cluster.end(fmt.Errorf("engine: node %q says: %s", k.node, f.Message))
		}
	default:
		if k.proven && k.differs != "" {
			break // that is logged already
		}
		k.cluster.complain("a node refuses the link", "node", k.node, "remote", c.remote, "fault", f.Fault, "message", f.Message)
	}
	c.end()
}

// transcript is what both proofs are about: all that the two have said before. Every part that has no fixed length has it before it.
// What they say of themselves beyond their names is part of it if both say it: an older node says
// nothing, and knows nothing of it.
func transcript(hello *codec.PeerHello, challenge *codec.PeerChallenge) []byte {
	b := binary.BigEndian.AppendUint64(nil, challenge.Version)
	b = binary.BigEndian.AppendUint64(b, hello.MinVersion)
	b = binary.BigEndian.AppendUint64(b, hello.MaxVersion)
	parts := [][]byte{
		hello.Cluster, hello.Node, binary.BigEndian.AppendUint64(nil, hello.Incarnation), hello.Nonce,
		challenge.Node, binary.BigEndian.AppendUint64(nil, challenge.Incarnation), challenge.Nonce,
	}
	if hello.Since != 0 && challenge.Since != 0 {
		for _, id := range []codec.PeerIdentity{hello.PeerIdentity, challenge.PeerIdentity} {
			parts = append(parts, binary.BigEndian.AppendUint64(nil, id.Since))
			parts = append(parts, []byte{id.Flags}, binary.BigEndian.AppendUint64(nil, uint64(len(id.Settings))))
			for _, s := range id.Settings {
				parts = append(parts, []byte(s.Name), []byte(s.Value))
			}
		}
	}
	for _, part := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
		b = append(b, part...)
	}
	return b
}

func (e *Engine) proof(role string, transcript []byte) []byte {
	mac := hmac.New(sha256.New, e.cfg.ClusterSecret)
	mac.Write([]byte("distmsg peer " + role + "\x00"))
	mac.Write(transcript)
	return mac.Sum(nil)
}

// proves reports whether a proof is the one that the cluster's secret makes.
func (e *Engine) proves(proof []byte, role string, transcript []byte) bool {
	return hmac.Equal(proof, e.proof(role, transcript))
}

// open makes the link a way for messages, and tells the other node which sessions are attached here.
func (k *link) open(c *conn) {
	if !k.cluster.opened(k) { // first: what attaches from here on is announced to it as well
		c.close(codec.FaultReplaced, "another link between the two nodes has come up meanwhile")
		return
	}
	c.state = stateOpen
	close(k.up)
	k.opened = c.loop.now
	c.incarnation = c.loop.fenced
	c.list = c.loop.acks.NewList()
	c.out.maxPending = linkRoom * c.loop.eng.cfg.MaxPending
	for _, l := range c.loop.eng.loops {
		l.post(func() { l.introduce(k.handle) })
	}
	wake.Nudge(c.loop.eng.verifySoon) // kicks may have been lost while there was no link (S15)
	c.loop.eng.cfg.Logger.Info("link up", "node", k.node, "remote", c.remote)
}

// end takes the link out of everything; its connection has just been torn down.
func (k *link) end(c *conn, wasOpen bool) {
	if wasOpen {
		k.lasted = c.loop.now - k.opened
		k.cluster.detaching.Add(1) // first: it is in the list of open links until then
		k.cluster.closed(k)
		c.loop.endLink(k.handle)
		c.loop.endSoon(ending{link: k, sessions: k.sessions, slot: -1})
		k.sessions = nil
		c.loop.eng.cfg.Logger.Info("link down", "node", k.node, "remote", c.remote)
	}
	close(k.ended)
}

// frame handles a frame on an open link.
func (k *link) frame(c *conn, kind codec.Kind, body []byte) {
	var err error
	switch kind {
	case codec.KindForward:
		err = c.handleForward(k, body)
	case codec.KindAnswer:
		err = c.handleAnswer(body)
	case codec.KindNotMine, codec.KindNotAttached:
		err = c.handleReturned(k, kind, body)
	case codec.KindForwardMany:
		err = c.handleForwardMany(k, body)
	case codec.KindReturnMany:
		err = c.handleReturnMany(k, body)
	case codec.KindRefuse:
		err = c.handleRefuse(body)
	case codec.KindGone:
		err = c.handleGone(body)
	case codec.KindAttached, codec.KindDetached:
		err = k.handlePresence(kind, body)
	case codec.KindExpel:
		err = c.handleExpel(body)
	case codec.KindClaim:
		err = k.handleClaim(body)
	case codec.KindEnded:
		err = k.handleEnded(body)
	case codec.KindReleased:
		err = c.handleReleased(body)
	case codec.KindPing:
		c.handlePing(body)
	case codec.KindPong:
		err = c.handlePong(body)
	case codec.KindError:
		k.handleError(c, body)
	default:
		// A newer node may say more than this one understands; it knows our version and does not count on it.
	}
	if err != nil {
		c.decodeFault(err, kind)
	}
}

// introduce tells another node which sessions are attached by connections of this loop. One that has not been heard of for
// so long that it would be given up elsewhere is asked first: after a partition its session may have moved long ago, and nobody
// must be sent after it.
func (l *loop) introduce(to routing.Handle) { l.introduceFrom(0, to) }

// introduceFrom does so for the connections from a slot on, as far as the iteration's share allows, and
// for the rest in the next one. Those that attach meanwhile are announced anyway.
func (l *loop) introduceFrom(slot int, to routing.Handle) {
	for ; slot < len(l.conns); slot++ {
		if l.full {
			l.post(func() { l.introduceFrom(slot, to) })
			return
		}
		l.worked(1)
		switch c := l.conns[slot]; {
		case c == nil || c.state != stateOpen || c.session == nil || c.left:
		case c.local != nil || l.now-c.lastFrame < linkDead.Milliseconds():
			l.sendControl(to, c.attachedFrame(l.scratch[:0]))
		default:
			c.distrust()
			c.stepBack()
		}
	}
}

// attached reports whether a session is attached at a node that there is a link to.
func (c *cluster) attached(id routing.SessionID) bool {
	s := c.remote.Session(id)
	return s != nil && len(s.Handles()) > 0
}

func (c *conn) attachedFrame(b []byte) []byte {
	id := c.session.ID()
	return codec.AppendPresence(b, codec.KindAttached, id[:], c.session.Serial())
}

// handlePresence notes where a session is attached, or is no longer. The frames of one session may come from several loops of
// the other node, and out of order: the serial tells.
func (k *link) handlePresence(kind codec.Kind, body []byte) error {
	b, serial, err := codec.DecodePresence(body, kind)
	if err != nil {
		return err
	}
	id := routing.SessionID(b)
	at, known := k.sessions[id]
	if kind == codec.KindDetached {
		if known && at.serial <= serial {
			k.forget(id)
		}
		return nil
	}
	if !known {
		at.session = k.cluster.remote.OpenSession(id, "")
		k.cluster.remote.Attach(at.session, k.handle)
	}
	at.serial = max(at.serial, serial)
	k.sessions[id] = at
	if s := k.cluster.eng.table.Session(id); s != nil {
		k.cluster.eng.eachConn(s, (*conn).doubt)
	}
	return nil
}

// forget takes a session for one that is not attached at the other node.
func (k *link) forget(id routing.SessionID) {
	if at, known := k.sessions[id]; known {
		delete(k.sessions, id)
		k.detached(id, at.session)
	}
}

// detached forgets that a session is attached at the other node. If it was attached nowhere else, its
// routes go when its resume window is over.
func (k *link) detached(id routing.SessionID, s *routing.Session) {
	remote := k.cluster.remote
	left, serial, found := remote.Detach(s, k.handle)
	if !found || left > 0 {
		return
	}
	e := k.cluster.eng
	node, incarnation := k.node, k.incarnation
	time.AfterFunc(e.cfg.ResumeWindow, func() {
		e.lanes.inSession(id, func() {
			if _, ended := remote.EndSession(s, serial); ended {
				e.endOrphan(id, node, incarnation)
			}
		})
	})
}
