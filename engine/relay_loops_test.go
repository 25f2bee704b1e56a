package engine

import (
	"context"
	"fmt"
	"testing"

	"github.com/panjf2000/gnet/v2"

	"distmsg/codec"
)

// mailed reports whether mail waits for the loop.
func (l *loop) mailed() bool { return l.inbox.opening() || len(l.inbox.parcels) > 0 }

// BenchmarkRelayLoops measures what several loops do for a message with ack, the mail between them
// included. They take turns on one thread, so their mail has a cost, and waking each other has
// none.
func BenchmarkRelayLoops(b *testing.B) {
	for _, loops := range []int{1, 2, 4} {
		for _, cold := range []bool{false, true} {
			b.Run(fmt.Sprintf("loops=%d,cold=%v", loops, cold), func(b *testing.B) { benchRelay(b, loops, codec.FlagAck, cold) })
		}
	}
}

// rungLoop stands for gnet's loop and counts how often it is woken.
type rungLoop struct {
	gnet.EventLoop
	rung int
}

func (l *rungLoop) Execute(context.Context, gnet.Runnable) error {
	l.rung++
	return nil
}

// However much a loop has for another one after an iteration, it goes in one parcel, and one more
// if input waits for its turn. The other loop is woken once.
func TestOneParcelAndOneWake(t *testing.T) {
	const loops, clients, messages = 3, 30, 20
	all := newBenchLoops(t, loops, clients)
	bells := make([]*rungLoop, loops)
	for i, bl := range all {
		bells[i] = new(rungLoop)
		bl.el = bells[i]
		bl.armed.Store(i == 0)
	}
	inputs := make([][]byte, clients)
	for i := range inputs {
		for n := range messages {
			inputs[i] = codec.AppendSend(inputs[i], &codec.Send{Seq: uint64(n), To: benchID((i + n) % clients), From: benchID(i), Flags: codec.FlagAck})
		}
	}
	check := func(from int, want ...int) {
		t.Helper()
		iterations := int(all[from].stats.wakeups) // one, unless the machine is busy
		for i, l := range all {
			if n := len(l.inbox.parcels); bells[i].rung != want[i] || n < want[i] || n > 2*iterations*want[i] {
				t.Errorf("loop %d, after %d iterations of loop %d: %d parcels and %d wakes, want %d of each", i, iterations, from, n, bells[i].rung, want[i])
			}
			bells[i].rung = 0
		}
	}
	all[0].iteration(inputs)
	check(0, 0, 1, 1)

	acks := make([][]byte, clients)
	delivered := 0
	for i, bl := range all[1:] {
		bl.iteration(acks) // writes what has come by mail
		for at := 1 + i; at < clients; at += loops {
			acks[at], delivered = ackAll(t, nil, bl.tapes[at].took(), delivered)
		}
	}
	if want := clients / loops * (messages - (messages+loops-1)/loops); delivered != want {
		t.Errorf("%d were delivered by mail, want %d", delivered, want)
	}
	all[0].armed.Store(false)
	all[1].iteration(acks)
	check(1, 1, 0, 0)
}
