package engine

import (
	"testing"
	"time"

	"distmsg/codec"
)

// promising opens a connection that promises to send something that often.
func (n *node) promising(heartbeat uint64, ids ...string) *client {
	n.t.Helper()
	c := n.dial()
	c.hello(codec.Hello{Heartbeat: heartbeat})
	if len(ids) > 0 {
		c.bind(ids...)
	}
	return c
}

// welcome announces the heartbeats that hold for the connection, within bounds: a client that
// promises much is not dropped for being busy, and one that promises little is treated like one
// that promises nothing.
func TestPromiseIsBounded(t *testing.T) {
	def := start(t, Config{IdleTimeout: 30 * time.Second})
	short := start(t, Config{Heartbeat: 300 * time.Millisecond, IdleTimeout: 2 * time.Second})
	for _, v := range []struct {
		n               *node
		says            uint64
		heartbeat, idle uint64
	}{
		{def, 0, 10_000, 30_000}, {def, 1, 1000, 3000}, {def, 1000, 1000, 3000}, {def, 2500, 2500, 7500}, {def, 1 << 60, 10_000, 30_000},
		{short, 0, 300, 2000}, {short, 1000, 300, 900},
	} {
		if w := v.n.promising(v.says).welcome; w.Limits.Heartbeat != v.heartbeat || w.Limits.IdleTimeout != v.idle {
			t.Errorf("%d: %d and %d, want %d and %d", v.says, w.Limits.Heartbeat, w.Limits.IdleTimeout, v.heartbeat, v.idle)
		}
	}
}

// A client that breaks its promise is dead after three heartbeats: what waits for it is lost, and
// its IDs are unreachable. One that is slow, but sends, lives, and so does one that has promised
// nothing.
func TestBrokenPromise(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{})
	from := n.join("from")
	slow, old := n.promising(1000), n.join()
	n.promising(1000, "dead")
	seq := from.send("from", "dead", "hello?")
	began := time.Now()
	stop := make(chan struct{})
	sent := make(chan struct{})
	go func() { // a large frame, over a bad line
		defer close(sent)
		frame := sendFrame(1, "", "nobody", string(make([]byte, 1000)), codec.FlagAck, 0)
		pace := time.NewTicker(200 * time.Millisecond)
		defer pace.Stop()
		for i := range frame {
			select {
			case <-pace.C:
			case <-stop:
				_, _ = slow.nc.Write(frame[i:])
				return
			}
			_, _ = slow.nc.Write(frame[i : i+1])
		}
	}()
	from.hears(seq, codec.CodeLost)
	if took := time.Since(began); took > 5*time.Second || took < 2500*time.Millisecond {
		t.Errorf("lost after %v, want 3 s and some slack", took)
	}
	from.hears(from.send("from", "dead", "still there?"), codec.CodeUnreachable)
	for time.Since(began) < 4*time.Second {
		from.alive()
		time.Sleep(20 * time.Millisecond) // silence is what this test is about
	}
	close(stop)
	<-sent
	slow.hears(1, codec.CodeDenied)
	old.alive()
}

// waitSilent lets a connection be silent for as long as makes it doubtful.
func (c *client) waitSilent() {
	c.t.Helper()
	s := c.n.table.Session(c.sessionID())
	c.n.eventually("silence", func() bool {
		silent := false
		done := make(chan struct{})
		hall{c.n.Engine}.eachConn(s.Handles(), func(c *conn) { silent = c.live.silentFor() >= 3*assumedBeat.Milliseconds()/2; close(done) })
		<-done
		return silent
	})
}

// News that a session is attached elsewhere make a connection doubtful that has been silent:
// messages go to the other place at once, and the connection is given up unless it answers.
func TestSilentBreak(t *testing.T) {
	for name, elsewhere := range map[string]int{"another node": 1, "the same node": 0} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGroup(t, 2, 2)
			n, other := g.nodes[0], g.nodes[elsewhere]
			dead, lively, busy := n.join("dead"), n.join("lively"), n.join("busy")
			from := []*client{n.join("s0"), g.nodes[1].join("s1")}
			dead.waitSilent()
			lively.waitSilent()
			moved := []*client{dead.attachAlso(other), lively.attachAlso(other)}
			more := other.dial() // now, so that busy is not silent for long before it says hello
			busy.alive()
			more.hello(busy.resume())
			for i, c := range []*client{dead, lively} {
				n.eventually("step back", func() bool { return len(n.table.Session(c.sessionID()).Handles()) == 1-elsewhere })
				for k, f := range from {
					f.exchange([]string{"s0", "s1"}[k], moved[i], []string{"dead", "lively"}[i])
				}
			}
			lively.alive() // which answers the ping
			n.eventually("back", func() bool { return len(n.table.Session(lively.sessionID()).Handles()) == 2-elsewhere })
			if len(n.table.Session(busy.sessionID()).Handles()) != 2-elsewhere {
				t.Error("a connection that was heard of lately was taken out of its session")
			}
			began := time.Now()
			f, err := dead.read()
			for ; err == nil && (f.kind == codec.KindPing || f.kind == codec.KindMembers); f, err = dead.read() {
			}
			if err != nil || f.kind != codec.KindError {
				t.Fatalf("%v %v, want the end of the connection", f.kind, err)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("given up after %v, want 3 s and some slack", took)
			}
			lively.alive()
			for k, f := range from {
				f.exchange([]string{"s0", "s1"}[k], moved[0], "dead")
			}
		})
	}
}

// A loop that is held up does not take that for its clients' silence.
func TestWakingTime(t *testing.T) {
	l := bareLoop()
	l.now, l.beats.lastTick = 1000, 1000
	for _, v := range []struct{ now, awake int64 }{{1010, 10}, {1020, 20}, {4020, 270}, {4030, 280}} {
		l.now = v.now
		l.beats.awaken()
		if l.beats.awake != v.awake {
			t.Errorf("at %d: awake for %d, want %d", v.now, l.beats.awake, v.awake)
		}
	}
}
