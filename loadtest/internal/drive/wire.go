package drive

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"

	"distmsg/loadtest/internal/traffic"
)

// wire is the driver for the protocols that the load test speaks itself. One event loop (a gnet
// client engine) has all connections. Protocols append to the pending bytes of a leg. The loop
// writes each leg with pending bytes once per iteration. This is the same for every protocol, so a
// comparison compares servers.
type wire struct {
	gnet.BuiltinEventEngine

	// Static after connect.
	t         *traffic.Traffic
	addresses *addresses
	nodes     []string    // where the connections start
	tls       *tls.Config // nil: none
	greets    bool        // the server says a line before the TLS handshake
	login     string      // the file with what each hello shows; empty: none
	client    *gnet.Client
	loop      gnet.EventLoop
	conns     []wireConn
	flusher   gnet.Runnable
	ctx       context.Context // close ends it
	cancel    context.CancelFunc
	helpers   sync.WaitGroup // the dials and the watch

	// Owned by the loop.
	dirty, spare []*leg // with pending bytes; spare is the other half of a double buffer
	legs         []*leg // the legs that are connected
	armed        bool   // flusher is queued
	closing      bool
	notUp        int           // connections that have never been up
	started      chan error    // gets the result of connect once; nil afterwards
	awaited      int           // pongs that settle waits for
	settled      chan struct{} // closed when all of them have come
	watchedAt    int64         // the time of the last look
	plain        []byte        // what a leg with TLS has decrypted
}

// wireConn is one connection as the traffic sees it: a session with all its moves and reconnects.
// It sends on one leg. It has more legs while it moves.
type wireConn struct {
	wire    *wire
	index   int
	speak   func(*leg) protocol
	cur     *leg   // the leg that sends; nil if the connection is down
	next    *leg   // the leg that attaches to replace cur
	dialing bool   // a goroutine is dialling next
	addr    string // the address of the last leg
	wasUp   bool
	short   int // legs in a row that did not last
}

// errAgain is returned by a protocol that wants its connection to be made again.
var errAgain = errors.New("again")

const (
	dialTimeout = 2 * time.Second
	minBackoff  = 10 * time.Millisecond
	maxBackoff  = time.Second
	lasting     = 10 * time.Second // a connection that lived this long was a success
	watchEvery  = 250 * time.Millisecond
	beatAfter   = time.Second     // of silence
	giveUpAfter = 3 * time.Second // of silence: the node has died or is stopped
	// a node that accepts but does not answer; after this time the driver tries the next one
	welcomeWithin = 2 * time.Second
)

// newWire makes the driver. It calls speak once for each connection. speak returns a function that
// makes the protocol of each leg. The connections are spread over the nodes in turn.
func newWire(t *traffic.Traffic, cfg *Config, speak func(*wireConn) func(*leg) protocol) *wire {
	w := &wire{t: t, addresses: &addresses{membership: cfg.Membership}, nodes: cfg.Nodes, tls: cfg.TLS, login: cfg.CredentialsFile,
		conns: make([]wireConn, t.Conns()), started: make(chan error, 1)}
	w.notUp = len(w.conns)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.flusher = gnet.RunnableFunc(func(context.Context) error { w.flush(); return nil })
	for i := range w.conns {
		c := &w.conns[i]
		*c = wireConn{wire: w, index: i}
		c.speak = speak(c)
	}
	return w
}

func (w *wire) Connect(ctx context.Context) error {
	client, err := gnet.NewClient(w, gnet.WithNumEventLoop(1), gnet.WithLogger(quiet{}))
	if err != nil {
		return err
	}
	if err := client.Start(); err != nil {
		return err
	}
	w.client = client
	started := w.started
	for i := range w.conns {
		if err := w.dial(ctx, &w.conns[i], w.nodes[i%len(w.nodes)]); err != nil {
			return err
		}
	}
	select {
	case err := <-started:
		if err == nil {
			w.helpers.Go(w.watch)
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("not all connections are ready: %w", context.Cause(ctx))
	}
}

// dial makes a leg for c and puts it on the loop. OnOpen has run when dial returns.
func (w *wire) dial(ctx context.Context, c *wireConn, addr string) error {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	l := &leg{conn: c, addr: addr}
	if l.login, err = ReadCredentials(w.login); err != nil {
		conn.Close()
		return err
	}
	if w.tls != nil {
		if err := l.secure(ctx, conn); err != nil {
			return err
		}
	}
	_, err = w.client.EnrollContext(conn, l)
	return err
}

// attach starts to make another leg for c, unless one is under way. It goes to the next node, or to
// one of the preferred nodes. If elsewhere is set, it never goes to the current node.
func (w *wire) attach(c *wireConn, preferred []string, elsewhere bool, wait time.Duration) {
	if c.dialing || c.next != nil || w.closing {
		return
	}
	c.dialing = true
	addr := c.addr
	w.helpers.Go(func() {
		pause := wait
		for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
			select {
			case <-w.ctx.Done():
				return
			case <-time.After(pause):
			}
			for _, a := range w.addresses.after(addr, preferred, !elsewhere) {
				if w.dial(w.ctx, c, a) == nil {
					return
				}
			}
			pause = rand.N(backoff)
		}
	})
}

// watch makes the loop check silent legs from time to time.
func (w *wire) watch() {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-tick.C:
			w.loop.Execute(w.ctx, gnet.RunnableFunc(func(context.Context) error { w.look(); return nil }))
		}
	}
}

