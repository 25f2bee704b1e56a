package loadtest

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/discovery"
	"distmsg/loadtest/internal/ledger"
)

// sdk is the driver that sends and receives with the client SDK. Each connection is a session. Its
// figures measure the SDK as well as the node: every session has goroutines, and a lock guards the
// traffic.
type sdk struct {
	t        *traffic
	nodes    discovery.Membership
	first    []string // addresses of the nodes where the sessions start
	attach   int
	strategy string
	tls      *tls.Config
	login    string   // the file with what each hello shows; empty: none
	names    []string // the IDs
	ctx      context.Context
	cancel   context.CancelFunc
	mu       sync.Mutex // whoever holds it has the exclusive right
	conns    []sdkConn
	work     sync.WaitGroup
}

// sdkConn is one session.
type sdkConn struct {
	sdk     *sdk
	index   int
	session *client.Session // static after connect
	queue   chan message    // to the goroutine that sends, because the SDK may block
	free    chan []byte     // payload buffers

	// Guarded by d.mu.
	bound     bool   // connect has bound its IDs
	blocked   bool   // the queue was full
	first     uint64 // first number of the last message that the SDK got,
	submitted uint64 // and its last number
	changing  int64  // until then, a connection to a draining node may live
}

const (
	openLoopQueue = 1024    // messages that wait for the SDK in the open loop
	maxInFlight   = 1 << 20 // the SDK's limit for its window
	closeTimeout  = 5 * time.Second

	// noticeTime is how long the SDK may take to report that a session has lost a node or attached
	// to one. It reports on a goroutine of its own, so it may hand over later deliveries first.
	noticeTime = time.Second
)

func newSDK(t *traffic, cfg *Config) *sdk {
	d := &sdk{t: t, nodes: cfg.Membership, first: cfg.Nodes, attach: cfg.Attach, strategy: cfg.Strategy, tls: cfg.TLS, login: cfg.CredentialsFile,
		conns: make([]sdkConn, len(t.senders))}
	t.ledger.HearsLate(int64(noticeTime))
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for _, id := range t.ids {
		d.names = append(d.names, string(id))
	}
	size := t.window
	if size == 0 {
		size = openLoopQueue
	}
	for i := range d.conns {
		d.conns[i] = sdkConn{sdk: d, index: i, queue: make(chan message, size), free: make(chan []byte, size+1)}
	}
	return d
}

// view is the membership that one session sees. Until the session is attached, it is a single node,
// which spreads the sessions over the nodes in turn. After that it is all nodes.
type view struct {
	discovery.Membership
	first    []discovery.Node
	attached atomic.Bool
}

func (v *view) Nodes() (nodes []discovery.Node, changed <-chan struct{}) {
	nodes, changed = v.Membership.Nodes()
	if !v.attached.Load() {
		nodes = v.first
	}
	return nodes, changed
}

func (d *sdk) connect(ctx context.Context) error {
	for i := range d.conns {
		view := &view{Membership: d.nodes, first: []discovery.Node{{Addr: d.first[i%len(d.first)]}}}
		c := &d.conns[i]
		cfg := client.Config{
			Membership: view, Attach: d.attach, Strategy: c.newPicker(), Agent: "distmsg-loadtest", TLS: d.tls, Handler: c.handle,
			MaxInFlight: min(max(d.t.window, openLoopQueue)*d.t.msg.copies, maxInFlight),
			OnKick:      c.onKick, OnDrain: c.onDrain, OnState: c.onState,
			CredentialsFunc: credentialsFunc(d.login),
			Logger:          slog.New(slog.DiscardHandler), // the report has all that matters
		}
		if !d.t.acks {
			cfg.OnPostFailed = c.onPostFailed
		}
		session, err := client.Dial(ctx, cfg)
		if err != nil {
			return err
		}
		view.attached.Store(true)
		c.session = session
		d.work.Go(c.send)
		if err := session.Bind(ctx, d.names[i*d.t.per:(i+1)*d.t.per]...); err != nil {
			return err
		}
		d.do(func() {
			c.bound = true
			d.t.ledger.Bind(i, d.t.now)
			d.t.connAt(i, session.State().Addr)
			d.t.connUp(i, unlimited)
		})
	}
	return nil
}

// picker is the strategy of a session. Only the goroutine that sends calls it, for the message that
// it submits. So the picker knows where each message goes.
type picker struct {
	conn     *sdkConn
	strategy discovery.Strategy
	legs     map[string]uint32 // by address
}

func (c *sdkConn) newPicker() *picker {
	s, _ := strategy(c.sdk.strategy) // the Config was validated
	return &picker{conn: c, strategy: s, legs: make(map[string]uint32)}
}

func (p *picker) Pick(nodes []discovery.Node, from, to string) int {
	i := p.strategy.Pick(nodes, from, to)
	leg, ok := p.legs[nodes[i].Addr]
	if !ok {
		leg = uint32(len(p.legs) + 1)
		p.legs[nodes[i].Addr] = leg
	}
	p.conn.sdk.do(func() {
		for seq := p.conn.first; seq <= p.conn.submitted; seq++ {
			p.conn.sdk.t.ledger.Leg(p.conn.index, seq, leg)
		}
	})
	return i
}

func (d *sdk) do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.t.tick()
	f()
}

func (d *sdk) send(conn int, m *message) bool {
	c := &d.conns[conn]
	if len(c.queue) == cap(c.queue) {
		c.blocked = true
		return false
	}
	queued := *m
	select {
	case queued.payload = <-c.free:
	default:
		queued.payload = make([]byte, len(m.payload))
	}
	copy(queued.payload, m.payload)
	c.queue <- queued // only send fills the queue, and the caller has the exclusive right
	return true
}

