package engine

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"distmsg/codec"
)

// limitedTo is a hook that gives every client its credentials as a name, and those limits.
func limitedTo(l Limits) func(context.Context, Login) (Identity, error) {
	return func(_ context.Context, login Login) (Identity, error) {
		return Identity{Name: string(login.Credentials), Limits: l}, nil
	}
}

// as joins as an identity.
func (n *node) as(name string, ids ...string) *client {
	n.t.Helper()
	c := n.dial()
	c.hello(codec.Hello{Credentials: []byte(name)})
	if len(ids) > 0 {
		c.bind(ids...)
	}
	return c
}

// flood sends n messages to nobody in one write, and returns how many were over a limit, and the
// last reason.
func (c *client) flood(from string, n, size int) (over int, reason string) {
	c.t.Helper()
	var b []byte
	for range n {
		c.seq++
		b = codec.AppendSend(b, &codec.Send{Seq: c.seq, From: []byte(from), To: []byte("nobody"), Flags: codec.FlagAck, Payload: make([]byte, size)})
	}
	c.write(b)
	all, _ := c.tells(n)
	for _, o := range all {
		if o.Code == codec.CodeOverflow {
			over, reason = over+1, string(o.Reason)
		}
	}
	return over, reason
}

// Each case sends more than a rate allows. The clock may add a little meanwhile.
func TestRatesOfSends(t *testing.T) {
	const sent, slack = 100, 20
	frame := len(codec.AppendSend(nil, &codec.Send{Seq: 1 << 10, From: []byte("a"), To: []byte("nobody"), Flags: codec.FlagAck, Payload: make([]byte, 1000)}))
	for name, tc := range map[string]struct {
		cfg    Config
		limits Limits
		passes int
	}{
		"connection-messages": {cfg: Config{ConnMessages: Rate{1, 10}}, passes: 10},
		"connection-bytes":    {cfg: Config{ConnBytes: Rate{100, int64(30 * frame)}}, passes: 30},
		"identity-messages":   {limits: Limits{Messages: Rate{1, 10}}, passes: 10},
		"identity-bytes":      {limits: Limits{Bytes: Rate{100, int64(20 * frame)}}, passes: 20},
	} {
		t.Run(name, func(t *testing.T) {
			tc.cfg.Hooks.Authenticate = limitedTo(tc.limits)
			n := start(t, tc.cfg)
			other := n.as("other", "b")
			c := n.as("greedy", "a")
			over, reason := c.flood("a", sent, 1000)
			if over > sent-tc.passes || over < sent-tc.passes-slack {
				t.Errorf("%d of %d were refused, %d may pass", over, sent, tc.passes)
			}
			if limit, wait := codec.ParseLimitReason(reason); limit != name || wait == 0 || wait > longestWait {
				t.Errorf("the reason is %q", reason)
			}
			if over, reason := other.flood("b", 1, 1000); over > 0 {
				t.Errorf("another identity hears %q", reason)
			}
			if want := (Limited{Identity: "greedy", Limit: name, Times: uint64(over)}); !slices.Contains(n.counters().Limited, want) {
				t.Errorf("stats say %+v, want %+v", n.counters().Limited, want)
			}
		})
	}
}

// All connections of an identity share its rate, on whatever loops they are.
func TestIdentitySharesItsRate(t *testing.T) {
	const sent, burst, slack = 50, 20, 20
	n := start(t, Config{Loops: 2, Hooks: Hooks{Authenticate: limitedTo(Limits{Messages: Rate{1, burst}})}})
	passed := 0
	for i := range 4 {
		id := string(rune('a' + i))
		over, _ := n.as("greedy", id).flood(id, sent, 0)
		passed += sent - over
	}
	if passed < burst || passed > burst+slack {
		t.Errorf("%d messages passed, %d may", passed, burst)
	}
}

// Clients without a name do not share a rate.
func TestNamelessShareNothing(t *testing.T) {
	n := start(t, Config{IdentityLimits: Limits{Messages: Rate{1, 1}}})
	for _, id := range []string{"a", "b"} {
		if over, reason := n.as("", id).flood(id, 20, 0); over > 0 {
			t.Errorf("%d refused: %q", over, reason)
		}
	}
}

