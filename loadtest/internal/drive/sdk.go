package drive

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
	"distmsg/loadtest/internal/traffic"
)

// sdk is the driver that sends and receives with the client SDK. Each connection is a session. Its
// figures measure the SDK as well as the node: every session has goroutines, and a lock guards the
// traffic.
type sdk struct {
	t        *traffic.Traffic
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
	session *client.Session      // static after connect
	queue   chan traffic.Message // to the goroutine that sends, because the SDK may block
	free    chan []byte          // payload buffers

	// Guarded by d.mu.
	begun     bool   // the SDK has reported the first attachment
	bound     bool   // connect has bound its IDs
	settled   bool   // it has had as many nodes as it wants
	blocked   bool   // the queue was full
	first     uint64 // first number of the last message that the SDK got,
	submitted uint64 // and its last number
	changing  int64  // until then, a connection that the session moves away from may live
}

const (
	openLoopQueue = 1024    // messages that wait for the SDK in the open loop
	maxInFlight   = 1 << 20 // the SDK's limit for its window
	closeTimeout  = 5 * time.Second

	// noticeTime is how long the SDK may take to report that a session has lost a node or attached
	// to one. It reports on a goroutine of its own, so it may hand over later deliveries first.
	noticeTime = time.Second
)

func sdkKind() Kind {
	return Kind{Name: "sdk", Protocol: protocolName(), Multicast: true, Login: true, Attach: true, Reports: true, ask: askNode,
		make: func(t *traffic.Traffic, cfg *Config) Driver { return newSDK(t, cfg) }}
}

