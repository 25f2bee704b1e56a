package engine

import (
	"testing"
	"time"

	"distmsg/codec"
)

// gnet runs tasks in a row for as long as there are any. What the loop is rung for while an
// iteration runs does not keep it from its sockets: here each iteration is rung for again before it
// ends.
func TestIterationsInARowReadSockets(t *testing.T) {
	const all, at, soon = 100, 10, 5
	n := start(t, Config{Loops: 1})
	c := n.join()
	l := n.loops[0]
	ping := codec.AppendPing(nil, 7)
	ran := 0
	var before uint64
	answered := make(chan int, 1)
	var next func()
	next = func() {
		switch ran++; {
		case ran == at:
			before = l.stats.framesIn
			c.write(ping)
		case ran > at && l.stats.framesIn > before:
			answered <- ran
			return
		case ran == all:
			answered <- ran
			return
		}
		l.post(next)           // it rings
		time.Sleep(unreadTime) // each iteration takes long
	}
	l.post(next)
	if got := <-answered; got > at+soon {
		t.Errorf("the ping was sent in iteration %d, and read after iteration %d", at, got-1)
	}
	c.expect(codec.KindPong)
}
