package conformance

import (
	"bytes"
	"fmt"
	"time"

	"distmsg/codec"
)

// frame checks one frame of the client against the rules that hold in all scenarios, and answers it
// as a node does.
func (p *play) frame(c *conn, frame []byte) {
	body := frame[codec.PrefixLen:]
	c.heard = time.Now()
	kind, err := codec.PeekKind(body)
	if err != nil {
		p.blame(c, secFrames, "a msgpack array that begins with the kind", err.Error(), frame)
	}
	switch {
	case c.bye:
		p.blame(c, secStates, "nothing after bye", kind.String(), frame)
	case kind == codec.KindHello && !c.greeted:
		p.hello(c, frame)
		return
	case kind == codec.KindHello:
		p.blame(c, secStates, "hello once", "a second hello", frame)
	case !c.open:
		p.blame(c, secStates, "the client waits for welcome before it sends anything but hello", kind.String(), frame)
	case uint64(len(body)) > c.limits.MaxFrame:
		p.blame(c, secLimits, fmt.Sprintf("no frame over max_frame, which is %d bytes", c.limits.MaxFrame), fmt.Sprintf("%v with %d bytes", kind, len(body)), frame)
	}
	if c.mute && kind != codec.KindPing {
		return
	}
	p.dispatch(c, kind, frame)
}

func (p *play) dispatch(c *conn, kind codec.Kind, frame []byte) {
	body := frame[codec.PrefixLen:]
	switch kind {
	case codec.KindPing:
		nonce, err := codec.DecodePing(body)
		p.well(c, err, frame)
		if c.pinged++; !c.mute {
			p.put(c, codec.AppendPong(nil, nonce))
		}
	case codec.KindPong:
		nonce, err := codec.DecodePong(body)
		p.well(c, err, frame)
		delete(c.pings, nonce) // an unsolicited pong is allowed
	case codec.KindBye:
		p.well(c, codec.DecodeBye(body), frame)
		p.goes(c, frame)
	case codec.KindLeave:
		p.well(c, codec.DecodeLeave(body), frame)
		p.leave(c)
	case codec.KindBind:
		p.bindings.bind(c, frame)
	case codec.KindUnbind:
		p.bindings.unbind(c, frame)
	case codec.KindLookup:
		p.bindings.lookup(c, frame)
	case codec.KindSend:
		p.messages.send(c, frame)
	case codec.KindAck:
		p.messages.ack(c, frame)
	case codec.KindNotHere:
		p.messages.notHere(c, frame)
	case codec.KindMulticast:
		p.messages.multicast(c, frame)
	case codec.KindNotHereMany:
		p.messages.notHereMany(c, frame)
	case codec.KindWatch:
		p.bindings.watch(c, frame)
	case codec.KindUnwatch:
		_, err := codec.DecodeUnwatch(body, int(c.limits.MaxIDs))
		p.well(c, err, frame)
	default:
		p.blame(c, secStates, "a kind that a client may send", kind.String(), frame)
	}
}

// well reports a fault for a frame that the codec cannot read.
func (p *play) well(c *conn, err error, frame []byte) {
	if err != nil {
		p.blame(c, secFrames, "fields as the section of the kind has them", err.Error(), frame)
	}
}

// hello checks hello and lets the scenario answer it.
func (p *play) hello(c *conn, frame []byte) {
	body := frame[codec.PrefixLen:]
	c.greeted = true
	if len(body) > codec.MaxHelloFrame {
		p.blame(c, secLife, "hello has at most 4096 bytes", fmt.Sprintf("%d bytes", len(body)), frame)
	}
	h := &c.hello
	p.well(c, codec.DecodeHello(body, h), frame)
	if h.MinVersion > codec.Version || h.MaxVersion < codec.Version {
		p.blame(c, secHello, "min_version and max_version that include 1", fmt.Sprintf("%d to %d", h.MinVersion, h.MaxVersion), frame)
	}
	if unknown := h.Features &^ knownFeatures; unknown != 0 {
		p.blame(c, secHello, "feature bits that this version does not know are 0", fmt.Sprintf("features %#x", h.Features), frame)
	}
	if h.Flags&^codec.HelloReplace != 0 {
		p.blame(c, secHello, "flags besides replace are 0", fmt.Sprintf("flags %#x", h.Flags), frame)
	}
	c.session = p.resumed(c, frame)
	if p.greet != nil {
		p.greet(c)
		return
	}
	p.welcome(c)
}