// A multicast uses as many messages as it has recipients. It passes whole, and the next one waits.
func TestMulticastUsesItsRecipients(t *testing.T) {
	n := start(t, Config{ConnMessages: Rate{1, 10}})
	from := n.joinMany("from")
	to := make([]string, 300)
	for i := range to {
		to[i] = "nobody"
	}
	for i, want := range []codec.Code{codec.CodeNoRoute, codec.CodeOverflow} {
		first := from.multicast("from", "x", codec.FlagAck, to...)
		all, _ := from.tells(len(to))
		for seq := range uint64(len(to)) {
			o := all[first+seq]
			if o.Code != want {
				t.Fatalf("multicast %d: send %d: %+v", i, seq, o)
			}
			if limit, wait := codec.ParseLimitReason(string(o.Reason)); want == codec.CodeOverflow && (limit != "connection-messages" || wait < 200_000 && wait != longestWait) {
				t.Fatalf("the reason is %q", o.Reason)
			}
		}
	}
	if over := n.counters().Outcomes[codec.CodeOverflow]; over != uint64(len(to)) {
		t.Errorf("%d overflows are counted", over)
	}
}

// A client that retries after the time that the node has named gets through.
func TestComingBackInTime(t *testing.T) {
	n := start(t, Config{ConnMessages: Rate{20, 1}})
	c := n.join("a")
	if over, _ := c.flood("a", 20, 0); over == 0 {
		t.Fatal("nothing was refused")
	}
	for range 3 {
		_, reason := c.flood("a", 20, 0)
		_, wait := codec.ParseLimitReason(reason)
		n.eventually("the time that the node named", func() bool {
			over, again := c.flood("a", 1, 0)
			_, left := codec.ParseLimitReason(again)
			if over > 0 && left > wait {
				t.Fatalf("the wait was %d ms, and is %d ms now", wait, left)
			}
			return over == 0
		})
	}
}

func TestRatesOfLookups(t *testing.T) {
	for name, cfg := range map[string]Config{
		"connection-lookups": {ConnLookups: Rate{1, 10}},
		"identity-lookups":   {IdentityLimits: Limits{Lookups: Rate{1, 10}}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Hooks.Authenticate = limitedTo(Limits{})
			n := start(t, cfg)
			c := n.as("greedy")
			ids := slices.Repeat([]string{"nobody"}, 100)
			if r := c.lookup(ids...); r[99].Code != codec.CodeNoRoute {
				t.Errorf("the first lookup: %+v", r[99])
			}
			c.seq++
			c.write(codec.AppendLookup(nil, c.seq, [][]byte{[]byte("nobody")}))
			var f codec.Results
			c.decoded(codec.DecodeResults(c.expect(codec.KindFound), codec.KindFound, &f))
			r, _ := f.All.Next()
			why, _ := f.Reasons.Next()
			if limit, wait := codec.ParseLimitReason(string(why.Text)); r.Code != codec.CodeOverflow || limit != name || wait == 0 {
				t.Errorf("the second one: %v %q", r.Code, why.Text)
			}
		})
	}
}

// A message that is refused costs no allocation either.
func TestRefusedSendAllocatesNothing(t *testing.T) {
	n := start(t, Config{Loops: 1, ConnMessages: Rate{1, 1}})
	c := n.join("a")
	c.flood("a", 5, 0)
	body := codec.AppendSend(nil, &codec.Send{Seq: 1 << 20, From: []byte("a"), To: []byte("nobody"), Payload: bytes.Repeat([]byte{1}, 100)})[codec.PrefixLen:]
	h := n.table.Session(c.sessionID()).Handles()[0]
	n.on(0, func(l *loop) {
		sender := &l.conn(h).sender
		before := l.stats.outcomes[codec.CodeOverflow]
		if allocs := testing.AllocsPerRun(100, func() { sender.handle(body) }); allocs > 0 {
			t.Errorf("%v allocations", allocs)
		}
		if l.stats.outcomes[codec.CodeOverflow] == before {
			t.Error("nothing was refused")
		}
	})
}