func newSDK(t *traffic.Traffic, cfg *Config) *sdk {
	d := &sdk{t: t, nodes: cfg.Membership, first: cfg.Nodes, attach: cfg.Attach, strategy: cfg.Strategy, tls: cfg.TLS, login: cfg.CredentialsFile,
		conns: make([]sdkConn, t.Conns())}
	t.Ledger.HearsLate(int64(noticeTime))
	d.ctx, d.cancel = context.WithCancel(context.Background())
	for _, id := range t.IDs {
		d.names = append(d.names, string(id))
	}
	size := t.Window
	if size == 0 {
		size = openLoopQueue
	}
	for i := range d.conns {
		d.conns[i] = sdkConn{sdk: d, index: i, queue: make(chan traffic.Message, size), free: make(chan []byte, size+1)}
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

func (d *sdk) Connect(ctx context.Context) error {
	for i := range d.conns {
		view := &view{Membership: d.nodes, first: []discovery.Node{{Addr: d.first[i%len(d.first)]}}}
		c := &d.conns[i]
		cfg := client.Config{
			Membership: view, Attach: d.attach, Strategy: c.newPicker(), Agent: "distmsg-loadtest", TLS: d.tls, Handler: c.handle,
			MaxInFlight: min(max(d.t.Window, openLoopQueue)*d.t.Fanout, maxInFlight),
			OnKick:      c.onKick, OnDrain: c.onDrain, OnState: c.onState,
			CredentialsFunc: credentialsFunc(d.login),
			Logger:          slog.New(slog.DiscardHandler), // the report has all that matters
		}
		if !d.t.Acks {
			cfg.OnPostFailed = c.onPostFailed
		}
		session, err := client.Dial(ctx, cfg)
		if err != nil {
			return err
		}
		view.attached.Store(true)
		c.session = session
		d.work.Go(c.send)
		if err := session.Bind(ctx, d.names[i*d.t.PerConn:(i+1)*d.t.PerConn]...); err != nil {
			return err
		}
		d.Do(func() {
			c.bound = true
			d.t.Ledger.Bind(i, d.t.Now)
			d.t.ConnAt(i, session.State().Addr)
			d.t.ConnUp(i, traffic.Unlimited)
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
	s, _ := Strategy(c.sdk.strategy) // the Config was validated
	return &picker{conn: c, strategy: s, legs: make(map[string]uint32)}
}

func (p *picker) Pick(nodes []discovery.Node, from, to string) int {
	i := p.strategy.Pick(nodes, from, to)
	leg, ok := p.legs[nodes[i].Addr]
	if !ok {
		leg = uint32(len(p.legs) + 1)
		p.legs[nodes[i].Addr] = leg
	}
	p.conn.sdk.Do(func() {
		for seq := p.conn.first; seq <= p.conn.submitted; seq++ {
			p.conn.sdk.t.Ledger.Leg(p.conn.index, seq, leg)
		}
	})
	return i
}

func (d *sdk) Do(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.t.Tick()
	f()
}

func (d *sdk) Send(conn int, m *traffic.Message) bool {
	c := &d.conns[conn]
	if len(c.queue) == cap(c.queue) {
		c.blocked = true
		return false
	}
	queued := *m
	select {
	case queued.Payload = <-c.free:
	default:
		queued.Payload = make([]byte, len(m.Payload))
	}
	copy(queued.Payload, m.Payload)
	c.queue <- queued // only send fills the queue, and the caller has the exclusive right
	return true
}

// Settle has nothing to do: the SDK hands over everything that it reads.
func (d *sdk) Settle(context.Context) error { return nil }

func (d *sdk) Close() {
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
		d.Do(func() {
			c.first, c.submitted = m.Seq, m.Last()
			if c.blocked {
				c.blocked = false
				d.t.Fill(c.index)
			}
		})
		c.submit(&m)
		c.free <- m.Payload
	}
}

// submit submits a message to the SDK.
func (c *sdkConn) submit(m *traffic.Message) {
	d, seq := c.sdk, m.Seq
	out := client.Message{From: d.names[m.From], Payload: m.Payload}
	var id uint64
	var err error
	switch {
	case m.Copies > 1:
		id, err = c.submitMany(m, out)
	case d.t.Acks:
		out.To = d.names[m.To]
		c.session.SendAsync(d.ctx, out, func(_ client.Reply, err error) { c.outcome(seq, err) })
		return
	default:
		out.To = d.names[m.To]
		id, err = c.session.Post(d.ctx, out)
	}
	if d.t.Acks {
		return
	}
	if err != nil {
		for ; seq <= m.Last(); seq++ {
			c.outcome(seq, err)
		}
	} else if id != m.Seq { // reports of failures would be ambiguous
		d.Do(func() { d.t.Note("the SDK numbered a post differently") })
	}
}

// submitMany submits a multicast to the SDK.
func (c *sdkConn) submitMany(m *traffic.Message, out client.Message) (id uint64, err error) {
	d := c.sdk
	to := make([]string, m.Copies)
	for i := range to {
		to[i] = d.names[d.t.Ledger.CopyTo(c.index, m.To, i)]
	}
	if !d.t.Acks {
		return c.session.PostMulticast(d.ctx, out, to)
	}
	seq := m.Seq
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
	c.sdk.Do(func() { c.sdk.t.Outcome(c.index, seq, code) })
}

func (c *sdkConn) handle(_ context.Context, m *client.Delivery) {
	intact := false
	c.sdk.Do(func() { intact = c.sdk.t.Deliver(c.index, []byte(m.To), []byte(m.From), m.Payload) })
	if !intact {
		_ = m.Reject("differs from what was sent") // the ledger has recorded it
	}
}

func (c *sdkConn) onPostFailed(id uint64, err *client.Error) {
	c.sdk.Do(func() { c.sdk.t.Outcome(c.index, id, err.Code) })
}

func (c *sdkConn) onKick(client.Kick) { c.sdk.Do(func() { c.sdk.t.Note("kick") }) }

// onDrain handles a notice that the session is about to move. The SDK does not report when the old
// connection closes, only the deadline for it. Until then the route counts as changing.
func (c *sdkConn) onDrain(f client.Drain) {
	c.sdk.Do(func() {
		c.sdk.t.Drains++
		c.sdk.t.BeginMove(c.index)
		c.changing = c.sdk.t.Now + int64(f.Deadline) + int64(afterDeadline)
		c.sdk.t.Ledger.EndMove(c.index, c.changing)
	})
}

const (
	// afterDeadline is how long a draining node may live after its deadline for sends.
	afterDeadline = 5 * time.Second
	// leaveTime is how long the SDK may take to leave the former connection after a move. Until
	// then, the node sends part of the IDs there.
	leaveTime = 5 * time.Second
)

// moves reports whether a session that has attached to one more node, so that it has so many now,
// leaves another for it. A session that wants several nodes attaches to one after the other first.
// One that wants all nodes leaves none.
func (c *sdkConn) moves(nodes int) bool {
	settled := c.settled
	c.settled = settled || nodes >= c.sdk.attach
	return settled && c.sdk.attach != client.AllNodes
}

// onState handles every attachment, the first one included, and the loss of the last one. It does
// not know which message was the first to leave over a new connection. That message is one of those
// in flight.
func (c *sdkConn) onState(s client.State) {
	t := c.sdk.t
	c.sdk.Do(func() {
		up, first, moved := t.Up(c.index), !c.begun, c.moves(len(s.Nodes))
		c.begun = true
		// how it began may be reported after the first messages
		if first && up && len(s.Nodes) > 0 {
			t.ConnAt(c.index, s.Nodes[0].Addr)
			return
		}
		if !c.bound || c.sdk.ctx.Err() != nil || !up && !s.Attached {
			return
		}
		switch {
		case !s.Attached:
			t.SessionDown(c.index, c.submitted)
			return
		case s.Err != nil:
			t.SessionCut(c.index, c.submitted)
		case up:
			t.SessionAttached(c.index, c.submitted)
			if moved {
				t.Moves++
			}
			c.changing = max(c.changing, t.Now+int64(leaveTime))
		}
		if s.Err == nil {
			t.Restored(c.index)
		}
		if s.Err == nil && s.Resumed {
			t.Ledger.Resume(c.index)
		} else if s.Err == nil {
			t.Ledger.Bind(c.index, ledger.Unknown) // the SDK does not report when it was bound
		}
		if len(s.Nodes) > 0 {
			t.ConnAt(c.index, s.Nodes[0].Addr)
		}
		t.EndMove(c.index)
		if t.Ledger.ChangingUntil(c.index) < c.changing {
			t.Ledger.EndMove(c.index, c.changing)
		}
		t.ConnUp(c.index, traffic.Unlimited)
	})
}