// look sends a beat on silent legs, and closes those that do not answer. If this process was held
// up, or has not read what came in, the silence says nothing about the legs.
func (w *wire) look() {
	w.t.Tick()
	now := w.t.Ledger.Time.Now
	stalled := now-w.watchedAt > int64(beatAfter)
	w.watchedAt = now
	for _, l := range slices.Clone(w.legs) {
		patience := giveUpAfter
		if l.conn.next == l {
			patience = welcomeWithin
		}
		switch silent := now - l.heardAt; {
		case stalled:
			l.heardAt = now
		case silent > int64(patience) && l.unread():
			l.heardAt = now
		case silent > int64(patience):
			l.gc.Close()
		case silent > int64(beatAfter) && now-l.beatAt > int64(beatAfter) && l.conn.next != l:
			l.beatAt = now
			l.pending = l.proto.beat(l.pending)
			l.touch()
		}
	}
}

func (w *wire) Do(f func()) {
	done := make(chan struct{})
	w.loop.Execute(w.ctx, gnet.RunnableFunc(func(context.Context) error {
		f()
		close(done)
		return nil
	}))
	<-done
}

func (w *wire) Send(conn int, m *traffic.Message) bool {
	l := w.conns[conn].cur
	b, ok := l.proto.send(l.pending, m)
	if !ok {
		return false
	}
	l.pending, l.sent = b, m.Last()
	l.open += m.Copies
	l.touch()
	return true
}

func (w *wire) Settle(ctx context.Context) error {
	settled := make(chan struct{})
	w.Do(func() {
		w.settled = settled
		for _, l := range w.legs {
			if l.conn.next != l {
				l.pending = l.proto.ping(l.pending)
				l.awaited = true
				l.touch()
				w.awaited++
			}
		}
		if w.awaited == 0 {
			close(settled)
		}
	})
	select {
	case <-settled:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *wire) Close() {
	if w.client == nil {
		return
	}
	if w.loop != nil {
		w.Do(func() {
			w.closing = true
			for _, l := range w.legs {
				if l.conn.cur == l {
					l.pending = l.proto.bye(l.pending)
					l.touch()
				}
			}
		})
	}
	w.cancel()
	w.helpers.Wait()
	w.client.Stop() // the stop queues up behind the flush
}

// OnOpen starts the protocol of a new leg. It runs on the loop, and so do all functions below.
func (w *wire) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	l := gc.Context().(*leg)
	c := l.conn
	if w.loop == nil {
		w.loop = gc.EventLoop()
	}
	w.t.Tick()
	l.gc, l.heardAt = gc, w.t.Ledger.Time.Now
	l.madeAt = l.heardAt
	w.legs = append(w.legs, l)
	c.next, c.dialing = l, false
	if c.cur != nil {
		w.t.BeginMove(c.index)
	}
	l.proto = c.speak(l)
	l.pending = l.proto.open(l.pending)
	l.touch()
	return nil, gnet.None
}

// OnTraffic hands the bytes that came in to the protocol.
func (w *wire) OnTraffic(gc gnet.Conn) gnet.Action {
	l := gc.Context().(*leg)
	w.t.Tick()
	l.heardAt = w.t.Ledger.Time.Now
	data, _ := gc.Next(-1)
	return w.read(l, data)
}

// read hands the bytes that came in, behind those that are left over from before, to the protocol.
func (w *wire) read(l *leg, data []byte) gnet.Action {
	var end error
	switch {
	case l.tunnel != nil:
		w.plain, end = l.tunnel.open(append(w.plain[:0], l.carry...), data)
		data = w.plain
		if len(l.tunnel.out) > 0 {
			l.touch()
		}
	case len(l.carry) > 0:
		l.carry = append(l.carry, data...)
		data = l.carry
	}
	used, err := l.proto.parse(data)
	if err == nil && end != nil && end != io.EOF {
		err = end
	}
	if err != nil {
		if err != errAgain {
			l.fail(err.Error(), "")
		}
		return gnet.Close
	}
	l.carry = append(l.carry[:0], data[used:]...)
	if end != nil {
		return gnet.Close
	}
	return gnet.None
}

// OnClose ends the messages in flight on a leg. If the connection sent on this leg, or was about
// to, OnClose starts to make another.
func (w *wire) OnClose(gc gnet.Conn, err error) gnet.Action {
	l := gc.Context().(*leg)
	c := l.conn
	w.t.Tick()
	l.gc = nil
	w.legs = slices.DeleteFunc(w.legs, func(other *leg) bool { return other == l })
	l.ponged()
	if w.closing {
		return gnet.None
	}
	if !c.wasUp {
		l.fail("closed before it was ready", fmt.Sprint(err))
		return gnet.None
	}
	switch l {
	case c.cur:
		c.cur = nil
		w.t.ConnDown(c.index, l.first, l.written)
		w.attach(c, nil, false, l.pause())
	case c.next:
		c.next = nil
		c.addr = l.addr // the next attempt begins behind this address
		if c.cur != nil {
			w.t.EndMove(c.index)
		}
		w.attach(c, nil, c.cur != nil && c.cur.outlived == 0, rand.N(maxBackoff/4))
	default: // another leg had replaced it
		w.t.LegDown(c.index, l.first, l.written, l.sent, !l.left)
	}
	return gnet.None
}

// flush writes the pending bytes of every leg.
func (w *wire) flush() {
	w.armed = false
	w.dirty, w.spare = w.spare[:0], w.dirty
	for _, l := range w.spare {
		l.dirty = false
		if l.gc == nil {
			continue // gnet would write into the new owner of its file descriptor
		}
		if err := l.write(); err != nil {
			continue // OnClose has run
		}
		if l.ending {
			l.gc.Close()
		}
	}
}

// ready reports to connect how it went. Only the first call counts.
func (w *wire) ready(err error) {
	if w.started != nil {
		w.started <- err
		w.started = nil
	}
}

// quiet is gnet's logger. It drops everything, because what matters reaches the driver as an event.
type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}
