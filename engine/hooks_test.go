package engine

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
	"distmsg/routing"
)

// witness records what the hooks of one node or more were told. Its methods may be called from any
// goroutine.
type witness struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

func (w *witness) note(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, fmt.Sprintf(format, args...))
}

// take returns what came since the last call.
func (w *witness) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// expect waits for exactly these notes, in whatever order.
func (w *witness) expect(n *node, want ...string) {
	n.t.Helper()
	var got []string
	n.eventually(strings.Join(want, ", "), func() bool { got = append(got, w.take()...); return len(got) >= len(want) })
	n.settle()
	got = append(got, w.take()...)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		n.t.Errorf("the hooks were told %q, want %q", got, want)
	}
}

// hooks has the witness told of messages by the node of that name. A payload "deny CODE" is denied
// on delivery.
func (w *witness) hooks(node string) Hooks {
	return Hooks{
		Deliver: func(_ routing.SessionID, identity string, m *codec.Deliver) codec.Code {
			w.note("%s deliver %s %s>%s %s", node, identity, m.From, m.To, m.Payload)
			switch string(m.Payload) {
			case "deny":
				return codec.CodeDenied
			case "overflow":
				return codec.CodeOverflow
			case "acked": // a hook cannot say that
				return codec.CodeAcked
			}
			return codec.CodeOK
		},
		Undeliverable: func(m *codec.Deliver, code codec.Code) {
			w.note("%s ended %s>%s %s %s %d", node, m.From, m.To, m.Payload, code, m.Flags)
		},
	}
}

func identified(h Hooks) Hooks {
	h.Authenticate = named("me")
	return h
}

// Deliver sees each message to a session of its node once, and may deny it; what is denied, and
// what ends otherwise, Undeliverable sees once.
func TestDeliverHook(t *testing.T) {
	var w witness
	acrossLoops(t, Config{MaxPayload: 1000, Hooks: identified(w.hooks("n"))}, func(t *testing.T, n *node, from, to *client) {
		from.exchange("from", to, "to")
		w.expect(n, "n deliver me from>to are you there")
		from.post("from", "to", "posted", 0)
		to.gets("from", "to", "posted")
		w.expect(n, "n deliver me from>to posted")
		for payload, code := range map[string]codec.Code{"deny": codec.CodeDenied, "overflow": codec.CodeOverflow, "acked": codec.CodeDenied} {
			if o := from.hears(from.send("from", "to", payload), code); len(o.Reason) == 0 {
				t.Errorf("%s: no reason", payload)
			}
			from.hears(from.post("from", "to", payload, codec.FlagReport), code)
			from.post("from", "to", payload, 0)
			from.alive()
			told := fmt.Sprintf("n deliver me from>to %s", payload)
			ended := fmt.Sprintf("n ended from>to %s %s ", payload, code)
			w.expect(n, told, told, told, ended+"1", ended+"2", ended+"0")
		}
		to.silent()
	})
}

// Undeliverable hears of every ending that says not delivered, and of no other.
func TestUndeliverableHook(t *testing.T) {
	var w witness
	acrossLoops(t, Config{MaxPayload: 1 << 12, MaxPending: 1 << 13, Hooks: Hooks{Undeliverable: w.hooks("n").Undeliverable}},
		func(t *testing.T, n *node, from, to *client) {
			from.hears(from.send("from", "nobody", "x"), codec.CodeNoRoute)
			from.hears(from.send("to", "to", "x"), codec.CodeDenied)
			from.post("from", "nobody", "y", 0)
			from.alive()
			w.expect(n, "n ended from>nobody x no_route 1", "n ended to>to x denied 1", "n ended from>nobody y no_route 0")

			// Rejected, timed out and lost: seen, or not known.
			seq := from.send("from", "to", "no")
			d := to.gets("from", "to", "no")
			to.write(codec.AppendAck(nil, &codec.Ack{Token: d.Token, Code: codec.CodeRejected}))
			from.hears(seq, codec.CodeRejected)
			from.seq++
			from.write(sendFrame(from.seq, "from", "to", "late", codec.FlagAck, 50))
			to.gets("from", "to", "late")
			from.hears(from.seq, codec.CodeTimeout)

			// A message that its receiver gives back, with nobody else to have it.
			seq = from.send("from", "to", "back")
			to.notHere(to.gets("from", "to", "back"))
			from.hears(seq, codec.CodeNoRoute)
			w.expect(n, "n ended from>to back no_route 1")
			to.bind("to")

			// Overflow, decided on by either loop, and unreachable.
			big := strings.Repeat("x", 1<<12)
			in := n.join("in")
			at := n.table.Session(in.sessionID()).Handles()[0]
			holds := func(bytes int) {
				l := n.loops[at.Loop]
				done := make(chan struct{}) // mail may overtake a task
				l.post(func() {
					l.conn(at).out.segBytes += bytes
					close(done)
				})
				<-done
			}
			holds(1 << 20)
			from.hears(from.send("from", "in", big), codec.CodeOverflow)
			holds(-1 << 20)
			seq = from.send("from", "to", "lost")
			to.gets("from", "to", "lost")
			to.nc.Close()
			from.hears(seq, codec.CodeLost)
			from.hears(from.send("from", "to", "gone"), codec.CodeUnreachable)
			w.expect(n, "n ended from>in "+big+" overflow 1", "n ended from>to gone unreachable 1")
		})
}