// resumed finds the session that hello names, or nil.
func (p *play) resumed(c *conn, frame []byte) *session {
	h := &c.hello
	if len(h.Session) == 0 || bytes.Equal(h.Session, make([]byte, codec.SessionIDLen)) {
		return nil
	}
	for _, s := range p.sessions {
		if !bytes.Equal(s.id, h.Session) {
			continue
		}
		if !bytes.Equal(s.secret, h.Secret) {
			p.blame(c, secReconnect, "hello has the secret that welcome gave with the session", "another secret", frame)
		}
		if s.said {
			p.blame(c, secReconnect, "a client forgets the session and its secret when the node says so", "hello names the session that has ended", frame)
		}
		return s
	}
	p.blame(c, secReconnect, "hello has the session of an earlier welcome, or none", "a session that no node gave", frame)
	return nil
}

// knownFeatures are the bits of hello.features that have a meaning.
const knownFeatures = codec.FeatureMulticast | codec.FeatureShortNotHere

// makeWelcome answers the hello of c. A session that is not resumed is new.
func (p *play) makeWelcome(c *conn) *codec.Welcome {
	if promised := c.hello.Heartbeat; promised > 0 {
		c.limits.Heartbeat = min(c.limits.Heartbeat, max(promised, 1000))
		c.limits.IdleTimeout = min(c.limits.IdleTimeout, 3*c.limits.Heartbeat)
	}
	w := &codec.Welcome{Version: codec.Version, Features: c.hello.Features & p.features, Node: c.node.name, Incarnation: 7, Limits: c.limits}
	c.features = w.Features
	for _, n := range p.nodes {
		w.Members = append(w.Members, codec.Member{Node: n.name, Addr: n.addr})
	}
	if c.session != nil && !c.session.over && !p.noResume {
		w.Flags, c.resumed = codec.WelcomeResumed, true
	} else {
		c.spare = c.session != nil && p.current() != nil
		c.session = p.newSession()
		for id := range p.bindings.epochs {
			p.bindings.due[id] = true
		}
	}
	w.Session, w.Secret = c.session.id, c.session.secret
	return w
}

// resumedSession reports whether the bindings of the session are still valid.
func (c *conn) resumedSession() bool { return c.resumed }

func (p *play) welcome(c *conn) {
	w := p.makeWelcome(c)
	c.open = true
	p.put(c, codec.AppendWelcome(nil, w))
}

// fault sends an error frame that ends the connection.
func (p *play) fault(c *conn, f codec.Fault) {
	c.told = true
	p.put(c, codec.AppendError(nil, &codec.ErrorFrame{Fault: f, Flags: codec.ErrorClosing, Message: "the conformance server says so"}))
	p.hangUp(c)
}

// goes handles bye.
func (p *play) goes(c *conn, frame []byte) {
	c.bye = true
	if c.spare {
		c.session.over = true
		p.hangUp(c)
		return
	}
	if !p.mayExit {
		p.blame(c, secLeaving, "bye ends the session, so a client says it when the application leaves", "bye", frame)
	}
	for _, s := range c.sends {
		p.blame(c, secLeaving, "a client waits for its open sends before bye", fmt.Sprintf("bye with send %d open", s.Seq), frame)
	}
	c.session.over = true
}

// leave answers leave. Later messages go over another connection.
func (p *play) leave(c *conn) {
	if c.left {
		return
	}
	c.left = true
	if p.onLeave != nil {
		p.onLeave(c)
	}
	p.put(c, codec.AppendLeft(nil))
}

// ping pings the client and waits for the pong.
func (p *play) ping(c *conn, nonce uint64) {
	c.pings[nonce] = true
	p.put(c, codec.AppendPing(nil, nonce))
	p.untilIn(min(p.patience, 5*time.Second), c, secHeart, fmt.Sprintf("the client answers a ping at once, with pong and its nonce %d", nonce), func() bool { return !c.pings[nonce] })
}
