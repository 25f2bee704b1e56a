package engine

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/peers"
	"distmsg/routing"
)

// A link is a connection to another node. It is an ordinary connection of an event loop, with its
// own handshake (peers.Handshake) and its own frames. Each pair of nodes has one link.

const (
	linkPing = 500 * time.Millisecond // ping a peer after this silence
	linkDead = 2 * time.Second        // give a peer up after this silence
	// linkRoom is how many times more bytes may be queued for a peer than for a client. Control
	// frames have further room.
	linkRoom = 16
)

// link is the cluster's half of a connection to another node.
type link struct {
	// static
	cluster *cluster
	dialled bool
	up      chan struct{} // closed when the link opens
	ended   chan struct{} // closed when the connection ends

	// owned by the loop; static once open
	conn        *conn
	handle      routing.Handle
	node        string // the other node; known from the start if this node dialled
	incarnation uint64
	answers     bool // the other node answers queries

	// owned by the loop
	shaking   *peers.Handshake
	incumbent peers.Incumbent                  // the other node, once the link is open
	sessions  map[routing.SessionID]attachment // sessions attached at the other node
	shares    map[uint64]linkShare             // by session, see mayRelay
	bytesIn   uint64                           // read from it
	lasted    int64                            // how many milliseconds it was open; set at its end
	why       string                           // why this node ends it; empty: it does not
}

// attachment is a session at the other node, with the serial of its latest attach there.
type attachment struct {
	session *routing.Session
	serial  uint64
}

func newLink(c *cluster) *link {
	return &link{cluster: c, up: make(chan struct{}), ended: make(chan struct{})}
}

// begin starts the handshake. Its connection is on its loop by now.
func (k *link) begin(c *conn) {
	k.conn, k.handle = c, c.handle()
	k.sessions = make(map[routing.SessionID]attachment)
	if !k.dialled {
		k.shaking = peers.Accept(k.cluster.self, c.loop.fenced)
		return
	}
	var first peers.Step
	k.shaking, first = peers.Dial(k.cluster.self, c.loop.fenced, k.node)
	k.take(c, first)
}

// Wait blocks until the link or ctx has ended. It returns how long the link was open, or 0 if ctx
// ended first. Any goroutine may call it.
func (k *link) Wait(ctx context.Context) (up time.Duration) {
	select {
	case <-k.ended:
		return time.Duration(k.lasted) * time.Millisecond
	case <-ctx.Done():
		return 0
	}
}

// take carries out a step of the handshake while the link is not open yet.
func (k *link) take(c *conn, step peers.Step) {
	k.node, k.incarnation = k.shaking.Peer().Node, k.shaking.Peer().Incarnation
	k.do(c, step)
}

// do carries out a step.
func (k *link) do(c *conn, step peers.Step) {
	if step.Proved && c.port != nil {
		c.port.proved(c, 0)
	}
	k.notice(c, &step)
	if len(step.Send) > 0 {
		c.out.wroteControl(append(c.out.buf(), step.Send...))
	}
	switch step.Verdict {
	case peers.ToSupersede:
		k.supersede(c)
	case peers.ToOpen:
		k.open(c)
	case peers.ToRefuse:
		c.closeFor(step.Fault, step.Kind, step.Detail)
	case peers.ToEnd:
		c.end()
	}
}

// notice logs problems with the other node, and passes on those that concern this node.
func (k *link) notice(c *conn, step *peers.Step) {
	switch others := k.cluster.peers; step.Note {
	case peers.NoteSameName:
		others.Doubt()
	case peers.NoteDiffers:
		others.Members.Refuse(k.node, k.shaking.Differs())
	case peers.NoteMustEnd:
		others.End(fmt.Errorf("engine: node %q says: %s", k.node, step.Detail))
	case peers.NoteOtherCluster:
		others.Members.Failed(k.node, k.claims(c)+"belongs to another cluster")
	case peers.NoteBadSecret:
		others.Members.Failed(k.node, k.claims(c)+"does not know the cluster's secret")
		others.Complain("a node does not know the cluster's secret: give all nodes the same secret", "node", k.node, "remote", c.remote)
	case peers.NoteNameTaken:
		others.Complain("refused a node whose name another node has: give one of the two another node ID", "node", k.node, "remote", c.remote, "other", step.Where)
	case peers.NoteTurnedAway:
		others.Members.Failed(k.node, k.claims(c)+"refuses the link: "+step.Detail)
		others.Complain("a node refused the link", "node", k.node, "remote", c.remote, "fault", step.Fault, "message", step.Detail)
	}
}

// claims begins a sentence about the other node, which has not proved anything.
func (k *link) claims(c *conn) string {
	if k.dialled {
		return "it "
	}
	return "who connects from " + sourceOf(c.remote).String() + " under its name "
}

// supersede closes an older link to the same node. Only then does the handshake proceed, so nothing
// on the old link can arrive after a frame on the new one. If two nodes of one name use the two
// links, either link may be the one that stays.
func (k *link) supersede(c *conn) {
	old := k.cluster.linkTo(k.node)
	if old == nil {
		k.take(c, k.shaking.Proceed(peers.RivalGone, ""))
		return
	}
	own, h, remote := c.loop, c.handle(), c.remote.String()
	comer := k.shaking.Peer().Identity
	other := own.eng.loops[old.handle.Loop]
	other.post(func() {
		rival, where := peers.RivalGone, ""
		if oc := other.conn(old.handle); oc != nil {
			rival, where = old.contest(oc, &comer, remote), oc.remote.String()
		}
		own.post(func() {
			if c := own.conn(h); c != nil {
				k.take(c, k.shaking.Proceed(rival, where))
			}
		})
	})
}

