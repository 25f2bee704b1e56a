package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// patience bounds every wait of these tests; on a busy machine nothing may depend on less.
const patience = time.Minute

// node is an engine under test. Its cleanup stops it and checks its books.
type node struct {
	t testing.TB
	*Engine
	cancel context.CancelFunc
	done   chan error
	over   bool
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs an engine on a free port, with one loop unless cfg says otherwise. change has a go at it before it runs.
func start(t testing.TB, cfg Config, change ...func(*Engine)) *node {
	t.Helper()
	setDefault(&cfg.Addr, "127.0.0.1:0")
	setDefault(&cfg.Loops, 1)
	unhurried(&cfg)
	if cfg.Logger == nil {
		cfg.Logger = quiet()
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{t: t, Engine: e, cancel: cancel, done: make(chan error, 1)}
	go func() { n.done <- e.Run(ctx) }()
	select {
	case <-e.Ready():
	case err := <-n.done:
		t.Fatalf("Run: %v", err)
	case <-time.After(patience):
		t.Fatal("not ready")
	}
	t.Cleanup(n.finish)
	return n
}

// unhurried gives what a test has no word on so much time that nobody is given up because the machine is busy.
func unhurried(cfg *Config) {
	if cfg.TakeoverInterval == 0 {
		setDefault(&cfg.TakeoverBurst, maxBurst)
	}
	if cfg.Heartbeat == 0 { // else three times that
		setDefault(&cfg.IdleTimeout, 5*patience)
	}
	if cfg.Membership == nil { // else it is as long that a node waits for one that does not answer
		setDefault(&cfg.HelloTimeout, patience)
	}
	if cfg.MaxTTL == 0 {
		setDefault(&cfg.DefaultTTL, patience)
	}
}

// finish checks that every send is accounted for, and that the engine stops.
func (n *node) finish() {
	n.t.Helper()
	if n.over {
		return
	}
	n.checkBooks()
	if err := n.stop(); err != nil {
		n.t.Errorf("Run: %v", err)
	}
	n.checkMemory()
}

// forgetParked counts what is parked as gone. The loop has stopped.
func (l *loop) forgetParked() {
	for _, q := range l.park.lines {
		for w := range q.all {
			if w.kind != waitReturned {
				l.park.unwaits(w)
			} else {
				l.memory.holds(-w.cost())
			}
		}
	}
}

// checkMemory checks that nothing is counted as held when the engine has stopped, but for messages
// that waited for the registry until then.
func (n *node) checkMemory() {
	n.t.Helper()
	var held int64
	for _, l := range n.loops {
		l.forgetParked()
		held += l.memory.held - l.memory.said
	}
	held += n.memory.held.Load()
	if held != 0 {
		n.t.Errorf("%d bytes are counted as held by connections, and there are none", held)
	}
}

func (n *node) stop() error {
	n.t.Helper()
	n.cancel()
	return n.ended()
}

// ended waits for the end of Run, whether or not anybody has asked for it.
func (n *node) ended() error {
	n.t.Helper()
	n.over = true
	defer n.cancel()
	select {
	case err := <-n.done:
		return err
	case <-time.After(patience):
		n.t.Fatal("Run does not return")
		return nil
	}
}

// checkBooks is the promise of Stats and of S3: once nothing moves, each send is in exactly one counter.
func (n *node) checkBooks() {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		s := n.counters()
		sum := s.Written - s.Received + s.Forwarded - s.Returned + s.Abandoned + uint64(s.Pending+s.Parked)
		for _, v := range s.Outcomes {
			sum += v
		}
		if s.Sends == sum {
			return
		}
		if time.Now().After(deadline) {
			n.t.Errorf("the books of %s do not balance: %+v", n.NodeID(), s)
			return
		}
	}
}

// tune gives an engine that does not run yet a directory with other settings.
func (e *Engine) tune(change func(*directory.Config)) {
	office := e.dir.Probe().Config()
	change(&office)
	e.dir = directory.New(office, hall{e}, porch{e})
}

// settle waits until what was under way between lanes and loops when it was called has arrived.
func (n *node) settle() {
	n.t.Helper()
	for range 2 { // loops give lanes work, and the other way round
		n.eventually("the lanes are idle", n.dir.Probe().Idle)
		n.settleLoops()
	}
}

// settleLoops is settle for a node whose lanes stand still.
func (n *node) settleLoops() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for range 4 { // loops give each other work
		if _, ok := ask(ctx, n.Engine, func(*loop) bool { return true }); !ok {
			n.t.Fatal("the loops do not answer")
		}
	}
}

// counters are the engine's counters as of now.
func (n *node) counters() Stats {
	n.t.Helper()
	n.settle()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ask(ctx, n.Engine, func(l *loop) bool { l.publish(); return true })
	return n.Stats()
}

// eventually waits for what no frame tells.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for: %s; stats %+v", what, n.Stats())
		}
	}
}

// client speaks the protocol by hand. Its methods are for the goroutine of the test, but for read.
type client struct {
	t       testing.TB
	n       *node
	nc      net.Conn
	in      []byte
	session []byte
	secret  []byte
	welcome codec.Welcome
	seq     uint64
}

