package engine

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
)

const testGap = 1500 * time.Millisecond

// stall stops a loop for longer than LoopGap and returns when it continues. meanwhile runs while it
// stands.
func (n *node) stall(loop int, meanwhile func()) {
	n.t.Helper()
	blocked, release := make(chan struct{}), make(chan struct{})
	n.loops[loop].post(func() { close(blocked); <-release })
	<-blocked
	began := n.clock()
	meanwhile()
	n.eventually("the gap", func() bool { return n.clock()-began > n.cfg.LoopGap+50*time.Millisecond })
	close(release)
}

// A node that was stopped drops all connections and continues under a new incarnation, whichever of
// its loops noticed (S24).
func TestFence(t *testing.T) {
	long(t)
	t.Parallel()
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops, LoopGap: testGap, DefaultTTL: time.Minute})
		before := n.Incarnation()
		var clients []*client
		for i := range 2 * loops {
			c := n.joinOn(i%loops, senderID(i))
			clients = append(clients, c)
		}
		a, b := clients[0], clients[len(clients)-1]
		pending := a.send(senderID(0), senderID(len(clients)-1), "before the stop")
		d := b.gets(senderID(0), senderID(len(clients)-1), "before the stop")
		if a.welcome.Incarnation != before {
			t.Errorf("incarnation %d, want %d", a.welcome.Incarnation, before)
		}
		n.stall(loops-1, func() {})
		for i, c := range clients {
			// An outcome may have come before the end, but none that says acked.
			for {
				f := c.next()
				if f.kind == codec.KindOutcome {
					var o codec.Outcome
					c.decoded(codec.DecodeOutcome(f.body, &o))
					if o.Seq != pending || o.Code != codec.CodeLost {
						t.Errorf("client %d: %v", i, describe(f))
					}
					continue
				}
				c.in = append(prefixed(f.body...), c.in...)
				break
			}
			if e := c.fails(codec.FaultFenced); e.Kind != 0 {
				t.Errorf("%+v", e)
			}
		}
		after := n.Incarnation()
		if after <= before {
			t.Errorf("incarnation %d after %d", after, before)
		}
		s := n.counters()
		if s.Connections != 0 || s.Pending != 0 || s.Faults[codec.FaultFenced] != uint64(len(clients)) {
			t.Errorf("%+v", s)
		}
		// Clients come back, with their sessions; what they know from before is void.
		again := n.dial()
		if w := again.hello(b.resume()); w.Flags != codec.WelcomeResumed || w.Incarnation != after {
			t.Errorf("%+v", w)
		}
		tokens := n.tokens()
		again.ack(d, "too late")
		again.silent()
		n.expectTokens(tokens, 0, 1)
		from := n.join("from")
		from.exchange("from", again, senderID(len(clients)-1))
		n.checkBooks()

		// Once more: what was given to the session is late, however long ago that was.
		n.stall(0, func() {})
		again.fails(codec.FaultFenced)
		from.fails(codec.FaultFenced)
		if now := n.Incarnation(); now <= after {
			t.Errorf("incarnation %d after %d", now, after)
		}
		last := n.dial()
		last.hello(b.resume())
		tokens = n.tokens()
		last.ack(d, "far too late")
		last.silent()
		n.expectTokens(tokens, 0, 1)
		n.join("from2").exchange("from2", last, senderID(len(clients)-1))
	})
}

// The node does not handle input that was sent during the stop. The counters balance all the same.
func TestFenceUnreadInput(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 2, LoopGap: testGap, DefaultTTL: time.Minute})
	a, b := n.joinOn(0, "a"), n.joinOn(1, "b")
	n.stall(0, func() {
		a.write(bytes.Repeat(sendFrame(1, "a", "b", "stale", 0, 0), 100))
		a.write(bytes.Repeat(sendFrame(1, "a", "b", "stale", codec.FlagAck, 0), 100))
	})
	for {
		f, err := a.read() // perhaps the fault, perhaps a reset: there was input that nobody read
		if err != nil {
			break
		}
		if f.kind != codec.KindError {
			t.Errorf("%v %s", f.kind, describe(f))
		}
	}
	b.fails(codec.FaultFenced)
	if s := n.counters(); s.Sends != 0 {
		t.Errorf("%d sends were acted upon", s.Sends)
	}
}

