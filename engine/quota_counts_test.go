package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"distmsg/codec"
)

// counted tells how often an identity has reached a limit.
func (n *node) counted(identity, limit string) (times uint64) {
	n.t.Helper()
	for _, v := range n.counters().Limited {
		if v.Identity == identity && v.Limit == limit {
			times += v.Times
		}
	}
	return times
}

// refusedFor expects that a hello is refused because of a limit.
func (c *client) refusedFor(limit string, h codec.Hello) {
	c.t.Helper()
	h.MinVersion, h.MaxVersion = codec.Version, codec.Version
	c.write(codec.AppendHello(nil, &h))
	e := c.fails(codec.FaultGoingAway)
	if name, wait := codec.ParseLimitReason(e.Message); name != limit || wait == 0 {
		c.t.Errorf("refused with %q, want the limit %s", e.Message, limit)
	}
}

func TestConnectionsOfAnIdentity(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{Connections: 2})}})
	hello := codec.Hello{Credentials: []byte("shop")}
	first, second := n.as("shop"), n.as("shop")
	n.dial().refusedFor("identity-connections", hello)
	n.as("another").alive()
	// One that replaces those of its session needs no further place.
	again := n.dial()
	replace := second.resume()
	replace.Credentials, replace.Flags = hello.Credentials, codec.HelloReplace
	again.hello(replace)
	second.fails(codec.FaultReplaced)
	n.dial().refusedFor("identity-connections", hello)
	first.write(codec.AppendBye(nil))
	first.ends()
	n.as("shop").alive()
	again.alive()
	if times := n.counted("shop", "identity-connections"); times != 2 {
		t.Errorf("counted %d times", times)
	}
	n.eventually("the sessions of refused connections end", func() bool { return n.Stats().Sessions == 3 })
}

// A session within its resume window counts, and may be resumed.
func TestSessionsOfAnIdentity(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{Sessions: 2})}})
	hello := codec.Hello{Credentials: []byte("shop")}
	gone := n.as("shop")
	n.as("shop")
	gone.nc.Close()
	n.dial().refusedFor("identity-sessions", hello)
	back := gone.resume()
	back.Credentials = hello.Credentials
	again := n.dial()
	if w := again.hello(back); w.Flags&codec.WelcomeResumed == 0 {
		t.Error("not resumed")
	}
	again.write(codec.AppendBye(nil))
	again.ends()
	n.eventually("the session ends", func() bool { return n.Stats().Sessions == 1 })
	n.as("shop").alive()
}

func TestIDsOfAnIdentity(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{IDs: 5})}})
	a, b := n.as("shop", "1", "2", "3"), n.as("shop")
	b.seq++
	b.write(codec.AppendBind(nil, b.seq, codec.PolicyKickOld, withEpochs([]string{"4", "5", "6", "7"})))
	var f codec.Results
	b.decoded(codec.DecodeResults(b.expect(codec.KindBound), codec.KindBound, &f))
	var codes []codec.Code
	for r, ok := f.All.Next(); ok; r, ok = f.All.Next() {
		codes = append(codes, r.Code)
	}
	slices.Sort(codes) // the lanes bind in any order
	if want := []codec.Code{0, 0, codec.CodeOverflow, codec.CodeOverflow}; !slices.Equal(codes, want) {
		t.Errorf("%v, want %v", codes, want)
	}
	for why, ok := f.Reasons.Next(); ok; why, ok = f.Reasons.Next() {
		if name, wait := codec.ParseLimitReason(string(why.Text)); name != "identity-ids" || wait != 0 {
			t.Errorf("the reason is %q", why.Text)
		}
	}
	if times := n.counted("shop", "identity-ids"); times != 2 {
		t.Errorf("counted %d times", times)
	}
	n.as("another", "8", "9", "10", "11", "12")
	// What is free again can be bound.
	a.unbind("2", a.bind("2"))
	b.bind("8-of-shop")
}

// All connections of an identity share its watches. What one no longer watches is free again, also
// when its connection closes.
func TestWatchedIDsOfAnIdentity(t *testing.T) {
	n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: limitedTo(Limits{Watched: 5})}})
	a, b := n.as("shop"), n.as("shop")
	a.watch.add(codec.CodeNoRoute, "1", "2", "3")
	a.watch.add(codec.CodeNoRoute, "1") // it is watched already
	b.seq++
	b.write(codec.AppendWatch(nil, b.seq, rawIDs([]string{"1", "2", "3", "4"})))
	var f codec.Results
	b.decoded(codec.DecodeResults(b.expect(codec.KindWatched), codec.KindWatched, &f))
	for i, want := range []codec.Code{codec.CodeNoRoute, codec.CodeNoRoute, codec.CodeOverflow, codec.CodeOverflow} {
		if r, _ := f.All.Next(); r.Code != want {
			t.Errorf("ID %d: %v, want %v", i, r.Code, want)
		}
	}
	reasons := 0
	for why, ok := f.Reasons.Next(); ok; why, ok = f.Reasons.Next() {
		if name, wait := codec.ParseLimitReason(string(why.Text)); name != "identity-watched" || wait != 0 {
			t.Errorf("the reason is %q", why.Text)
		}
		reasons++
	}
	if times := n.counted("shop", "identity-watched"); times != 2 || reasons != 2 {
		t.Errorf("counted %d times, with %d reasons", times, reasons)
	}
	n.as("another").watch.add(codec.CodeNoRoute, "1", "2", "3", "4", "5")
	a.watch.remove("2")
	a.alive()
	b.watch.add(codec.CodeNoRoute, "3")
	b.watch.add(codec.CodeOverflow, "4")
	a.nc.Close()
	n.eventually("the watches of a closed connection are free", func() bool { return b.watch.tryAdd("4")[0].Code == codec.CodeNoRoute })
}