// dial connects and says nothing.
func (n *node) dial() *client {
	n.t.Helper()
	nc, err := net.DialTimeout("tcp", n.Addr().String(), patience)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { nc.Close() })
	return &client{t: n.t, n: n, nc: nc}
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
		if len(c.in) == 0 {
			c.in = nil
		}
		chunk := make([]byte, 64<<10)
		got, err := c.nc.Read(chunk)
		if err != nil {
			if len(c.in) > 0 {
				err = fmt.Errorf("in the middle of a frame: %w", err)
			}
			return frame{}, err
		}
		c.in = append(c.in, chunk[:got]...)
	}
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
	c.seq++
	c.write(sendFrame(c.seq, from, to, payload, codec.FlagAck, 0))
	return c.seq
}

// post asks for nothing, or for reports.
func (c *client) post(from, to, payload string, flags uint8) uint64 {
	c.t.Helper()
	c.seq++
	c.write(sendFrame(c.seq, from, to, payload, flags, 0))
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

// bystanders are two clients that exchange acked messages, both ways, and want nothing else to happen.
type bystanders struct {
	t     testing.TB
	stop  chan struct{}
	ended sync.WaitGroup

	mu     sync.Mutex
	rounds [2]int // guarded by mu
	err    error  // guarded by mu
}

const bystanderPace = 2 * time.Millisecond

// watchOver starts a pair of bystanders; the test's cleanup has the last look at them.
func (n *node) watchOver() *bystanders {
	n.t.Helper()
	b := &bystanders{t: n.t, stop: make(chan struct{})}
	names := [2]string{"bystander-0", "bystander-1"}
	pair := [2]*client{n.join(names[0]), n.join(names[1])}
	for i := range pair {
		b.ended.Go(func() { b.run(pair[i], i, names[i], names[1-i]) })
	}
	n.t.Cleanup(func() {
		b.unharmed()
		close(b.stop)
		for _, c := range pair {
			c.nc.Close()
		}
		b.ended.Wait()
	})
	return b
}

// run answers what comes and keeps one message of its own on the way.
func (b *bystanders) run(c *client, i int, from, to string) {
	pace := time.NewTicker(bystanderPace)
	defer pace.Stop()
	seq := uint64(1)
	c.nc.SetWriteDeadline(time.Time{}) // reading has one
	_, err := c.nc.Write(sendFrame(seq, from, to, "still here", codec.FlagAck, 60_000))
	for err == nil {
		var f frame
		if f, err = c.read(); err != nil {
			break
		}
		switch f.kind {
		case codec.KindDeliver:
			var d codec.Deliver
			if err = codec.DecodeDeliver(f.body, &d); err == nil {
				_, err = c.nc.Write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeAcked}))
			}
		case codec.KindOutcome:
			var o codec.Outcome
			if err = codec.DecodeOutcome(f.body, &o); err == nil && (o.Code != codec.CodeAcked || o.Seq != seq) {
				err = fmt.Errorf("outcome %s, want %d acked", describe(f), seq)
			}
			b.mu.Lock()
			b.rounds[i]++
			b.mu.Unlock()
			<-pace.C
			seq++
			if err == nil {
				_, err = c.nc.Write(sendFrame(seq, from, to, "still here", codec.FlagAck, 60_000))
			}
		case codec.KindPing:
			var nonce uint64
			nonce, err = codec.DecodePing(f.body)
			_, _ = c.nc.Write(codec.AppendPong(nil, nonce))
		default:
			err = fmt.Errorf("%v: %s", f.kind, describe(f))
		}
	}
	select {
	case <-b.stop:
	default:
		b.mu.Lock()
		b.err = errors.Join(b.err, fmt.Errorf("%s: %w", from, err))
		b.mu.Unlock()
	}
}

// unharmed waits for a few more rounds of both.
func (b *bystanders) unharmed() {
	b.t.Helper()
	before, err := b.look()
	for deadline := time.Now().Add(patience); ; time.Sleep(bystanderPace) {
		now, e := b.look()
		if err = errors.Join(err, e); err != nil {
			b.t.Errorf("bystanders: %v", err)
			return
		}
		if now[0] >= before[0]+2 && now[1] >= before[1]+2 {
			return
		}
		if time.Now().After(deadline) {
			b.t.Errorf("bystanders are stuck: %v, then %v", before, now)
			return
		}
	}
}

func (b *bystanders) look() ([2]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.err
	b.err = nil
	return b.rounds, err
}

// eachLoops runs a test with several numbers of event loops.
func eachLoops(t *testing.T, test func(t *testing.T, loops int), loops ...int) {
	if len(loops) == 0 {
		loops = []int{1, 2}
	}
	for _, n := range loops {
		t.Run(fmt.Sprintf("loops=%d", n), func(t *testing.T) { test(t, n) })
	}
}

// acrossLoops runs a test with the receiver on the sender's loop, and on another one.
func acrossLoops(t *testing.T, cfg Config, test func(t *testing.T, n *node, from, to *client)) {
	for name, loop := range map[string]int{"same loop": 0, "other loop": 1} {
		t.Run(name, func(t *testing.T) {
			cfg.Loops = 2
			setDefault(&cfg.DefaultTTL, time.Minute)
			n := start(t, cfg)
			test(t, n, n.joinOn(0, "from"), n.joinOn(loop, "to"))
		})
	}
}

// long marks a test that takes a second or more. go test -short, the first look, leaves it out.
func long(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes a second or more: run it without -short")
	}
}
