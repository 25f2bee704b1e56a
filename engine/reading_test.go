package engine

import (
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
)

// gnet reads all sockets that have something before the loop can turn to anything else. Of each it
// reads a little, once the loop has no time left: 2,000 clients that all send much held up all
// others for half a second, in which the node only copied what had to wait.
func TestManySocketsAreReadInParts(t *testing.T) {
	const clients, each = 200, 64 << 10
	written := make(chan struct{})
	var first, over atomic.Bool
	n := start(t, Config{Loops: 1, Hooks: Hooks{Send: func(string, *codec.Send) codec.Code {
		if first.CompareAndSwap(false, true) {
			<-written
		}
		for began := time.Now(); !over.Load() && time.Since(began) < 50*time.Microsecond; {
		}
		return codec.CodeDenied
	}}})
	opener := n.join("opener")
	crowd := make([]*client, clients)
	for i := range crowd {
		crowd[i] = n.join(strconv.Itoa(i))
	}

	l := n.loops[0]
	done := make(chan uint64, 1)
	var look func()
	var began, before, most uint64
	look = func() { // in each iteration, behind what gnet has read
		now := l.stats.traffic[clientConn].BytesIn
		most, before = max(most, now-before), now
		if most > each {
			over.Store(true)
		}
		if now-began >= clients*each {
			done <- most
			return
		}
		l.post(look)
	}
	n.on(0, func(l *loop) { began = l.stats.traffic[clientConn].BytesIn })
	before = began
	opener.post("opener", "opener", "x", 0)
	n.eventually("the loop handles the first message", first.Load)
	l.post(look)
	for i, c := range crowd {
		id, input := strconv.Itoa(i), make([]byte, 0, each)
		for seq := uint64(0); len(input) < each; seq++ {
			input = append(input, sendFrame(seq, id, id, "0123456789", 0, 0)...)
		}
		c.write(input)
	}
	close(written)
	if most := <-done; most > clients*each/2 {
		t.Errorf("%d bytes were read in one iteration, of %d that had come", most, clients*each)
	}
}