// Clients without a name do not share watches.
func TestNamelessWatchAlone(t *testing.T) {
	n := start(t, Config{IdentityLimits: Limits{Watched: 1}})
	for range 2 {
		n.as("").watch.add(codec.CodeNoRoute, "1", "2")
	}
}

// All connections of an identity share the places of sends that wait for an ack, on whatever loops
// they are. Each outcome frees one, and so does a connection that closes. Other sends need none.
func TestInFlightOfAnIdentity(t *testing.T) {
	n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: limitedTo(Limits{InFlight: 3})}})
	a, b, to := n.as("shop", "a"), n.as("shop", "b"), n.as("another", "to")
	over := func(c *client, seq uint64) {
		t.Helper()
		if name, wait := codec.ParseLimitReason(string(c.hears(seq, codec.CodeOverflow).Reason)); name != "identity-in-flight" || wait != 0 {
			t.Errorf("limit %q, %d ms", name, wait)
		}
	}
	var seqs []uint64
	for range 3 {
		seqs = append(seqs, a.send("a", "to", "1"))
	}
	var last codec.Deliver
	for range 3 {
		last = to.gets("a", "to", "1")
	}
	over(b, b.send("b", "to", "2"))
	over(a, a.send("a", "to", "2"))
	b.post("b", "to", "plain", 0)
	to.gets("b", "to", "plain")
	to.ack(last, "")
	a.hears(seqs[2], codec.CodeAcked)
	b.hears(b.send("b", "nobody", "3"), codec.CodeNoRoute) // it frees its place at once
	a.hears(a.send("a", "nobody", "3"), codec.CodeNoRoute)
	first := b.send("b", "to", "4")
	last = to.gets("b", "to", "4")
	over(b, b.send("b", "to", "5"))
	a.nc.Close()
	n.eventually("the places of a closed connection are free", func() bool {
		b.send("b", "nobody", "6")
		return b.outcome().Code == codec.CodeNoRoute
	})
	to.ack(last, "")
	b.hears(first, codec.CodeAcked)
	if times := n.counted("shop", "identity-in-flight"); times < 3 {
		t.Errorf("counted %d times", times)
	}
}

// A multicast takes as many places as are left. Welcome announces no more than the identity has.
func TestMulticastInFlightOfAnIdentity(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{InFlight: 3})}})
	from := n.dial()
	w := from.hello(codec.Hello{Credentials: []byte("shop"), Features: codec.FeatureMulticast})
	if w.Limits.MaxInFlight != 3 {
		t.Errorf("welcome announces %d", w.Limits.MaxInFlight)
	}
	to := n.joinMany("to")
	from.bind("from")
	for range 2 { // the places are free again
		first := from.multicast("from", "x", codec.FlagAck, "to", "to", "to", "to", "to")
		m := to.getsMany("from", "x")
		to.ackAll(m)
		all, _ := from.tells(5)
		for seq := first + 3; seq < first+5; seq++ {
			if name, _ := codec.ParseLimitReason(string(all[seq].Reason)); all[seq].Code != codec.CodeOverflow || name != "identity-in-flight" {
				t.Errorf("send %d: %+v", seq-first, all[seq])
			}
		}
		if len(m.all) != 3 {
			t.Errorf("%d were delivered", len(m.all))
		}
	}
}

func TestHandshakesOfAnAddress(t *testing.T) {
	const burst, slack, tries = 5, 20, 40
	n := start(t, Config{AddressHandshakes: Rate{1, burst}, HelloTimeout: 100 * time.Millisecond})
	var all []*client
	for range tries {
		all = append(all, n.dial())
	}
	refused := 0
	for _, c := range all { // those that get in say no hello
		var e codec.ErrorFrame
		c.decoded(codec.DecodeError(c.expect(codec.KindError), &e))
		if name, wait := codec.ParseLimitReason(e.Message); name == "address-handshakes" && wait > 0 && e.Fault == codec.FaultGoingAway {
			refused++
		} else if e.Fault != codec.FaultHelloTimeout {
			t.Errorf("%+v", e)
		}
	}
	if refused > tries-burst || refused < tries-burst-slack {
		t.Errorf("%d of %d were turned away", refused, tries)
	}
	if counted := n.counted("", "address-handshakes"); counted != uint64(refused) {
		t.Errorf("%d were turned away, %d are counted", refused, counted)
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	n := start(t, Config{MaxAddressConns: 3})
	for i := range 3 {
		n.join(fmt.Sprint(i))
	}
	n.dial().refusedFor("address-connections", codec.Hello{})
	if counted := n.counted("", "address-connections"); counted != 1 {
		t.Errorf("%d are counted", counted)
	}
	other := n.helloFrom("127.0.0.2")
	other.expect(codec.KindWelcome)
}