// settle has nothing to do: the SDK hands over everything that it reads.
func (d *sdk) settle(context.Context) error { return nil }

func (d *sdk) close() {
	d.cancel()
	for i := range d.conns {
		close(d.conns[i].queue)
	}
	d.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	for i := range d.conns {
		if s := d.conns[i].session; s != nil {
			d.work.Go(func() { _ = s.Close(ctx) }) // the ledger records what it cuts off
		}
	}
	d.work.Wait()
}

// send submits the messages of the queue to the SDK.
func (c *sdkConn) send() {
	d := c.sdk
	for m := range c.queue {
		d.do(func() {
			c.first, c.submitted = m.seq, m.last()
			if c.blocked {
				c.blocked = false
				d.t.fill(c.index)
			}
		})
		c.submit(&m)
		c.free <- m.payload
	}
}

// submit submits a message to the SDK.
func (c *sdkConn) submit(m *message) {
	d, seq := c.sdk, m.seq
	out := client.Message{From: d.names[m.from], Payload: m.payload}
	var id uint64
	var err error
	switch {
	case m.copies > 1:
		id, err = c.submitMany(m, out)
	case d.t.acks:
		out.To = d.names[m.to]
		c.session.SendAsync(d.ctx, out, func(_ client.Reply, err error) { c.outcome(seq, err) })
		return
	default:
		out.To = d.names[m.to]
		id, err = c.session.Post(d.ctx, out)
	}
	if d.t.acks {
		return
	}
	if err != nil {
		for ; seq <= m.last(); seq++ {
			c.outcome(seq, err)
		}
	} else if id != m.seq { // reports of failures would be ambiguous
		d.do(func() { d.t.note("the SDK numbered a post differently") })
	}
}

// submitMany submits a multicast to the SDK.
func (c *sdkConn) submitMany(m *message, out client.Message) (id uint64, err error) {
	d := c.sdk
	to := make([]string, m.copies)
	for i := range to {
		to[i] = d.names[d.t.ledger.CopyTo(c.index, m.to, i)]
	}
	if !d.t.acks {
		return c.session.PostMulticast(d.ctx, out, to)
	}
	seq := m.seq
	c.session.MulticastAsync(d.ctx, out, to, func(results []client.Result, err error) {
		for i := range to {
			if err == nil {
				c.outcome(seq+uint64(i), results[i].Err)
			} else {
				c.outcome(seq+uint64(i), err)
			}
		}
	})
	return 0, nil
}

func (c *sdkConn) outcome(seq uint64, err error) {
	code := codec.CodeAcked
	if err != nil {
		code = codec.CodeUnreachable // the session is closed: nothing was sent
		if e, ok := errors.AsType[*client.Error](err); ok {
			code = e.Code
		}
	}
	c.sdk.do(func() { c.sdk.t.outcome(c.index, seq, code) })
}

func (c *sdkConn) handle(_ context.Context, m *client.Delivery) {
	intact := false
	c.sdk.do(func() { intact = c.sdk.t.deliver(c.index, []byte(m.To), []byte(m.From), m.Payload) })
	if !intact {
		_ = m.Reject("differs from what was sent") // the ledger has recorded it
	}
}

func (c *sdkConn) onPostFailed(id uint64, err *client.Error) {
	c.sdk.do(func() { c.sdk.t.outcome(c.index, id, err.Code) })
}

func (c *sdkConn) onKick(client.Kick) { c.sdk.do(func() { c.sdk.t.note("kick") }) }

// onDrain handles a notice that the session is about to move. The SDK does not report when the old
// connection closes, only the deadline for it. Until then the route counts as changing.
func (c *sdkConn) onDrain(f client.Drain) {
	c.sdk.do(func() {
		c.sdk.t.drains++
		c.sdk.t.beginMove(c.index)
		c.changing = c.sdk.t.now + int64(f.Deadline) + int64(afterDeadline)
		c.sdk.t.ledger.EndMove(c.index, c.changing)
	})
}

// afterDeadline is how long a draining node may live after its deadline for sends.
const afterDeadline = 5 * time.Second

// onState handles every attachment, the first one included, and the loss of the last one. It does
// not know which message was the first to leave over a new connection. That message is one of those
// in flight.
func (c *sdkConn) onState(s client.State) {
	t := c.sdk.t
	c.sdk.do(func() {
		up := t.senders[c.index].up
		if !c.bound || c.sdk.ctx.Err() != nil || !up && !s.Attached {
			return
		}
		switch {
		case !s.Attached:
			t.sessionDown(c.index, c.submitted)
			return
		case s.Err != nil:
			t.sessionCut(c.index, c.submitted)
		case up:
			t.sessionMoved(c.index, c.submitted)
		}
		if s.Err == nil {
			t.restored(c.index)
		}
		if s.Err == nil && s.Resumed {
			t.ledger.Resume(c.index)
		} else if s.Err == nil {
			t.ledger.Bind(c.index, ledger.Unknown) // the SDK does not report when it was bound
		}
		if len(s.Nodes) > 0 {
			t.connAt(c.index, s.Nodes[0].Addr)
		}
		t.endMove(c.index)
		if t.ledger.ChangingUntil(c.index) < c.changing {
			t.ledger.EndMove(c.index, c.changing)
		}
		t.connUp(c.index, unlimited)
	})
}
