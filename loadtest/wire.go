package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// wire is the driver for protocols that the load test speaks itself: one event loop (a gnet client
// engine) for all connections. Whatever is said goes to the connection's pending bytes; each
// connection with pending bytes is written once per iteration of the loop. That is the same for every
// protocol, so that a comparison compares servers.
type wire struct {
	gnet.BuiltinEventEngine

	// Static after connect.
	t       *traffic
	nodes   []string
	client  *gnet.Client
	loop    gnet.EventLoop
	conns   []wireConn
	flusher gnet.Runnable
	ctx     context.Context // ends with close
	cancel  context.CancelFunc
	redials sync.WaitGroup

	// Owned by the loop.
	dirty, spare []*wireConn // with pending bytes; spare is the other half of a double buffer
	armed        bool        // flusher is queued
	closing      bool
	notUp        int           // connections that have never been up
	started      chan error    // says once how connect went; nil afterwards
	awaited      int           // pongs that settle waits for
	settled      chan struct{} // closed when they are there
}

// wireConn is one connection, over all its reconnects.
type wireConn struct {
	w       *wire
	index   int
	node    int // which of w.nodes; owned by redial while the connection is down
	proto   protocol
	gc      gnet.Conn // nil: down
	carry   []byte    // the beginning of a frame whose end has not come
	pending []byte    // to be written
	dirty   bool
	sent    uint64 // the last number that is in pending or written
	written uint64 // the last number that was given to gnet
	wasUp   bool
	awaited bool // settle waits for a pong
}

// errAgain is what a protocol ends a connection with that should just be made again.
var errAgain = errors.New("again")

const (
	dialTimeout = 5 * time.Second
	minBackoff  = 10 * time.Millisecond
	maxBackoff  = time.Second
)

func newWire(t *traffic, nodes []string, speak func(*wireConn) protocol) *wire {
	w := &wire{t: t, nodes: nodes, conns: make([]wireConn, len(t.senders)), started: make(chan error, 1)}
	w.notUp = len(w.conns)
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.flusher = gnet.RunnableFunc(func(context.Context) error { w.flush(); return nil })
	for i := range w.conns {
		c := &w.conns[i]
		*c = wireConn{w: w, index: i, node: i % len(nodes)}
		c.proto = speak(c)
	}
	return w
}

func (w *wire) connect(ctx context.Context) error {
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
		if err := w.dial(ctx, &w.conns[i]); err != nil {
			return err
		}
	}
	select {
	case err := <-started:
		return err
	case <-ctx.Done():
		return fmt.Errorf("not all connections are ready: %w", context.Cause(ctx))
	}
}

// dial connects c and puts it on the loop; OnOpen has run when it returns.
func (w *wire) dial(ctx context.Context, c *wireConn) error {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", w.nodes[c.node])
	if err != nil {
		return err
	}
	_, err = w.client.EnrollContext(conn, c)
	return err
}

// redial connects c again, to the next node and with full jitter, until it succeeds or the run ends.
func (w *wire) redial(c *wireConn) {
	defer w.redials.Done()
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(rand.N(backoff)):
		}
		c.node = (c.node + 1) % len(w.nodes)
		if w.dial(w.ctx, c) == nil {
			return
		}
	}
}

func (w *wire) do(f func()) {
	done := make(chan struct{})
	w.loop.Execute(w.ctx, gnet.RunnableFunc(func(context.Context) error {
		f()
		close(done)
		return nil
	}))
	<-done
}

func (w *wire) send(conn int, m *message) bool {
	c := &w.conns[conn]
	b, ok := c.proto.send(c.pending, m)
	if !ok {
		return false
	}
	c.pending, c.sent = b, m.seq
	c.touch()
	return true
}