// A message between nodes: the receiver's node delivers, and whoever decides that it is not
// delivered says so.
func TestHooksAcrossNodes(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		var w witness
		g := startGroupWith(t, 2, loops, func(cfg *Config) { cfg.Hooks = identified(w.hooks(cfg.NodeID)) })
		from, to := g.nodes[0].join("from"), g.nodes[1].join("to")
		from.exchange("from", to, "to")
		w.expect(g.nodes[1], "n1 deliver me from>to are you there")
		from.hears(from.send("from", "to", "deny"), codec.CodeDenied)
		from.hears(from.post("from", "to", "deny", codec.FlagReport), codec.CodeDenied)
		from.post("from", "to", "deny", 0)
		told := "n1 deliver me from>to deny"
		w.expect(g.nodes[1], told, told, told, "n1 ended from>to deny denied 1", "n1 ended from>to deny denied 2", "n1 ended from>to deny denied 0")
		from.hears(from.send("from", "nobody", "x"), codec.CodeNoRoute)
		w.expect(g.nodes[0], "n0 ended from>nobody x no_route 1")

		// The ID moves to the sender's node while the message is at the other one. It is seen
		// there, too.
		seq := from.send("from", "to", "moves")
		d := to.gets("from", "to", "moves")
		next := g.nodes[0].join()
		epoch := next.bind("to")
		to.kicked("to", epoch)
		to.notHere(d)
		again := next.gets("from", "to", "moves")
		next.ack(again, "")
		from.hears(seq, codec.CodeAcked)
		w.expect(g.nodes[0], "n1 deliver me from>to moves", "n0 deliver me from>to moves")

		if sends, ended, lost := g.sum(); sends != ended || lost != 0 {
			t.Errorf("%d sends, %d ended, %d lost", sends, ended, lost)
		}
	})
}

// A message that has moved on is denied where it comes to: it ends there, once, and nobody is asked
// again.
func TestDeliverHookDeniesMoved(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		for _, across := range []bool{false, true} {
			var w witness
			var second sync.Map
			hooks := identified(w.hooks("n"))
			hooks.Deliver = func(session routing.SessionID, _ string, m *codec.Deliver) codec.Code {
				w.note("deliver %s", m.Payload)
				if _, no := second.Load(session); no {
					return codec.CodeDenied
				}
				return codec.CodeOK
			}
			g := startGroupWith(t, 2, loops, func(cfg *Config) { cfg.Hooks = hooks })
			receiver := g.nodes[0]
			if across {
				receiver = g.nodes[1]
			}
			from, to, next := g.nodes[0].join("from"), receiver.join("to"), g.nodes[0].join()
			second.Store(next.sessionID(), true)
			seq := from.send("from", "to", "moves")
			d := to.gets("from", "to", "moves")
			to.kicked("to", next.bind("to"))
			to.notHere(d)
			from.hears(seq, codec.CodeDenied)
			next.silent()
			w.expect(g.nodes[0], "deliver moves", "deliver moves", "n ended from>to moves denied 1")
			from.silent()
		}
	})
}

