package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

func TestWelcome(t *testing.T) {
	n := start(t, Config{NodeID: "n1", MaxPayload: 5000, Credit: 1 << 20, MaxTTL: time.Minute, IdleTimeout: 30 * time.Second})
	c := n.join()
	w := c.welcome
	want := codec.Limits{MaxPayload: 5000, MaxFrame: uint64(n.maxFrame), MaxIDs: 1024, MaxInFlight: 65536, Credit: 1 << 20,
		MaxTTL: 60_000, DefaultTTL: 5000, Heartbeat: 10_000, IdleTimeout: 30_000, ResumeWindow: 10_000, MaxMulticast: 10_000, MaxWatched: 100_000}
	if w.Limits != want {
		t.Errorf("limits %+v, want %+v", w.Limits, want)
	}
	if w.Version != 1 || w.Features != 0 || w.Node != "n1" || w.Incarnation != n.Incarnation() || w.Flags != 0 ||
		len(w.Session) != codec.SessionIDLen || len(w.Secret) != codec.SecretLen {
		t.Errorf("%+v", w)
	}
	if len(w.Members) != 1 || w.Members[0] != (codec.Member{Node: "n1", Addr: n.Addr().String()}) {
		t.Errorf("members %v", w.Members)
	}
	other := n.join()
	if bytes.Equal(other.session, c.session) || bytes.Equal(other.secret, c.secret) {
		t.Error("two sessions are the same")
	}
}

func TestResume(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		epoch := to.bind("other")
		to.nc.Close()
		n.eventually("it is detached", func() bool { return from.lookupCode("to") == codec.CodeUnreachable })
		from.hears(from.send("from", "to", "hi"), codec.CodeUnreachable)
		if got := n.Stats().Sessions; got != 2 {
			t.Errorf("%d sessions", got)
		}
		again := n.dial()
		w := again.hello(to.resume())
		if w.Flags != codec.WelcomeResumed || !bytes.Equal(w.Session, to.session) || !bytes.Equal(w.Secret, to.secret) {
			t.Errorf("%+v", w)
		}
		from.exchange("from", again, "to")
		from.exchange("from", again, "other")
		again.exchange("to", from, "from")
		if r := again.tryBind(codec.PolicyKickOld, withEpochs([]string{"other"}, epoch)...); r[0] != (codec.Result{Epoch: epoch}) {
			t.Errorf("re-assert: %v", r)
		}
	})
}

func TestResumeRefused(t *testing.T) {
	cfg := Config{Hooks: Hooks{Authenticate: nameIsCredentials}}
	n := start(t, cfg)
	by := n.watchOver()
	c := n.dial()
	c.hello(codec.Hello{Credentials: []byte("alice")})
	c.bind("a")
	other := n.dial()
	other.hello(codec.Hello{Credentials: []byte("alice")})
	flipped := bytes.Clone(c.secret)
	flipped[31] ^= 1
	for name, h := range map[string]codec.Hello{
		"wrong secret":             {Credentials: []byte("alice"), Session: c.session, Secret: flipped},
		"no secret":                {Credentials: []byte("alice"), Session: c.session},
		"another session's secret": {Credentials: []byte("alice"), Session: c.session, Secret: other.secret},
		"wrong identity":           {Credentials: []byte("bob"), Session: c.session, Secret: c.secret},
		"unknown session":          {Credentials: []byte("alice"), Session: make([]byte, 16)[:15:15], Secret: c.secret},
	} {
		t.Run(name, func(t *testing.T) {
			before := n.counters().Faults[codec.FaultUnauthenticated]
			bad := n.dial()
			bad.t = t
			h.MinVersion, h.MaxVersion = 1, 1
			if len(h.Session) == 15 {
				h.Session = bytes.Repeat([]byte{7}, 16)
			}
			bad.write(codec.AppendHello(nil, &h))
			if e := bad.fails(codec.FaultUnauthenticated); e.Kind != 0 || len(e.Message) == 0 || bytes.Contains([]byte(e.Message), c.secret) {
				t.Errorf("%+v", e)
			}
			if now := n.counters().Faults[codec.FaultUnauthenticated]; now != before+1 {
				t.Errorf("counted %d times", now-before)
			}
		})
	}
	c.alive()
	c.exchange("a", c, "a")
	by.unharmed()

	// A secret without a session is ignored.
	fresh := n.dial()
	if w := fresh.hello(codec.Hello{Credentials: []byte("alice"), Secret: c.secret}); w.Flags != 0 || bytes.Equal(w.Session, c.session) {
		t.Errorf("%+v", w)
	}
}

