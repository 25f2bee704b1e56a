package engine

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// laborious is a Send hook with which each message takes the loop a while. It notes the payloads in
// the order in which they were handled, and calls first before the first one.
type laborious struct {
	first func()
	once  sync.Once
	mu    sync.Mutex
	seen  []string // guarded by mu
}

func (h *laborious) send(_ string, m *codec.Send) codec.Code {
	h.once.Do(h.first)
	for began := time.Now(); time.Since(began) < 50*time.Microsecond; {
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, string(m.Payload))
	return codec.CodeOK
}

func (h *laborious) handled() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.seen)
}

// numberedSends are n sends from an ID to itself, with their numbers as payload.
func numberedSends(id string, n int) (frames []byte, payloads []string) {
	for i := range n {
		payloads = append(payloads, fmt.Sprint(id, " ", i))
		frames = append(frames, sendFrame(uint64(i), id, id, payloads[i], 0, 0)...)
	}
	return frames, payloads
}

// unread returns what waits of all input, and of the one connection with the most.
func (n *node) unread() (all, most int) {
	ask(context.Background(), n.Engine, func(l *loop) bool {
		all += l.turns.unread
		for _, c := range l.conns {
			if c != nil {
				most = max(most, len(c.in.unread()))
			}
		}
		return true
	})
	return all, most
}

// Much input of one connection does not keep the loop from another one: it is handled in turns, and
// stays in order.
func TestInputIsHandledInTurns(t *testing.T) {
	const many = 2000
	sent := make(chan struct{})
	h := &laborious{first: func() { <-sent }}
	n := start(t, Config{Hooks: Hooks{Send: h.send}})
	a, b := n.join("a"), n.join("b")
	frames, payloads := numberedSends("a", many)
	go func() {
		for range many {
			if _, err := a.read(); err != nil {
				return
			}
		}
	}()
	a.write(frames)
	b.post("b", "b", "b", 0)
	close(sent)
	b.gets("b", "b", "b")
	n.eventually("all are handled", func() bool { return len(h.handled()) == many+1 })
	seen := h.handled()
	at := slices.Index(seen, "b")
	if at > many/2 {
		t.Errorf("the loop came to b behind %d messages of a", at)
	}
	if got := slices.Delete(seen, at, at+1); !slices.Equal(got, payloads) {
		t.Error("a's messages are not in order")
	}
	if s := n.counters(); s.Deferred == 0 {
		t.Errorf("%+v", s)
	}
	if all, _ := n.unread(); all != 0 {
		t.Errorf("%d bytes count as unread when all is handled", all)
	}
}

// The loop reads no more from a connection whose input waits: the kernel holds up who sends it.
func TestWaitingInputIsBounded(t *testing.T) {
	h := &laborious{first: func() {}}
	n := start(t, Config{Hooks: Hooks{Send: h.send}, MaxInFlight: 1})
	a := n.join("a")
	if n.loops[0].poll.epoll < 0 {
		t.Fatal("the epoll descriptor of gnet's loop is not known")
	}
	const many = 4000
	frame := sendFrame(1, "a", "a", string(make([]byte, 1<<10)), codec.FlagAck, 0)
	go func() {
		for range many {
			if _, err := a.nc.Write(frame); err != nil {
				t.Error(err)
			}
		}
	}()
	go func() {
		for {
			if _, err := a.read(); err != nil {
				return
			}
		}
	}()
	most := 0
	n.eventually("all are handled", func() bool {
		_, now := n.unread()
		most = max(most, now)
		return len(h.handled()) == many
	})
	if most == 0 || most > 2*readMost {
		t.Errorf("%d bytes waited in the node, want at most %d", most, 2*readMost)
	}
	a.nc.Close()
}

// A client that has sent all it has to say and closes the connection is heard to the end, although
// its input had to wait.
func TestInputBeforeTheEnd(t *testing.T) {
	for _, stops := range []bool{true, false} {
		t.Run(fmt.Sprintf("reading stops %v", stops), func(t *testing.T) {
			const many = 1000
			h := &laborious{first: func() {}}
			n := start(t, Config{Hooks: Hooks{Send: h.send}}, func(e *Engine) {
				go func() {
					<-e.Ready()
					if !stops { // as when gnet reads on although it was asked not to
						e.loops[0].post(func() { e.loops[0].poll.epoll = -1 })
					}
				}()
			})
			n.settleLoops()
			a := n.join("a")
			frames, payloads := numberedSends("a", many)
			a.write(frames)
			if err := a.nc.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			n.eventually("all are handled", func() bool { return len(h.handled()) == many })
			if !slices.Equal(h.handled(), payloads) {
				t.Error("they are not in order")
			}
			n.eventually("the end", func() bool { return n.Stats().Connections == 0 })
		})
	}
}

