package client

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"distmsg/codec"
)

// fakeNode is a node that does what a test's script says. Its connections come out of accept after
// hello and welcome were exchanged.
type fakeNode struct {
	t     testing.TB
	addr  string
	ln    net.Listener
	conns chan *fakeConn
	// greet answers hello; the default grants a session of its own, or resumes. An error frame
	// refuses.
	greet func(h *codec.Hello, w *codec.Welcome) *codec.ErrorFrame
}

// fakeLimits are a node's, small enough to be met in a test.
var fakeLimits = codec.Limits{
	MaxPayload: 1000, MaxFrame: 4000, MaxIDs: 4, MaxInFlight: 100, Credit: 500,
	MaxTTL: 60_000, DefaultTTL: 30_000, Heartbeat: 10_000, IdleTimeout: 30_000, ResumeWindow: 10_000,
	MaxMulticast: 20, MaxWatched: 1000,
}

func newFakeNode(t testing.TB) *fakeNode {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &fakeNode{t: t, addr: ln.Addr().String(), ln: ln, conns: make(chan *fakeConn, 100)}
	return n
}

// start serves; greet must be set before, if at all.
func (n *fakeNode) start() *fakeNode {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := n.ln.Accept()
			if err != nil {
				return
			}
			c := &fakeConn{Conn: nc, t: n.t}
			n.t.Cleanup(func() { nc.Close() })
			if c.handshake(n.greet) {
				n.conns <- c
			} else {
				nc.Close()
			}
		}
	}()
	n.t.Cleanup(func() {
		n.ln.Close()
		<-done
	})
	return n
}

func (n *fakeNode) accept() *fakeConn {
	n.t.Helper()
	return receive(n.t, n.conns, "a connection")
}

type fakeConn struct {
	net.Conn
	t     testing.TB
	buf   []byte
	hello codec.Hello
}

func (c *fakeConn) handshake(greet func(*codec.Hello, *codec.Welcome) *codec.ErrorFrame) bool {
	body, err := c.frame()
	if err != nil || codec.DecodeHello(append([]byte(nil), body...), &c.hello) != nil {
		return false
	}
	w := codec.Welcome{Version: 1, Features: c.hello.Features & (codec.FeatureMulticast | codec.FeatureShortNotHere), Node: c.LocalAddr().String(), Session: c.hello.Session, Limits: fakeLimits}
	if len(w.Session) > 0 {
		w.Flags = codec.WelcomeResumed
	} else {
		w.Session = []byte("0123456789abcdef")
	}
	w.Secret = append(append([]byte(nil), w.Session...), w.Session...)
	if greet != nil {
		if refusal := greet(&c.hello, &w); refusal != nil {
			_, _ = c.Write(codec.AppendError(nil, refusal))
			_, _ = io.Copy(io.Discard, c.Conn) // let the client read it before the reset
			return false
		}
	}
	_, err = c.Write(codec.AppendWelcome(nil, &w))
	return err == nil
}

// frame reads the next frame that is not a ping, and answers pings.
func (c *fakeConn) frame() ([]byte, error) {
	for {
		body, err := c.nextFrame()
		if err != nil {
			return nil, err
		}
		nonce, err := codec.DecodePing(body)
		if err != nil {
			return body, nil
		}
		_, _ = c.Write(codec.AppendPong(nil, nonce))
	}
}

// nextFrame reads the next frame.
func (c *fakeConn) nextFrame() ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	for {
		body, n, err := codec.Split(c.buf, 1<<20)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			c.buf = c.buf[n:]
			return body, nil
		}
		chunk := make([]byte, 4096)
		n, err = c.Read(chunk)
		c.buf = append(c.buf, chunk[:n]...)
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// expect reads the next frame, which must be of the kind.
func (c *fakeConn) expect(kind codec.Kind) []byte {
	c.t.Helper()
	body, err := c.frame()
	if err != nil {
		c.t.Fatalf("waiting for %v: %v", kind, err)
	}
	if got, _ := codec.PeekKind(body); got != kind {
		c.t.Fatalf("%v came instead of %v", got, kind)
	}
	return body
}

func (c *fakeConn) put(frame []byte) {
	c.t.Helper()
	if _, err := c.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

func (c *fakeConn) expectSend() codec.Send {
	c.t.Helper()
	var f codec.Send
	if err := codec.DecodeSend(c.expect(codec.KindSend), &f); err != nil {
		c.t.Fatal(err)
	}
	return f
}

func (c *fakeConn) outcome(seq uint64, code codec.Code) {
	c.t.Helper()
	c.put(codec.AppendOutcome(nil, &codec.Outcome{Seq: seq, Code: code}))
}

func (c *fakeConn) deliver(to string, epoch uint64, flags uint8) {
	c.t.Helper()
	c.put(codec.AppendDeliver(nil, &codec.Deliver{Token: []byte("token-" + to), To: []byte(to), From: []byte("x"),
		TTL: 1000, Flags: flags, Epoch: epoch, Payload: []byte("hello")}))
}

func (c *fakeConn) expectAck() codec.Ack {
	c.t.Helper()
	var f codec.Ack
	if err := codec.DecodeAck(c.expect(codec.KindAck), &f); err != nil {
		c.t.Fatal(err)
	}
	return f
}

// asked is a bind or unbind frame.
type asked struct {
	seq uint64
	ids []idEpoch
}

func (c *fakeConn) expectBind() asked {
	c.t.Helper()
	var f codec.Bind
	if err := codec.DecodeBind(c.expect(codec.KindBind), 1000, &f); err != nil {
		c.t.Fatal(err)
	}
	return asked{f.Seq, listIDs(f.IDs)}
}

func (c *fakeConn) expectUnbind() asked {
	c.t.Helper()
	var f codec.Unbind
	if err := codec.DecodeUnbind(c.expect(codec.KindUnbind), 1000, &f); err != nil {
		c.t.Fatal(err)
	}
	return asked{f.Seq, listIDs(f.IDs)}
}

func listIDs(l codec.IDList) (ids []idEpoch) {
	for v, ok := l.Next(); ok; v, ok = l.Next() {
		ids = append(ids, idEpoch{string(v.ID), v.Epoch})
	}
	return ids
}

// bound answers a bind: every ID with r.
func (c *fakeConn) bound(a asked, r ...codec.Result) {
	c.t.Helper()
	for len(r) < len(a.ids) {
		r = append(r, r[len(r)-1])
	}
	c.put(codec.AppendResults(nil, codec.KindBound, a.seq, r))
}

// attachFake dials a fake node and returns both ends. The session is closed by force at the end of
// the test.
func attachFake(t testing.TB, n *fakeNode, cfg Config) (*Session, *fakeConn) {
	t.Helper()
	cfg.Nodes = append(cfg.Nodes, n.addr)
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	setDefault(&cfg.Heartbeat, patience) // a script that pauses is no dead node
	s, err := Dial(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeAbruptly(t, s)
	return s, n.accept()
}

// closeAbruptly has a session closed at the end of the test without waiting for what is under way.
func closeAbruptly(t testing.TB, s *Session) {
	t.Cleanup(func() {
		over, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Close(over) // says that it cut things off
	})
}