// Kick hears what a session has lost, at its own node, wherever the new binding was made.
func TestKickHook(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		var w witness
		g := startGroupWith(t, 2, loops, func(cfg *Config) {
			id := cfg.NodeID
			cfg.Hooks = identified(Hooks{Kick: func(session routing.SessionID, identity, name string, epoch uint64) {
				w.note("%s %s %v %s %d", id, identity, session, name, epoch)
			}})
		})
		a, b, c := g.nodes[0].join("x", "y"), g.nodes[0].join(), g.nodes[1].join()
		a.bind("x") // its own: nobody loses anything
		epoch := b.bind("x")
		a.kicked("x", epoch)
		w.expect(g.nodes[0], fmt.Sprintf("n0 me %v x %d", a.sessionID(), epoch))
		epoch = c.bind("x")
		b.kicked("x", epoch)
		w.expect(g.nodes[0], fmt.Sprintf("n0 me %v x %d", b.sessionID(), epoch))
		s := g.nodes[1].attach(sdk.Config{Dialer: g.nodes[1].DialerAs(Identity{Name: "me"})}, "x")
		epoch, _ = s.Epoch("x")
		w.expect(g.nodes[1], fmt.Sprintf("n1 me %v x %d", c.sessionID(), epoch))
		epoch = a.bind("x")
		w.expect(g.nodes[1], fmt.Sprintf("n1 me %v x %d", sessionOf(s), epoch))
	})
}

// A hook may hold up its own loop for as long as it takes, and has the views that it is given until
// it returns.
func TestHooksHaveTheirBytes(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	var w witness
	n := start(t, Config{Loops: 2, DefaultTTL: time.Minute, Hooks: Hooks{Deliver: func(_ routing.SessionID, _ string, m *codec.Deliver) codec.Code {
		if string(m.Payload) == "wait" {
			close(entered)
			<-release
		}
		w.note("%s>%s %s", m.From, m.To, m.Payload)
		return codec.CodeOK
	}}})
	from, to := n.joinOn(0, "from"), n.joinOn(1, "to")
	other := n.joinOn(1, "other")
	seq := from.send("from", "to", "wait")
	<-entered
	other.exchange("other", to, "to") // on the other loop, life goes on
	close(release)
	to.ack(to.gets("from", "to", "wait"), "")
	from.hears(seq, codec.CodeAcked)
	w.expect(n, "other>to are you there", "from>to wait")
}

// Of a multicast, each message is one of its own for the hooks, too.
func TestHooksOfMulticast(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		var w witness
		g := startGroupWith(t, 2, loops, func(cfg *Config) {
			id := cfg.NodeID
			cfg.Hooks = w.hooks(id)
			cfg.Hooks.Deliver = func(_ routing.SessionID, _ string, m *codec.Deliver) codec.Code {
				w.note("%s deliver %s>%s %s", id, m.From, m.To, m.Payload)
				if strings.HasPrefix(string(m.To), "no") {
					return codec.CodeDenied
				}
				return codec.CodeOK
			}
		})
		from, here, there := g.nodes[0].joinMany("from"), g.nodes[0].joinMany("a", "no-a"), g.nodes[1].joinMany("b", "no-b")
		first := from.multicast("from", "hi", codec.FlagAck, "a", "no-a", "b", "no-b", "nobody")
		for c, id := range map[*client]string{here: "a", there: "b"} {
			m := c.getsMany("from", "hi")
			if m.ids() != id {
				t.Errorf("%s got %s", id, m.ids())
			}
			c.ackAll(m)
		}
		outcomes, _ := from.tells(5)
		for i, want := range []codec.Code{codec.CodeAcked, codec.CodeDenied, codec.CodeAcked, codec.CodeDenied, codec.CodeNoRoute} {
			if got := outcomes[first+uint64(i)].Code; got != want {
				t.Errorf("%d: %v, want %v", i, got, want)
			}
		}
		w.expect(g.nodes[0], "n0 deliver from>a hi", "n0 deliver from>no-a hi", "n1 deliver from>b hi", "n1 deliver from>no-b hi",
			"n0 ended from>no-a hi denied 1", "n1 ended from>no-b hi denied 1", "n0 ended from>nobody hi no_route 1")
	})
}
