package engine

import (
	"bytes"
	"distmsg/codec"
	"distmsg/routing"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// client speaks the protocol by hand. Its methods are for the goroutine of the test, but for read.
type client struct {
	t       testing.TB
	n       *node
	nc      net.Conn
	buf     []byte // read reads into it
	in      []byte // what read has read and not yet returned, mostly a part of buf
	out     []byte // the frame that post wrote last
	session []byte
	secret  []byte
	welcome codec.Welcome
	seq     uint64
	watch   watching
}

// clientOn makes a client of a connection.
func clientOn(t testing.TB, n *node, nc net.Conn) *client {
	c := &client{t: t, n: n, nc: nc}
	c.watch.c = c
	return c
}

// dial connects and says nothing.
func (n *node) dial() *client {
	n.t.Helper()
	nc, err := net.DialTimeout("tcp", n.Addr().String(), patience)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	return clientOn(n.t, n, nc)
}

// join connects and says hello.
func (n *node) join(ids ...string) *client {
	n.t.Helper()
	c := n.dial()
	c.hello(codec.Hello{})
	if len(ids) > 0 {
		c.bind(ids...)
	}
	return c
}

// joinOn is join with a connection on the loop with that index.
func (n *node) joinOn(loop int, ids ...string) *client {
	n.t.Helper()
	var others []*client
	defer func() {
		for _, c := range others {
			c.write(codec.AppendBye(nil))
			c.ends()
		}
	}()
	for range 64 {
		c := n.join()
		if c.loop() == loop {
			if len(ids) > 0 {
				c.bind(ids...)
			}
			return c
		}
		others = append(others, c)
	}
	n.t.Fatalf("no connection gets to loop %d", loop)
	return nil
}

func (c *client) sessionID() routing.SessionID { return routing.SessionID(c.session) }

// loop tells where a session with one connection is.
func (c *client) loop() int {
	c.t.Helper()
	return int(c.n.table.Session(c.sessionID()).Handles()[0].Loop)
}

// resume is a hello for the session of c.
func (c *client) resume() codec.Hello { return codec.Hello{Session: c.session, Secret: c.secret} }

// hello fills in the versions, and waits for welcome.
func (c *client) hello(h codec.Hello) codec.Welcome {
	c.t.Helper()
	h.MinVersion, h.MaxVersion = codec.Version, codec.Version
	c.write(codec.AppendHello(nil, &h))
	var w codec.Welcome
	c.decoded(codec.DecodeWelcome(c.expect(codec.KindWelcome), &w))
	c.session, c.secret, c.welcome = w.Session, w.Secret, w
	return w
}

func (c *client) decoded(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) write(b []byte) {
	c.t.Helper()
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame is one that came from the node; body is a copy.
type frame struct {
	kind codec.Kind
	body []byte
}

// read returns the next frame, whatever it is. Any one goroutine may call it.
func (c *client) read() (frame, error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	for {
		body, n, err := codec.Split(c.in, 1<<30)
		if err != nil {
			return frame{}, err
		}
		if n > 0 {
			c.in = c.in[n:]
			kind, err := codec.PeekKind(body)
			return frame{kind, bytes.Clone(body)}, err
		}
		c.makeRoom()
		got, err := c.nc.Read(c.in[len(c.in):cap(c.in)])
		if err != nil {
			if len(c.in) > 0 {
				err = fmt.Errorf("in the middle of a frame: %w", err)
			}
			return frame{}, err
		}
		c.in = c.in[:len(c.in)+got]
	}
}

// makeRoom moves what is left of in to the start of buf, and makes buf larger if it leaves no room.
// With a buffer for each read, most tests would spend their time on memory for the race detector.
func (c *client) makeRoom() {
	if 2*len(c.in) >= len(c.buf) {
		c.buf = make([]byte, max(4<<10, 4*len(c.in)))
	}
	c.in = c.buf[:copy(c.buf, c.in)]
}

// next returns the next frame that is not ping, credit or members.
func (c *client) next() frame {
	c.t.Helper()
	for {
		f, err := c.read()
		if err != nil {
			c.t.Fatalf("waiting for a frame: %v", err)
		}
		switch f.kind {
		case codec.KindPing:
			nonce, err := codec.DecodePing(f.body)
			c.decoded(err)
			c.write(codec.AppendPong(nil, nonce))
		case codec.KindCredit:
		case codec.KindMembers:
			c.welcome.Members, err = codec.DecodeMembers(f.body)
			c.decoded(err)
		default:
			return f
		}
	}
}

// expect is next with a demand.
func (c *client) expect(kind codec.Kind) []byte {
	c.t.Helper()
	f := c.next()
	if f.kind != kind {
		c.t.Fatalf("%v came, want %v: %s", f.kind, kind, describe(f))
	}
	return f.body
}

func describe(f frame) string {
	switch f.kind {
	case codec.KindError:
		var e codec.ErrorFrame
		if codec.DecodeError(f.body, &e) == nil {
			return fmt.Sprintf("%+v", e)
		}
	case codec.KindOutcome:
		var o codec.Outcome
		if codec.DecodeOutcome(f.body, &o) == nil {
			return fmt.Sprintf("%d %v %q", o.Seq, o.Code, o.Reason)
		}
	}
	return fmt.Sprintf("%x", f.body[:min(len(f.body), 64)])
}

// silent proves that nothing has been sent to c but what it has read.
func (c *client) silent() {
	c.t.Helper()
	c.n.settle()
	c.alive()
}

// arrived returns what has been sent to c; to be sure of all of it, let the node settle first.
func (c *client) arrived() []frame {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendPing(nil, c.seq))
	for frames := []frame(nil); ; {
		f := c.next()
		if f.kind == codec.KindPong {
			return frames
		}
		frames = append(frames, f)
	}
}

// alive proves that the connection works, and that nothing unexpected came before the answer.
func (c *client) alive() {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendPing(nil, c.seq))
	nonce, err := codec.DecodePong(c.expect(codec.KindPong))
	c.decoded(err)
	if nonce != c.seq {
		c.t.Fatalf("pong %d, want %d", nonce, c.seq)
	}
}