// After its window a session is gone, and its client begins a new one and re-asserts.
func TestSessionExpires(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{ResumeWindow: time.Second})
	from, to := n.join("from"), n.join()
	epoch := to.bind("to")
	began := time.Now()
	to.nc.Close()
	n.eventually("it is detached", func() bool { return from.lookupCode("to") == codec.CodeUnreachable })
	n.eventually("it is gone", func() bool { return from.lookupCode("to") == codec.CodeNoRoute })
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("the session ended after %v", took)
	}
	from.hears(from.send("from", "to", "hi"), codec.CodeNoRoute)
	if s := n.Stats(); s.Sessions != 1 || s.IDs != 1 {
		t.Errorf("%d sessions, %d IDs", s.Sessions, s.IDs)
	}
	again := n.dial()
	w := again.hello(to.resume())
	if w.Flags != 0 || bytes.Equal(w.Session, to.session) || bytes.Equal(w.Secret, to.secret) {
		t.Errorf("%+v", w)
	}
	if r := again.tryBind(codec.PolicyKickOld, withEpochs([]string{"to"}, epoch)...); r[0] != (codec.Result{Epoch: epoch}) {
		t.Errorf("re-assert: %v", r)
	}
	from.exchange("from", again, "to")
}

// A session that is resumed again and again within its window does not end.
func TestSessionStays(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{ResumeWindow: time.Second})
	c := n.join("me")
	for began := time.Now(); time.Since(began) < 2500*time.Millisecond; {
		next := n.dial()
		if w := next.hello(c.resume()); w.Flags != codec.WelcomeResumed {
			t.Fatal("a new session")
		}
		c.nc.Close()
		c = next
		c.exchange("me", c, "me")
		time.Sleep(50 * time.Millisecond) // the pace of a bad line
	}
}

func TestReplace(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		more := n.dial()
		more.hello(to.resume())
		seq := from.send("from", "to", "hi")
		n.settle()
		h := to.resume()
		h.Flags = codec.HelloReplace
		last := n.dial()
		if w := last.hello(h); w.Flags != codec.WelcomeResumed {
			t.Error("not resumed")
		}
		for _, c := range []*client{to, more} {
			if f := c.next(); f.kind == codec.KindDeliver {
				c.fails(codec.FaultReplaced)
			} else {
				c.in = append(prefixed(f.body...), c.in...)
				c.fails(codec.FaultReplaced)
			}
		}
		from.hears(seq, codec.CodeLost)
		from.exchange("from", last, "to")
		if s := n.counters(); s.Faults[codec.FaultReplaced] != 2 {
			t.Errorf("%v", s.Faults)
		}
		if got := len(n.table.Session(to.sessionID()).Handles()); got != 1 {
			t.Errorf("%d connections", got)
		}
	})
}