func (w *wire) settle(ctx context.Context) error {
	settled := make(chan struct{})
	w.do(func() {
		w.settled = settled
		for i := range w.conns {
			if c := &w.conns[i]; w.t.senders[i].up {
				c.pending = c.proto.ping(c.pending)
				c.awaited = true
				c.touch()
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

func (w *wire) close() {
	if w.client == nil {
		return
	}
	if w.loop != nil {
		w.do(func() {
			w.closing = true
			for i := range w.conns {
				if c := &w.conns[i]; c.gc != nil {
					c.pending = c.proto.bye(c.pending)
					c.touch()
				}
			}
		})
	}
	w.cancel()
	w.redials.Wait()
	w.client.Stop() // its order queues up behind the flush
}

// OnOpen lets a new connection speak. On the loop, as all that follows.
func (w *wire) OnOpen(gc gnet.Conn) ([]byte, gnet.Action) {
	c := gc.Context().(*wireConn)
	if w.loop == nil {
		w.loop = gc.EventLoop()
	}
	w.t.tick()
	c.gc = gc
	c.pending = c.proto.open(c.pending[:0])
	c.touch()
	return nil, gnet.None
}

// OnTraffic hands what came in to the protocol.
func (w *wire) OnTraffic(gc gnet.Conn) gnet.Action {
	c := gc.Context().(*wireConn)
	w.t.tick()
	data, _ := gc.Next(-1)
	if len(c.carry) > 0 {
		c.carry = append(c.carry, data...)
		data = c.carry
	}
	used, err := c.proto.parse(data)
	if err != nil {
		if err != errAgain {
			c.fail(err.Error(), "")
		}
		return gnet.Close
	}
	c.carry = append(c.carry[:0], data[used:]...)
	return gnet.None
}

// OnClose ends what was in flight and begins to reconnect.
func (w *wire) OnClose(gc gnet.Conn, err error) gnet.Action {
	c := gc.Context().(*wireConn)
	w.t.tick()
	c.gc = nil
	c.carry, c.pending = c.carry[:0], c.pending[:0]
	c.ponged()
	if w.closing {
		return gnet.None
	}
	if !c.wasUp {
		c.fail("closed before it was ready", fmt.Sprint(err))
		return gnet.None
	}
	w.t.connDown(c.index, c.written)
	w.redials.Add(1)
	go w.redial(c)
	return gnet.None
}

// flush writes every connection that has something to say.
func (w *wire) flush() {
	w.armed = false
	w.dirty, w.spare = w.spare[:0], w.dirty
	for _, c := range w.spare {
		c.dirty = false
		if c.gc == nil || len(c.pending) == 0 {
			continue // without a connection gnet would write into whatever has got its file descriptor
		}
		c.written = c.sent
		if _, err := c.gc.Write(c.pending); err == nil { // else OnClose has run
			c.pending = c.pending[:0]
		}
	}
}

// up says that the connection is ready to send.
func (c *wireConn) up(maxInFlight int) {
	w := c.w
	if c.wasUp {
		w.t.connMoved(c.index)
	} else {
		c.wasUp = true
		if w.notUp--; w.notUp == 0 {
			w.ready(nil)
		}
	}
	w.t.connUp(c.index, maxInFlight)
}

// fail notes what went wrong with the connection; before all are up, that ends connect.
func (c *wireConn) fail(what, detail string) {
	w := c.w
	if w.started == nil {
		w.t.note(what)
		return
	}
	w.ready(fmt.Errorf("connection %d to %s: %s %s", c.index, w.nodes[c.node], what, detail))
}

// ready tells connect how it went; the first word counts.
func (w *wire) ready(err error) {
	if w.started != nil {
		w.started <- err
		w.started = nil
	}
}

// touch has the pending bytes written at the end of this iteration of the loop.
func (c *wireConn) touch() {
	if c.dirty {
		return
	}
	c.dirty = true
	w := c.w
	w.dirty = append(w.dirty, c)
	if !w.armed {
		w.armed = true
		w.loop.Execute(w.ctx, w.flusher)
	}
}

// ponged notes the answer to settle's ping, or that there will be none.
func (c *wireConn) ponged() {
	if !c.awaited {
		return
	}
	c.awaited = false
	if c.w.awaited--; c.w.awaited == 0 {
		close(c.w.settled)
	}
}

// quiet is gnet's logger: whatever matters reaches the driver as an event.
type quiet struct{}

func (quiet) Debugf(string, ...any) {}
func (quiet) Infof(string, ...any)  {}
func (quiet) Warnf(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}
