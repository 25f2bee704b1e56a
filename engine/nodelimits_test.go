package engine

import (
	"strings"
	"testing"

	"distmsg/codec"
)

// allowed sets limits that the test has changed.
func (n *node) allowed(l NodeLimits) {
	n.t.Helper()
	if err := n.SetLimits(l); err != nil {
		n.t.Fatal(err)
	}
	n.settle()
}

// New limits hold for connections that exist, and when they are gone again, the defaults do.
func TestLimitsChange(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{})}})
	c := n.as("greedy", "a")
	own := n.as("another", "b")
	flood := func(want string) {
		t.Helper()
		over, reason := c.flood("a", 50, 0)
		if name, _ := codec.ParseLimitReason(reason); name != want || (over > 0) != (want != "") {
			t.Errorf("%d were refused: %q, want the limit %q", over, reason, want)
		}
	}
	flood("")
	for name, limits := range map[string]NodeLimits{
		"connection-messages": {ConnMessages: Rate{1, 10}},
		"connection-bytes":    {ConnBytes: Rate{1, 10}},
		"identity-messages":   {IdentityLimits: Limits{Messages: Rate{1, 10}}},
		"identity-bytes":      {IdentityLimits: Limits{Bytes: Rate{1, 10}}},
	} {
		n.allowed(limits)
		flood(name)
		n.allowed(NodeLimits{})
		flood("")
	}
	n.allowed(NodeLimits{IdentityLimits: Limits{IDs: 1}})
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, codec.PolicyKickOld, withEpochs([]string{"c"})))
	var f codec.Results
	c.decoded(codec.DecodeResults(c.expect(codec.KindBound), codec.KindBound, &f))
	if why, _ := f.Reasons.Next(); string(why.Text) != "limit identity-ids" {
		t.Errorf("a bind ends with %q", why.Text)
	}
	n.allowed(NodeLimits{MaxSessionIDs: 2, IdentityLimits: Limits{Connections: 1}, MaxAddressConns: 3})
	own.bind("d")
	own.overMost("e", "max-session-ids")
	n.allowed(NodeLimits{MaxNodeIDs: 3, IdentityLimits: Limits{Connections: 1}, MaxAddressConns: 3})
	own.overMost("e", "max-node-ids")
	n.dial().refusedFor("identity-connections", codec.Hello{Credentials: []byte("greedy")})
	third := n.as("third")
	n.dial().refusedFor("address-connections", codec.Hello{Credentials: []byte("fourth")})
	third.watch.add(codec.CodeNoRoute, "x", "y")
	n.allowed(NodeLimits{MaxNodeWatched: 2})
	third.watch.add(codec.CodeOverflow, "z")
}

// overMost expects that a bind is refused because of a limit of the node.
func (c *client) overMost(id, want string) {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, codec.PolicyKickOld, withEpochs([]string{id})))
	var f codec.Results
	c.decoded(codec.DecodeResults(c.expect(codec.KindBound), codec.KindBound, &f))
	if why, _ := f.Reasons.Next(); !strings.Contains(string(why.Text), want) {
		c.t.Errorf("a bind of %q ends with %q, want %s", id, why.Text, want)
	}
}

// A lower limit of sends that wait, or of bytes, counts those that wait already.
func TestLimitsOfWhatWaitsChange(t *testing.T) {
	n := start(t, Config{Hooks: Hooks{Authenticate: limitedTo(Limits{})}})
	from, to := n.as("shop", "from"), n.as("another", "to")
	for range 3 {
		from.send("from", "to", "x")
		to.gets("from", "to", "x")
	}
	n.allowed(NodeLimits{IdentityLimits: Limits{InFlight: 3}})
	if o := from.hears(from.send("from", "to", "y"), codec.CodeOverflow); string(o.Reason) != "limit identity-in-flight" {
		t.Errorf("the reason is %q", o.Reason)
	}
	n.allowed(NodeLimits{IdentityLimits: Limits{InFlight: 4}})
	from.send("from", "to", "z")
	to.gets("from", "to", "z")
	if !to.canPend(1 << 30) {
		t.Error("there is a limit of bytes")
	}
	n.allowed(NodeLimits{IdentityLimits: Limits{PendingBytes: 8 << 20}})
	if to.canPend(9<<20) || !to.canPend(8<<20) {
		t.Error("the limit of bytes does not hold")
	}
}

func TestLimitsThatDoNotHold(t *testing.T) {
	n := start(t, Config{MaxSessionIDs: 5})
	for want, limits := range map[string]NodeLimits{
		"ConnMessages.Burst is 5, and PerSecond is not set": {ConnMessages: Rate{Burst: 5}},
		"IdentityLimits.Bytes.Burst is -1":                  {IdentityLimits: Limits{Bytes: Rate{1, -1}}},
		"MaxAddressConns is -1":                             {MaxAddressConns: -1},
		"MaxNodeIDs is -1":                                  {MaxNodeIDs: -1},
	} {
		limits.IdentityLimits.Connections = 1
		if err := n.SetLimits(limits); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", limits, err, want)
		}
	}
	if now := n.terms.Load(); now.identity.Connections != 0 {
		t.Errorf("limits have changed: %+v", now)
	}
}