// fails expects an error frame that closes, and the end of the stream behind it.
func (c *client) fails(fault codec.Fault) codec.ErrorFrame {
	c.t.Helper()
	e := c.fault(fault)
	if e.Flags != codec.ErrorClosing {
		c.t.Errorf("flags of the error are %d, want closing", e.Flags)
	}
	c.ends()
	return e
}

// fault expects an error frame.
func (c *client) fault(fault codec.Fault) codec.ErrorFrame {
	c.t.Helper()
	var e codec.ErrorFrame
	c.decoded(codec.DecodeError(c.expect(codec.KindError), &e))
	if e.Fault != fault {
		c.t.Fatalf("fault %v (%s), want %v", e.Fault, e.Message, fault)
	}
	return e
}

// ends expects the end of the stream.
func (c *client) ends() {
	c.t.Helper()
	f, err := c.read()
	if !errors.Is(err, io.EOF) {
		c.t.Fatalf("%v %s (error %v), want the end of the stream", f.kind, describe(f), err)
	}
	c.nc.Close()
}

// requested reads the answer to a bind, unbind or lookup.
func (c *client) requested(kind codec.Kind) []codec.Result {
	c.t.Helper()
	var f codec.Results
	c.decoded(codec.DecodeResults(c.expect(kind), kind, &f))
	if f.Seq != c.seq {
		c.t.Fatalf("%v has seq %d, want %d", kind, f.Seq, c.seq)
	}
	var all []codec.Result
	for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
		all = append(all, r)
	}
	return all
}

func withEpochs(ids []string, epochs ...uint64) []codec.IDEpoch {
	list := make([]codec.IDEpoch, len(ids))
	for i, id := range ids {
		list[i].ID = []byte(id)
		if i < len(epochs) {
			list[i].Epoch = epochs[i]
		}
	}
	return list
}