// contest decides between the node of this open link and a node that dials from remote under the
// same name. It carries the decision out on this link. It runs on the link's loop.
func (k *link) contest(c *conn, comer *codec.PeerIdentity, remote string) peers.Rival {
	rival := k.incumbent.Contest(comer, c.loop.now, c.live.lastFrame)
	switch rival {
	case peers.RivalGone:
		c.close(codec.FaultReplaced, "the node has a newer link")
	case peers.RivalEnds:
		c.close(codec.FaultNameTaken, peers.NameTaken(k.node, remote))
	case peers.RivalAsked:
		c.out.wroteControl(codec.AppendPing(c.out.buf(), uint64(c.loop.now)))
	}
	return rival
}

// open lets messages use the link, and sends the other node the sessions that are attached here.
func (k *link) open(c *conn) {
	k.answers = k.shaking.Peer().Identity.Flags&codec.PeerAnswers != 0
	// Register the link first, so that sessions that attach from here on are announced on it, too.
	if !k.cluster.opened(k) {
		c.close(codec.FaultReplaced, "another link between the two nodes has opened")
		return
	}
	c.state, c.opened = stateOpen, c.loop.now
	close(k.up)
	c.out.wroteControl(announceFrame(c.out.buf(), k.cluster.peers.Record(), false))
	k.incumbent = peers.Incumbent{Identity: k.shaking.Peer().Identity, Opened: c.loop.now}
	c.incarnation = c.loop.fenced
	c.list = c.loop.settle.acks.NewList()
	c.out.maxPending = linkRoom * c.loop.eng.cfg.MaxPending
	for _, l := range c.loop.eng.loops {
		l.post(func() { l.links.introduce(k.handle) })
	}
	// Kicks may have been lost while there was no link (S15).
	c.loop.eng.dir.VerifySoon()
	k.cluster.log.Info("link up", "node", k.node, "remote", c.remote)
}

// end removes the link from everything. Its connection has just been torn down.
func (k *link) end(c *conn, wasOpen bool) {
	if wasOpen {
		k.lasted = c.loop.now - k.incumbent.Opened
		k.cluster.detaching.Add(1) // first: until closed, the link is in the list of open ones
		k.cluster.closed(k)
		c.loop.eng.desk.LinkClosed(k.handle)
		c.loop.endings.endLink(k.handle)
		c.loop.endings.add(ending{link: k, sessions: k.sessions, slot: -1})
		k.sessions = nil
		k.cluster.log.Info("link down", "node", k.node, "remote", c.remote, "why", cmp.Or(k.why, "the other node, or the network, has closed it"))
	}
	close(k.ended)
}

// frame handles a frame on an open link.
func (k *link) frame(c *conn, kind codec.Kind, body []byte) {
	var err error
	switch kind {
	case codec.KindForward:
		err = k.handleForward(body)
	case codec.KindAnswer:
		err = k.handleAnswer(body)
	case codec.KindNotMine, codec.KindNotAttached:
		err = k.handleReturned(kind, body)
	case codec.KindForwardMany:
		err = k.handleForwardMany(body)
	case codec.KindReturnMany:
		err = k.handleReturnMany(body)
	case codec.KindRefuse:
		err = k.handleRefuse(body)
	case codec.KindGone:
		err = k.handleGone(body)
	case codec.KindAttached, codec.KindDetached:
		err = k.handlePresence(kind, body)
	case codec.KindExpel:
		err = k.handleExpel(body)
	case codec.KindClaim:
		err = k.handleClaim(body)
	case codec.KindEnded:
		err = k.handleEnded(body)
	case codec.KindAnnounce:
		err = k.handleAnnounce(body)
	case codec.KindReleased:
		err = k.handleReleased(body)
	case codec.KindQuery:
		err = k.handleQuery(body)
	case codec.KindQueryPart:
		err = k.handleQueryPart(body)
	case codec.KindPing:
		err = k.handlePing(body)
	case codec.KindPong:
		err = k.handlePong(body)
	case codec.KindError:
		k.do(c, k.shaking.PeerError(body))
	default:
		// Ignore unknown kinds. A newer node knows this node's version, and does not rely on an
		// answer.
	}
	if err != nil {
		c.decodeFault(err, kind)
	}
}

// handleAnnounce passes on what the other node says about itself.
func (k *link) handleAnnounce(body []byte) error {
	var f codec.Announce
	err := codec.DecodeAnnounce(body, &f)
	if err == nil {
		k.cluster.peers.Members.Announced(k.node, k, &f)
	}
	return err
}

func (c *conn) attachedFrame(b []byte) []byte {
	id := c.session.ID()
	return codec.AppendPresence(b, codec.KindAttached, id[:], c.session.Serial())
}

// handlePresence records that a session is attached at the other node, or is no longer. Several
// loops of the other node may send frames for one session, and out of order. The serial tells which
// frame is the latest.
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
		hall{k.cluster.eng}.eachConn(s.Handles(), func(c *conn) { c.live.doubt() })
	}
	return nil
}

// forget removes a session from those attached at the other node.
func (k *link) forget(id routing.SessionID) {
	if at, known := k.sessions[id]; known {
		delete(k.sessions, id)
		k.detached(id, at.session)
	}
}

// detached ends a session's attachment at the other node. If it was attached nowhere else, its
// routes go when its resume window is over.
func (k *link) detached(id routing.SessionID, s *routing.Session) {
	remote := k.cluster.remote
	left, serial, found := remote.Detach(s, k.handle)
	if !found || left > 0 {
		return
	}
	k.cluster.eng.dir.LeftElsewhere(s, serial, k.node, k.incarnation)
}