// A connection whose input waits is not silent.
func TestWaitingIsNotSilence(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	h := &laborious{first: func() { close(begun); <-release }}
	n := start(t, Config{Hooks: Hooks{Send: h.send}})
	a := n.join("a")
	frames, _ := numberedSends("a", 1000)
	a.write(frames)
	<-begun
	var left int64
	n.loops[0].post(func() {
		l := n.loops[0]
		c := l.conn(n.table.Session(a.sessionID()).Handles()[0])
		l.beats.awake += time.Hour.Milliseconds()
		c.live.dead = 3000
		if c.in.inTurns {
			left = c.live.timeLeft()
		}
		c.live.lastHeard = l.beats.awake
	})
	close(release)
	n.eventually("all are handled", func() bool { return len(h.handled()) == 1000 })
	if n.settleLoops(); left < time.Hour.Milliseconds() {
		t.Errorf("%d ms are left for one whose input waits", left)
	}
}

// Whose frames are expensive waits, in the middle of one or before the next, while others wait for
// the loop. Whoever has been quiet is served at once.
func TestTurnsAreByCost(t *testing.T) {
	n := start(t, Config{Loops: 1, Hooks: Hooks{Deliver: func(routing.SessionID, string, *codec.Deliver) codec.Code { return codec.CodeOK }}})
	a, b, c := n.join("a"), n.join("b"), n.join("c")
	many := func(from string, recipients int) []byte {
		to := slices.Repeat([][]byte{[]byte("a")}, recipients)
		return codec.AppendMulticast(nil, &codec.Multicast{Seq: 1, From: []byte(from)}, to)
	}
	frames := [][]byte{many("a", 2000), many("b", turnSlack), sendFrame(1, "c", "b", "cheap", 0, 0)}
	var waits []bool
	done := make(chan struct{})
	l := n.loops[0]
	l.post(func() {
		defer close(done)
		for i, client := range []*client{a, b, c} {
			conn := l.conn(n.table.Session(client.sessionID()).Handles()[0])
			l.pace.part(time.Hour) // nobody has to wait because of the time
			conn.in.take(frames[i])
			waits = append(waits, conn.in.inTurns)
		}
	})
	<-done
	if want := []bool{true, true, false}; !slices.Equal(waits, want) {
		t.Errorf("they wait: %v, want %v", waits, want)
	}
	b.gets("c", "b", "cheap")
	n.eventually("all are handled", func() bool { return n.counters().Sends == 2000+turnSlack+1 })
}

// Clients have their turns in the order of what they will have caused. Nobody saves anything up.
func TestOrderOfTurns(t *testing.T) {
	l := bareLoop()
	l.turns.settle(true)
	conns := make([]*conn, 4)
	for i := range conns {
		conns[i] = bareConn(l)
	}
	quiet, cheap, large, heavy := conns[0], conns[1], conns[2], conns[3]
	cheap.in.countWork(100)
	large.in.waits().unread = make([]byte, 200*bytesPerUnit)
	heavy.in.countWork(50_000)
	for _, c := range []*conn{heavy, large, cheap, quiet} {
		l.turns.push(c)
	}
	for i, want := range []*conn{quiet, cheap, large, heavy} {
		if got := l.turns.clients.TakeFirst().conn; got != want {
			t.Fatalf("%d is number %d", slices.Index(conns, got), i)
		}
	}
	l.turns.settle(true)
	if quiet.in.countWork(10); quiet.in.caused != 100+10 {
		t.Errorf("who was quiet has caused %d while the least of the others was 100", quiet.in.caused)
	}
	l.turns.settle(false)
	if quiet.in.countWork(10); quiet.in.caused != 50_000+10 {
		t.Errorf("who was quiet has caused %d when nobody was held up, and the most of the others was 50,000", quiet.in.caused)
	}
}