func (c *client) tryBind(policy codec.Policy, ids ...codec.IDEpoch) []codec.Result {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, policy, ids))
	return c.requested(codec.KindBound)
}

// bind returns the epoch of the last ID.
func (c *client) bind(ids ...string) (epoch uint64) {
	c.t.Helper()
	for i, r := range c.tryBind(codec.PolicyKickOld, withEpochs(ids)...) {
		if r.Code != codec.CodeOK || r.Epoch == 0 {
			c.t.Fatalf("bind %q: %v", ids[i], r)
		}
		epoch = r.Epoch
	}
	return epoch
}

func (c *client) unbind(id string, epoch uint64) codec.Result {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendUnbind(nil, c.seq, withEpochs([]string{id}, epoch)))
	return c.requested(codec.KindUnbound)[0]
}

func (c *client) lookup(ids ...string) []codec.Result {
	c.t.Helper()
	c.seq++
	list := make([][]byte, len(ids))
	for i, id := range ids {
		list[i] = []byte(id)
	}
	c.write(codec.AppendLookup(nil, c.seq, list))
	return c.requested(codec.KindFound)
}

// lookupCode is lookup of one ID.
func (c *client) lookupCode(id string) codec.Code {
	c.t.Helper()
	return c.lookup(id)[0].Code
}

func sendFrame(seq uint64, from, to, payload string, flags uint8, ttl uint32) []byte {
	return codec.AppendSend(nil, &codec.Send{Seq: seq, To: []byte(to), From: []byte(from), TTL: ttl, Flags: flags, Payload: []byte(payload)})
}

// send asks for an ack and returns the sequence number.
func (c *client) send(from, to, payload string) uint64 {
	c.t.Helper()
	return c.post(from, to, payload, codec.FlagAck)
}

// post asks for nothing, or for reports.
func (c *client) post(from, to, payload string, flags uint8) uint64 {
	c.t.Helper()
	c.seq++
	c.out = codec.AppendSend(c.out[:0], &codec.Send{Seq: c.seq, To: []byte(to), From: []byte(from), Flags: flags, Payload: []byte(payload)})
	c.write(c.out)
	return c.seq
}

func (c *client) delivered() codec.Deliver {
	c.t.Helper()
	var d codec.Deliver
	c.decoded(codec.DecodeDeliver(c.expect(codec.KindDeliver), &d))
	return d
}

// gets is delivered with a demand.
func (c *client) gets(from, to, payload string) codec.Deliver {
	c.t.Helper()
	d := c.delivered()
	if string(d.From) != from || string(d.To) != to || string(d.Payload) != payload {
		c.t.Fatalf("got %q -> %q %.40q, want %q -> %q %.40q", d.From, d.To, d.Payload, from, to, payload)
	}
	return d
}

func (c *client) ack(d codec.Deliver, reply string) {
	c.t.Helper()
	c.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked, Reply: []byte(reply)}))
}

func (c *client) outcome() codec.Outcome {
	c.t.Helper()
	var o codec.Outcome
	c.decoded(codec.DecodeOutcome(c.expect(codec.KindOutcome), &o))
	return o
}

// hears expects the outcome of one send.
func (c *client) hears(seq uint64, code codec.Code) codec.Outcome {
	c.t.Helper()
	o := c.outcome()
	if o.Seq != seq || o.Code != code {
		c.t.Fatalf("outcome %d %v %q, want %d %v", o.Seq, o.Code, o.Reason, seq, code)
	}
	if code != codec.CodeAcked && code != codec.CodeRejected && len(o.Reply) > 0 {
		c.t.Errorf("%v with a reply", code)
	}
	return o
}

// exchange sends one message from c to d and back the ack.
func (c *client) exchange(from string, d *client, to string) {
	c.t.Helper()
	seq := c.send(from, to, "are you there")
	d.ack(d.gets(from, to, "are you there"), "yes")
	if o := c.hears(seq, codec.CodeAcked); string(o.Reply) != "yes" {
		c.t.Errorf("reply %q", o.Reply)
	}
}
