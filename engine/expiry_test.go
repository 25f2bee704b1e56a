package engine

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
)

// relogin waits until the node asks for another login.
func (c *client) relogin() (within uint64, reason string) {
	c.t.Helper()
	within, text, err := codec.DecodeRelogin(c.expect(codec.KindRelogin))
	c.decoded(err)
	return within, string(text)
}

// A client hears that its rights have ended, continues for the grace period, and is closed.
func TestExpiry(t *testing.T) {
	long(t)
	t.Parallel()
	const life, grace = 3 * time.Second, 3 * time.Second
	cfg, change := only("a")
	cfg.ExpiryGrace = grace
	n := start(t, cfg)
	bystander := n.join()
	ends := time.Now().Add(life)
	change(Identity{Name: "alice", Expires: ends})
	c := n.join("a")
	other := n.dial() // another connection of the session
	other.hello(c.resume())
	within, reason := c.relogin()
	told := time.Now()
	if told.Before(ends.Add(-time.Second)) || within != uint64(grace.Milliseconds()) || reason != detailExpired {
		t.Errorf("after %v: %d, %q", told.Sub(ends), within, reason)
	}
	other.relogin()
	c.alive()
	if e := c.fails(codec.FaultUnauthenticated); time.Since(ends) < grace-time.Second {
		t.Errorf("closed %v after the end: %+v", time.Since(ends), e)
	}
	other.fails(codec.FaultUnauthenticated)
	bystander.alive()
	if s := n.counters(); s.LoginsEnded != 2 || s.LoginsCut != 2 || s.Connections != 1 {
		t.Errorf("%d ended, %d cut, %d connections", s.LoginsEnded, s.LoginsCut, s.Connections)
	}
	late := n.dial() // the hook still gives out what has expired
	late.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	late.fails(codec.FaultUnauthenticated)
	for _, l := range n.loops {
		if len(l.expiries.order) != 0 {
			t.Errorf("%d terms are left", len(l.expiries.order))
		}
	}
}

// A client that logs in again in time keeps its session, and its messages continue.
func TestLoginAgain(t *testing.T) {
	cfg, change := only()
	n := start(t, cfg)
	change(Identity{Name: "alice"})
	old := n.join("a")
	change(Identity{Name: "bob"})
	bob := n.join("b")
	n.Revoke("nobody", "alice")
	n.Revoke()
	if within, reason := old.relogin(); within != 10_000 || reason != detailRevoked {
		t.Errorf("%d, %q", within, reason)
	}
	n.Revoke("alice") // once is enough
	change(Identity{Name: "alice", IDs: []string{"a"}})
	c := n.dial()
	if w := c.hello(old.resume()); w.Flags&codec.WelcomeResumed == 0 {
		t.Error("not resumed")
	}
	old.write(codec.AppendLeave(nil))
	old.expect(codec.KindLeft)
	old.nc.Close()
	bob.exchange("b", c, "a")
	bob.alive()
	if s := n.counters(); s.LoginsEnded != 1 || s.LoginsCut != 0 {
		t.Errorf("%d ended, %d cut", s.LoginsEnded, s.LoginsCut)
	}
}

// A login that the hook has granted just before its name was revoked does not count.
func TestRevokeWhileJoining(t *testing.T) {
	entered, answer := make(chan struct{}), make(chan struct{})
	var names sync.Map
	var first atomic.Bool
	n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: func(_ context.Context, l Login) (Identity, error) {
		names.Store(string(l.Credentials), true)
		if first.CompareAndSwap(false, true) {
			entered <- struct{}{}
			<-answer
		}
		return Identity{Name: string(l.Credentials)}, nil
	}}})
	c := n.dial()
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1, Credentials: []byte("alice")}))
	<-entered
	n.Revoke("bob")
	n.Revoke("alice")
	n.settleLoops()
	close(answer)
	c.fails(codec.FaultGoingAway)
	again := n.dial()
	again.hello(codec.Hello{Credentials: []byte("alice")})
	again.alive()
	n.settle()
	if got := len(n.table.Sessions()); got != 1 {
		n.eventually("the session that nobody joined is over", func() bool { return len(n.table.Sessions()) == 1 })
	}
}

// Many logins that end at once are handled in slices.
func TestRevokeMany(t *testing.T) {
	long(t)
	n := start(t, Config{Loops: 1, Hooks: Hooks{Authenticate: named("all")}, ExpiryGrace: time.Millisecond})
	var all []*client
	for range 300 {
		all = append(all, n.join())
	}
	n.Revoke("all")
	for _, c := range all {
		c.relogin()
		c.fails(codec.FaultUnauthenticated)
	}
	if s := n.counters(); s.LoginsEnded != 300 || s.LoginsCut != 300 {
		t.Errorf("%d ended, %d cut", s.LoginsEnded, s.LoginsCut)
	}
}
