package drive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"distmsg/codec"
	"distmsg/loadtest/internal/traffic"
)

// A protocol speaks for one leg of the wire driver (wire.go). It appends bytes to what the leg will
// write, and passes what it reads to the traffic. All methods are called on the event loop.
type protocol interface {
	// open appends the first bytes of a new leg.
	open(b []byte) []byte
	// send appends a message. It returns false if it cannot at the moment.
	send(b []byte, m *traffic.Message) ([]byte, bool)
	// parse reads the complete frames of b and returns how many bytes they took. It appends its
	// answers to the leg's pending bytes. b is valid only during the call. An error ends the leg.
	parse(b []byte) (used int, err error)
	// ping appends a request whose answer comes after everything that the node has written so far.
	// parse passes the answer to the leg's ponged.
	ping(b []byte) []byte
	// beat appends a request whose answer only shows that the node lives, or nothing.
	beat(b []byte) []byte
	// leave appends a request to deliver nothing more here. The answer goes to the leg's gone. It
	// is called only if the protocol moves.
	leave(b []byte) []byte
	// bye appends a farewell.
	bye(b []byte) []byte
}

// leg is one TCP connection.
type leg struct {
	conn    *wireConn
	proto   protocol
	addr    string
	gc      gnet.Conn // nil if closed
	tunnel  *tunnel   // nil without TLS
	carry   []byte    // the beginning of an incomplete frame
	pending []byte    // bytes to write
	dirty   bool
	first   uint64 // the number of its first message
	sent    uint64 // the last number that is in pending or written
	written uint64 // the last number that gnet got
	open    int    // messages with ack that wait for their outcomes
	owed    int    // messages that came and get their acks later
	leaving bool   // another leg has replaced it
	login   []byte // what the hello shows
	// the node closes the leg after that time, unless the client logs in again; 0: it does not
	outlived time.Duration
	left     bool  // the node delivers nothing more to it
	ending   bool  // close it when pending is written
	awaited  bool  // settle waits for a pong
	madeAt   int64 // when the leg was made
	heardAt  int64 // when the last bytes came
	beatAt   int64 // when the last beat was sent
}

// secure begins TLS over the socket of a new leg.
func (l *leg) secure(ctx context.Context, socket net.Conn) (err error) {
	w := l.conn.wire
	if w.greets {
		if l.carry, err = readLine(ctx, socket); err != nil {
			socket.Close()
			return fmt.Errorf("%s: %w", l.addr, err)
		}
	}
	l.tunnel, err = secure(ctx, w.tls, socket, l.addr)
	return err
}

// unread reports whether the kernel holds bytes that the loop has not read yet.
func (l *leg) unread() bool {
	n, _, err := unix.Recvfrom(l.gc.Fd(), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == nil && n > 0
}

// later runs f on the loop after d. It does not run f if the leg or the run has ended by then.
func (l *leg) later(d time.Duration, f func()) {
	w := l.conn.wire
	time.AfterFunc(d, func() {
		if w.ctx.Err() != nil {
			return
		}
		w.loop.Execute(w.ctx, gnet.RunnableFunc(func(context.Context) error {
			if l.gc != nil && !w.closing {
				w.t.Tick()
				f()
			}
			return nil
		}))
	})
}

// pause returns how long to wait after the end of a leg that could be used. It grows while no leg
// lasts. Otherwise a node that accepts every connection and closes it would be kept busy.
func (l *leg) pause() time.Duration {
	c := l.conn
	ceiling := min(minBackoff<<min(c.short, 10), maxBackoff)
	if c.short++; time.Duration(c.wire.t.Ledger.Time.Now-l.madeAt) >= lasting {
		c.short, ceiling = 0, minBackoff
	}
	return rand.N(ceiling)
}

// write gives gnet the pending bytes, through TLS if the leg has it.
func (l *leg) write() (err error) {
	out := l.pending
	if l.tunnel != nil {
		if out, err = l.tunnel.seal(l.pending, l.ending); err != nil {
			l.gc.Close() // crypto/tls has found the connection broken when it read
			return err
		}
	}
	if len(out) == 0 {
		return nil
	}
	l.written = l.sent
	if _, err := l.gc.Write(out); err != nil {
		return err
	}
	l.pending = l.pending[:0]
	return nil
}

// up makes a leg the one that its connection sends on. The leg that it replaces, if there is one,
// leaves.
func (l *leg) up(node string, maxInFlight int) {
	c := l.conn
	w, old := c.wire, c.cur
	c.cur, c.next, c.addr = l, nil, l.addr
	l.first = w.t.Ledger.NextSeq(c.index)
	l.sent, l.written = l.first-1, l.first-1
	w.t.ConnAt(c.index, node)
	switch {
	case old != nil:
		w.t.SenderMoved(c.index)
		old.leaving = true
		old.pending = old.proto.leave(old.pending)
		old.touch()
	case c.wasUp:
		w.t.EndMove(c.index)
		w.t.Restored(c.index)
	default:
		c.wasUp = true
		if w.notUp--; w.notUp == 0 {
			w.ready(nil)
		}
	}
	w.t.ConnUp(c.index, maxInFlight)
	if l.outlived > 0 {
		l.renew()
	}
}

// ended records that a message of this leg has its outcome.
func (l *leg) ended() {
	l.open--
	l.finish()
}

// gone records that the node delivers nothing more to a leg that was replaced.
func (l *leg) gone() {
	l.left = true
	l.conn.wire.t.EndMove(l.conn.index)
	l.finish()
}

// finish closes a leg that has nothing left to do. Without ack nobody knows when that is, so the
// node will close the leg.
func (l *leg) finish() {
	if l.left && l.open+l.owed == 0 && l.conn.wire.t.Acks {
		l.ending = true
		l.touch()
	}
}

// fail records what went wrong with the leg. Until all connections are up, it also ends connect.
func (l *leg) fail(what, detail string) {
	w := l.conn.wire
	if w.started == nil {
		w.t.Note(what)
		return
	}
	w.ready(fmt.Errorf("connection %d to %s: %s %s", l.conn.index, l.addr, what, detail))
}

// touch makes the loop write the pending bytes at the end of this iteration.
func (l *leg) touch() {
	if l.dirty {
		return
	}
	l.dirty = true
	w := l.conn.wire
	w.dirty = append(w.dirty, l)
	if !w.armed {
		w.armed = true
		w.loop.Execute(w.ctx, w.flusher)
	}
}

// ponged records the answer to settle's ping, or that no answer will come.
func (l *leg) ponged() {
	if !l.awaited {
		return
	}
	l.awaited = false
	if l.conn.wire.awaited--; l.conn.wire.awaited == 0 {
		close(l.conn.wire.settled)
	}
}

// learn adds a list of nodes that the node of this leg sent.
func (l *leg) learn(all []codec.Member) { l.conn.wire.addresses.learn(all) }

// renew makes a leg that replaces this one, at some moment in the time that the node gives to all
// clients of the identity.
func (l *leg) renew() {
	c := l.conn
	c.wire.attach(c, []string{l.addr}, false, rand.N(l.outlived/renewalShare+1))
}