// What is sent to one ID goes over one connection of its session as long as the set stands (S20).
func TestManyConnections(t *testing.T) {
	n := start(t, Config{Loops: 2})
	from := n.join("from")
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprint("id", i))
	}
	to := []*client{n.join(ids...)}
	for range 3 {
		c := n.dial()
		c.hello(to[0].resume())
		to = append(to, c)
	}
	for range 4 {
		for _, id := range ids {
			from.post("from", id, "hi", 0)
		}
	}
	n.settle()
	where, total := make(map[string]int), 0
	for i, c := range to {
		got := 0
		for _, f := range c.arrived() {
			var d codec.Deliver
			c.decoded(codec.DecodeDeliver(f.body, &d))
			if at, ok := where[string(d.To)]; ok && at != i {
				t.Errorf("%s came on connections %d and %d", d.To, at, i)
			}
			where[string(d.To)] = i
			got++
		}
		if got == 0 {
			t.Errorf("connection %d got nothing", i)
		}
		total += got
	}
	if total != 200 {
		t.Errorf("%d messages, want 200", total)
	}
	// Requests are answered where they came in, kicks come everywhere.
	thief := n.join()
	epoch := thief.bind(ids[0])
	for _, c := range to {
		c.kicked(ids[0], epoch)
		c.alive()
	}
}

func (c *client) kicked(id string, epoch uint64) {
	c.t.Helper()
	got, at, err := codec.DecodeKick(c.expect(codec.KindKick))
	if err != nil || string(got) != id || at != epoch {
		c.t.Errorf("kick %q %d, %v; want %q %d", got, at, err, id, epoch)
	}
}

// bye ends the session at once, with its bindings and its other connections.
func TestBye(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		var more []*client
		for range 2 {
			c := n.dial()
			c.hello(to.resume())
			more = append(more, c)
		}
		to.write(codec.AppendBye(codec.AppendPing(nil, 5)))
		to.expect(codec.KindPong)
		to.ends()
		for _, c := range more {
			c.fails(codec.FaultSessionEnded)
		}
		n.settle()
		if code := from.lookupCode("to"); code != codec.CodeNoRoute {
			t.Errorf("lookup: %v", code)
		}
		from.hears(from.send("from", "to", "hi"), codec.CodeNoRoute)
		again := n.dial()
		if w := again.hello(to.resume()); w.Flags != 0 || bytes.Equal(w.Session, to.session) {
			t.Error("a session that said bye was resumed")
		}
		if s := n.Stats(); s.Sessions != 2 {
			t.Errorf("%d sessions", s.Sessions)
		}
	})
}

// up and down record the session hooks.
type upDown struct{ up, down chan routing.SessionID }

func (u upDown) expect(t testing.TB, c chan routing.SessionID, want routing.SessionID) {
	t.Helper()
	select {
	case got := <-c:
		if got != want {
			t.Errorf("session %v, want %v", got, want)
		}
	case <-time.After(patience):
		t.Errorf("the hook was not called for %v", want)
	}
}

func TestSessionHooks(t *testing.T) {
	t.Parallel()
	u := upDown{make(chan routing.SessionID, 100), make(chan routing.SessionID, 100)}
	n := start(t, Config{Loops: 2, ResumeWindow: 300 * time.Millisecond, Hooks: Hooks{
		Authenticate: named("someone"),
		SessionUp: func(id routing.SessionID, identity string) {
			if identity != "someone" {
				t.Errorf("identity %q", identity)
			}
			u.up <- id
		},
		SessionDown: func(id routing.SessionID, identity string) {
			if identity != "someone" {
				t.Errorf("identity %q", identity)
			}
			u.down <- id
		},
	}})
	c := n.join("a")
	u.expect(t, u.up, c.sessionID())
	second := n.dial()
	second.hello(c.resume())
	c.nc.Close()
	second.alive()
	second.nc.Close() // now it is detached, and ends with its window
	u.expect(t, u.down, c.sessionID())

	d := n.join("a")
	u.expect(t, u.up, d.sessionID())
	d.write(codec.AppendBye(nil))
	d.ends()
	u.expect(t, u.down, d.sessionID())

	// One that leaves before welcome: what came up goes down.
	hasty := n.dial()
	hasty.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	hasty.nc.Close()
	select {
	case id := <-u.up:
		u.expect(t, u.down, id)
	case <-time.After(time.Second): // it never came up
	}
	e := n.join("a")
	u.expect(t, u.up, e.sessionID())
	n.settle()
	if len(u.up)+len(u.down) > 0 {
		t.Errorf("%d more ups, %d more downs", len(u.up), len(u.down))
	}
}

