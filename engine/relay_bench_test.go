package engine

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/panjf2000/gnet/v2"

	"distmsg/codec"
	"distmsg/routing"
)

// quietLoop stands for gnet's loop. The benchmark itself runs the doorbell.
type quietLoop struct{ gnet.EventLoop }

// tape is a wire that keeps what is written to a client.
type tape struct{ written []byte }

func (t *tape) write(l *loop, bufs [][]byte) {
	for _, b := range bufs {
		t.written = append(t.written, b...)
		l.bufs.put(b)
	}
}

func (t *tape) backlog() int     { return 0 }
func (t *tape) inKernel() int    { return 0 }
func (t *tape) hold(*loop, bool) {}
func (t *tape) shut()            {}
func (t *tape) cut()             {}
func (t *tape) close(*loop)      {}
func (t *tape) took() (b []byte) { b, t.written = t.written, t.written[:0]; return b }
func benchID(client int) []byte  { return fmt.Appendf(nil, "bench-user-%06d", client) }

// benchLoop is a loop without sockets, and clients of it.
type benchLoop struct {
	*loop
	clients []*conn // nil: a client of another loop
	tapes   []*tape // likewise
	read    []byte  // gnet's buffer
	nanos   int64   // that the loop has worked
	cold    bool    // others use the caches, too
	others  []byte  // what they use
	at      int     // what they use next
}

// otherWork is how many bytes the kernel and others touch between two reads of sockets. othersUse
// is how many they have, more than the caches of a core hold.
const otherWork, othersUse = 64 << 10, 8 << 20

// cool lets others use the caches.
func (bl *benchLoop) cool() {
	if !bl.cold {
		return
	}
	if bl.others == nil {
		bl.others = make([]byte, othersUse)
	}
	for i := 0; i < otherWork; i += 64 {
		bl.others[bl.at+i]++
	}
	bl.at = (bl.at + otherWork) % othersUse
}

// newBenchLoops makes the loops of one engine, and spreads clients over them.
func newBenchLoops(b testing.TB, loops, clients int) (all []*benchLoop) {
	e, err := New(Config{Loops: loops, LoopGap: time.Hour})
	if err != nil {
		b.Fatal(err)
	}
	for i := range loops {
		l := newLoop(e, i)
		l.el = quietLoop{}
		l.armed.Store(true) // so nobody rings
		e.loops = append(e.loops, l)
		all = append(all, &benchLoop{loop: l, read: make([]byte, 1<<20), clients: make([]*conn, clients), tapes: make([]*tape, clients)})
	}
	for i := range clients {
		bl := all[i%loops]
		l := bl.loop
		c := newConn(clientConn, nil, e.cfg.MaxPending)
		c.loop = l
		l.addConn(c)
		t := new(tape)
		c.wire, c.state = t, stateOpen
		c.list = l.settle.acks.NewList()
		c.session = e.table.OpenSession(routing.NewSessionID(), "")
		c.short = c.session.Short()
		c.sender.granted = math.MaxUint64
		c.quota.open(nil, c.session, false, 0)
		e.table.Attach(c.session, c.handle())
		e.table.Bind(string(benchID(i)), c.session, 1<<40)
		bl.clients[i], bl.tapes[i] = c, t
	}
	return all
}

// iteration lets the loop read one buffer of each client and end its iteration.
func (bl *benchLoop) iteration(inputs [][]byte) {
	l := bl.loop
	l.armed.Store(true)
	for i, c := range bl.clients {
		if c == nil || len(inputs[i]) == 0 {
			continue
		}
		bl.cool()
		buf := bl.read[:copy(bl.read, inputs[i])] // the kernel's work
		began := time.Now()
		l.enter()
		c.heard(buf)
		bl.nanos += int64(time.Since(began))
	}
	began := time.Now()
	for l.poll.nudged = true; l.active || l.turns.wait() || len(l.dirty) > 0 || l.mailed(); {
		l.lastRead = l.pace.stamped
		_ = l.Run(context.Background())
		l.armed.Store(true)
	}
	bl.nanos += int64(time.Since(began))
}

// BenchmarkRelay measures what a loop itself does for a message: it reads, decodes, looks up and
// appends, and with ack it does so for the answer, too. There are no sockets. With cold, something
// else empties the caches between two reads, as the kernel does. The figure is that of the fastest
// round, as other work on the machine only adds to it.
func BenchmarkRelay(b *testing.B) {
	for _, c := range []struct {
		name  string
		flags uint8
		cold  bool
	}{{"send", codec.FlagReport, false}, {"acked", codec.FlagAck, false}, {"send,cold", codec.FlagReport, true}, {"acked,cold", codec.FlagAck, true}} {
		b.Run(c.name, func(b *testing.B) { benchRelay(b, 1, c.flags, c.cold) })
	}
}

func benchRelay(b *testing.B, loops int, flags uint8, cold bool) {
	const clients, messages, payload = 200, 50, 128
	all := newBenchLoops(b, loops, clients)
	for _, bl := range all {
		bl.cold = cold
	}
	random := rand.New(rand.NewPCG(1, 2))
	inputs, acks := make([][]byte, clients), make([][]byte, clients)
	for i := range inputs {
		for n := range messages {
			inputs[i] = codec.AppendSend(inputs[i], &codec.Send{Seq: uint64(1000 + n), To: benchID(random.IntN(clients)),
				From: benchID(i), Flags: flags, Payload: make([]byte, payload)})
		}
	}
	nothing := make([][]byte, clients)
	each := func(inputs [][]byte) {
		for _, bl := range all {
			bl.iteration(inputs)
		}
		for _, bl := range all { // the mail of those that came later
			bl.iteration(nothing)
		}
	}
	fastest := int64(math.MaxInt64)
	for b.Loop() {
		each(inputs)
		delivered := 0
		for i := range acks {
			acks[i], delivered = ackAll(b, acks[i][:0], all[i%loops].tapes[i].took(), delivered)
		}
		if delivered != clients*messages {
			b.Fatal("delivered", delivered)
		}
		if flags&codec.FlagAck != 0 {
			each(acks)
		}
		nanos := int64(0)
		for i, bl := range all {
			for at := i; at < clients; at += loops {
				bl.tapes[at].took()
			}
			if n := bl.settle.acks.Len(); n != 0 {
				b.Fatal("not acked:", n)
			}
			nanos += bl.nanos
			bl.nanos = 0
		}
		fastest = min(fastest, nanos)
	}
	b.ReportMetric(float64(fastest)/float64(clients*messages), "ns/message")
}

// ackAll appends the acks of the messages in a client's output, and counts those.
func ackAll(b testing.TB, acks, out []byte, before int) (all []byte, delivered int) {
	for len(out) > 0 {
		n := codec.PrefixLen + int(binary.BigEndian.Uint32(out))
		var d codec.Deliver
		if kind, _ := codec.PeekKind(out[codec.PrefixLen:n]); kind == codec.KindDeliver {
			if err := codec.DecodeDeliver(out[codec.PrefixLen:n], &d); err != nil {
				b.Fatal(err)
			}
			before++
			acks = codec.AppendAck(acks, &codec.Ack{Token: d.Token, Code: codec.CodeAcked})
		}
		out = out[n:]
	}
	return acks, before
}