// Messages that lie between two loops when the stop comes are not delivered, and are accounted for.
func TestFenceMail(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 2, LoopGap: testGap, DefaultTTL: time.Minute})
	a, b := n.joinOn(0, "a"), n.joinOn(1, "b")
	n.stall(1, func() {
		for i, flags := range []uint8{0, codec.FlagReport, codec.FlagAck} {
			a.write(bytes.Repeat(sendFrame(uint64(i), "a", "b", "stale", flags, 0), 10))
		}
		a.alive()
	})
	b.fails(codec.FaultFenced)
	if s := n.counters(); s.Sends != 30 || s.Written != 0 {
		t.Errorf("%+v", s)
	}
	n.checkBooks()

	// What a loop has for another one when it notices by itself.
	c, d := n.joinOn(0, "c"), n.joinOn(1, "d")
	done := make(chan struct{})
	n.loops[0].post(func() {
		defer close(done)
		l := n.loops[0]
		l.conn(n.table.Session(c.sessionID()).Handles()[0]).takeAll(
			append(sendFrame(1, "c", "d", "stale", 0, 0), sendFrame(2, "c", "d", "stale", codec.FlagAck, 0)...))
		began := n.clock()
		for n.clock()-began <= testGap+50*time.Millisecond {
			time.Sleep(10 * time.Millisecond) // the stop itself
		}
	})
	<-done
	d.fails(codec.FaultFenced)
	n.checkBooks()
}

// A loop that is only busy is left alone.
func TestNoFence(t *testing.T) {
	n := start(t, Config{Loops: 2})
	by := n.watchOver()
	before := n.Incarnation()
	for i := range 4 {
		blocked, release := make(chan struct{}), make(chan struct{})
		n.loops[i%2].post(func() { close(blocked); <-release })
		<-blocked
		began := n.clock()
		n.eventually("a while", func() bool { return n.clock()-began > 100*time.Millisecond })
		close(release)
	}
	by.unharmed()
	if s := n.counters(); n.Incarnation() != before || s.LongestStall < 100*time.Millisecond {
		t.Errorf("incarnation %d after %d, longest stall %v", n.Incarnation(), before, s.LongestStall)
	}
}

// A slow hook on a loop is a stop like any other.
func TestFenceByHook(t *testing.T) {
	long(t)
	t.Parallel()
	stuck := make(chan struct{})
	n := start(t, Config{Loops: 2, LoopGap: testGap, Hooks: Hooks{Send: func(_ string, m *codec.Send) codec.Code {
		if string(m.Payload) == "stick" {
			<-stuck
		}
		return codec.CodeOK
	}}})
	a, b := n.joinOn(0, "a"), n.joinOn(1, "b")
	a.post("a", "b", "stick", 0)
	began := n.clock()
	n.eventually("the gap", func() bool { return n.clock()-began > testGap+100*time.Millisecond })
	close(stuck)
	a.fails(codec.FaultFenced)
	b.fails(codec.FaultFenced)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := n.Drain(ctx); err != nil {
		t.Error(err)
	}
}

// takeAll handles input all at once.
func (c *conn) takeAll(buf []byte) {
	for c.in.take(buf); c.in.hasWork(); c.in.resume() {
		c.loop.pace.beginTurn()
	}
}

// work has a loop handle frames of c, which it does not answer, for longer than LoopGap, in one
// iteration.
func (n *node) work(loop int, c *client) {
	n.t.Helper()
	l := n.loops[loop]
	done := make(chan struct{})
	l.post(func() {
		defer close(done)
		from := l.conn(n.table.Session(c.sessionID()).Handles()[0])
		frames := bytes.Repeat(codec.AppendPong(nil, 1), 1000)
		for began := n.clock(); n.clock()-began <= n.cfg.LoopGap+50*time.Millisecond; {
			from.takeAll(frames)
		}
	})
	<-done
}

// A loop that works for longer than LoopGap was not stopped (S24).
func TestBusyIsNotStopped(t *testing.T) {
	long(t)
	t.Parallel()
	const gap = 2 * testGap // a test process that gets no CPU for as long was stopped indeed
	n := start(t, Config{Loops: 2, LoopGap: gap})
	before := n.Incarnation()
	c, other := n.joinOn(0, "c"), n.joinOn(0, "other")
	n.work(0, c)
	other.alive()
	if s := n.counters(); n.Incarnation() != before || s.LongestStall > gap {
		t.Errorf("incarnation %d after %d, longest stall %v", n.Incarnation(), before, s.LongestStall)
	}
}

// A loop that was stalled in the middle of its work counts as stopped.
func TestStoppedWhileBusy(t *testing.T) {
	long(t)
	t.Parallel()
	var once sync.Once
	n := start(t, Config{LoopGap: testGap, Hooks: Hooks{Send: func(string, *codec.Send) codec.Code {
		once.Do(func() { time.Sleep(testGap + 50*time.Millisecond) }) // the stop itself
		return codec.CodeOK
	}}})
	c, d := n.join("c"), n.join("d")
	c.write(bytes.Repeat(sendFrame(1, "c", "d", "x", codec.FlagAck, 0), 1000))
	d.fails(codec.FaultFenced)
	if s := n.counters(); s.Faults[codec.FaultFenced] != 2 {
		t.Errorf("%+v", s)
	}
}