func TestAuthenticate(t *testing.T) {
	n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: func(ctx context.Context, l Login) (Identity, error) {
		if l.Remote.(*net.TCPAddr).Port == 0 || l.TLS != nil || ctx.Err() != nil {
			t.Errorf("remote %v, TLS %v, context %v", l.Remote, l.TLS, ctx.Err())
		}
		if string(l.Credentials) != "open sesame" {
			return Identity{}, errors.New("who is " + string(l.Credentials))
		}
		return Identity{Name: "ali"}, nil
	}}})
	c := n.dial()
	c.hello(codec.Hello{Credentials: []byte("open sesame")})
	if got := n.table.Session(c.sessionID()).Identity(); got != "ali" {
		t.Errorf("identity %q", got)
	}
	for _, cred := range []string{"kassim", "", strings.Repeat("k", 1000)} {
		bad := n.dial()
		bad.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1, Credentials: []byte(cred)}))
		want := "who is " + cred
		if e := bad.fails(codec.FaultUnauthenticated); e.Message != want[:min(len(want), codec.MaxReason)] {
			t.Errorf("message %q", e.Message)
		}
	}
	if s := n.counters(); s.Faults[codec.FaultUnauthenticated] != 3 || s.Sessions != 1 {
		t.Errorf("%v, %d sessions", s.Faults, s.Sessions)
	}
}

func TestBindHook(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{
		Authenticate: nameIsCredentials,
		Bind: func(identity, id string) error {
			if !strings.HasPrefix(id, identity) {
				return errors.New("not yours")
			}
			return nil
		},
	}})
	c := n.dial()
	c.hello(codec.Hello{Credentials: []byte("a.")})
	for i, r := range c.tryBind(codec.PolicyKickOld, withEpochs([]string{"a.1", "b.1", "", "a.2"})...) {
		if want := []codec.Code{codec.CodeOK, codec.CodeDenied, codec.CodeBadID, codec.CodeOK}[i]; r.Code != want {
			t.Errorf("%d: %v, want %v", i, r, want)
		}
	}
	c.hears(c.send("b.1", "a.1", "hi"), codec.CodeDenied)
	if code := c.lookupCode("b.1"); code != codec.CodeNoRoute {
		t.Errorf("%v", code)
	}
	c.exchange("a.1", c, "a.2")
}

func TestSendHook(t *testing.T) {
	acrossLoops(t, Config{Hooks: Hooks{
		Authenticate: named("x"),
		Send: func(identity string, m *codec.Send) codec.Code {
			if identity != "x" {
				return codec.CodeNoRoute
			}
			switch p := string(m.Payload); {
			case p == "deny":
				return codec.CodeDenied
			case p == "overflow":
				return codec.CodeOverflow
			case p == "nonsense":
				return codec.Code(200)
			case p == "acked":
				return codec.CodeAcked
			case p == "timeout":
				return codec.CodeTimeout
			}
			return codec.CodeOK
		},
	}}, func(t *testing.T, n *node, from, to *client) {
		for payload, code := range map[string]codec.Code{
			"deny": codec.CodeDenied, "overflow": codec.CodeOverflow,
			// What claims a delivery, or is no code at all, is a refusal.
			"nonsense": codec.CodeDenied, "acked": codec.CodeDenied, "timeout": codec.CodeDenied,
		} {
			if o := from.hears(from.send("from", "to", payload), code); len(o.Reason) == 0 {
				t.Errorf("%s: no reason", payload)
			}
			from.hears(from.post("from", "to", payload, codec.FlagReport), code)
			from.post("from", "to", payload, 0)
		}
		from.exchange("from", to, "to")
		to.silent()
	})
}

func TestAllowNoFrom(t *testing.T) {
	acrossLoops(t, Config{AllowNoFrom: true}, func(t *testing.T, n *node, from, to *client) {
		from.exchange("", to, "to")
		from.hears(from.send("to", "to", "hi"), codec.CodeDenied)
	})
}
