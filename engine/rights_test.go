package engine

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// with returns an Authenticate hook that gives everyone what id holds at the time.
func with(id *atomic.Pointer[Identity]) func(context.Context, Login) (Identity, error) {
	return func(context.Context, Login) (Identity, error) { return *id.Load(), nil }
}

// only returns a Config in which everyone is alice and may bind only those IDs, and a function that
// changes what she may do.
func only(ids ...string) (cfg Config, change func(Identity)) {
	var now atomic.Pointer[Identity]
	now.Store(&Identity{Name: "alice", IDs: ids})
	return Config{Loops: 2, Hooks: Hooks{Authenticate: with(&now)}}, func(id Identity) { now.Store(&id) }
}

// A client binds only what its patterns allow, one ID at a time, and sends only from what it has
// bound.
func TestBindPatterns(t *testing.T) {
	cfg, _ := only("a-*", "bob")
	n := start(t, cfg)
	c := n.join()
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, codec.PolicyKickOld, withEpochs([]string{"a-1", "carol", "bob", "bobby", ""})))
	var f codec.Results
	c.decoded(codec.DecodeResults(c.expect(codec.KindBound), codec.KindBound, &f))
	var codes []codec.Code
	for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
		codes = append(codes, v.Code)
	}
	if want := []codec.Code{codec.CodeOK, codec.CodeDenied, codec.CodeOK, codec.CodeDenied, codec.CodeBadID}; !slices.Equal(codes, want) {
		t.Errorf("%v", codes)
	}
	reasons := 0
	for v, ok := f.Reasons.Next(); ok; v, ok = f.Reasons.Next() {
		reasons++
		if got := string(v.Text); got != `the identity "alice" may bind only these IDs: a-*, bob` {
			t.Errorf("%q", got)
		}
	}
	if reasons != 2 {
		t.Errorf("%d reasons", reasons)
	}
	c.hears(c.send("carol", "a-1", "x"), codec.CodeDenied)
	c.hears(c.send("", "a-1", "x"), codec.CodeDenied)
	c.exchange("bob", c, "a-1")
	if s := n.counters(); s.IDs != 2 {
		t.Errorf("%d IDs", s.IDs)
	}
}

// Whoever may send from no ID may do so whatever it may bind, and a multicast is no way round.
func TestNoFromAndMulticast(t *testing.T) {
	cfg, _ := only("a")
	cfg.AllowNoFrom = true
	n := start(t, cfg)
	c := n.join("a")
	c.exchange("", c, "a")
	c.write(codec.AppendMulticast(nil, &codec.Multicast{Seq: 100, From: []byte("b"), Flags: codec.FlagAck, Payload: []byte("x")}, [][]byte{[]byte("a")}))
	c.hears(100, codec.CodeDenied)
}

func TestNoLookupNoWatch(t *testing.T) {
	cfg, change := only()
	n := start(t, cfg)
	change(Identity{Name: "alice", NoLookup: true})
	noLookup := n.join("a")
	change(Identity{Name: "bob", NoWatch: true})
	noWatch := n.join("b")
	if got := noLookup.lookupCode("a"); got != codec.CodeDenied {
		t.Error(got)
	}
	if got := noWatch.lookupCode("a"); got != codec.CodeOK {
		t.Error(got)
	}
	for c, want := range map[*client]codec.Code{noLookup: codec.CodeOK, noWatch: codec.CodeDenied} {
		c.seq++
		c.write(codec.AppendWatch(nil, c.seq, [][]byte{[]byte("a")}))
		if got := c.requested(codec.KindWatched)[0].Code; got != want {
			t.Error(got)
		}
	}
	if s := n.counters(); s.Watched != 1 {
		t.Errorf("%d watched", s.Watched)
	}
	noWatch.exchange("b", noLookup, "a")
	if got := n.dir.Asked(); got != 0 {
		t.Errorf("%d bytes of requests are left", got)
	}
}

// A session in the same process has the rights of its Dialer.
func TestDialerRights(t *testing.T) {
	n := start(t, Config{})
	dial := n.DialerAs(Identity{Name: "alice", IDs: []string{"a"}, NoLookup: true})
	nc, err := dial(t.Context(), InProcessAddr)
	if err != nil {
		t.Fatal(err)
	}
	c := clientOn(t, n, nc)
	c.hello(codec.Hello{})
	c.bind("a")
	if got := c.tryBind(codec.PolicyKickOld, codec.IDEpoch{ID: []byte("b")})[0].Code; got != codec.CodeDenied {
		t.Error(got)
	}
	if got := c.lookupCode("a"); got != codec.CodeDenied {
		t.Error(got)
	}
	if _, err := n.DialerAs(Identity{Name: "bob", IDs: []string{""}})(t.Context(), InProcessAddr); err == nil || !strings.Contains(err.Error(), `"bob"`) {
		t.Error(err)
	}
}

// A hook that returns patterns that no ID can match lets nobody in.
func TestInvalidPatterns(t *testing.T) {
	cfg, _ := only("a", "")
	n := start(t, cfg)
	c := n.dial()
	c.write(codec.AppendHello(nil, &codec.Hello{MinVersion: 1, MaxVersion: 1}))
	c.fails(codec.FaultInternal)
}

// A resumed session keeps only what its new login allows. The registry forgets the rest, and the
// client hears of it when it asserts what it has.
func TestResumeWithLess(t *testing.T) {
	registry := routing.NewMemory(routing.MemoryConfig{})
	cfg, change := only("a*", "b*")
	cfg.Registry = registry
	n := start(t, cfg)
	old := n.join()
	epochs := map[string]uint64{}
	for _, id := range []string{"a1", "b1", "b2"} {
		epochs[id] = old.bind(id)
	}
	change(Identity{Name: "alice", IDs: []string{"a*"}})
	c := n.dial()
	if w := c.hello(old.resume()); w.Flags&codec.WelcomeResumed == 0 {
		t.Fatal("not resumed")
	}
	c.expect(codec.KindReassert)
	n.settle()
	found, err := registry.Lookup(t.Context(), []string{"a1", "b1", "b2"})
	if err != nil || found[0].Binding.Epoch != epochs["a1"] || found[1].Binding.Epoch != 0 || found[2].Binding.Epoch != 0 {
		t.Errorf("%+v, %v", found, err)
	}
	c.hears(c.send("b1", "a1", "x"), codec.CodeDenied)
	asserted := c.tryBind(codec.PolicyKickOld, withEpochs([]string{"a1", "b1", "b2"}, epochs["a1"], epochs["b1"], epochs["b2"])...)
	for i, want := range []codec.Code{codec.CodeOK, codec.CodeDenied, codec.CodeDenied} {
		if asserted[i].Code != want {
			t.Errorf("%d: %v", i, asserted[i].Code)
		}
	}
	other := n.join("a2")
	other.hears(other.send("a2", "b1", "x"), codec.CodeNoRoute)
	// With as many rights as before, nothing is asked of the client.
	again := n.dial()
	again.hello(old.resume())
	again.alive()
}

// A node that has never heard of a binding removes it when the session asserts it without the right
// to. It removes nothing that others hold.
func TestAssertWithout(t *testing.T) {
	cfg, change := only()
	change(Identity{Name: "alice", IDs: []string{"a*"}})
	g := startGroupWith(t, 2, 1, func(c *Config) { c.Hooks = cfg.Hooks })
	c := g.nodes[0].join()
	change(Identity{Name: "alice"})
	wide := g.nodes[1].dial()
	wide.hello(c.resume())
	epoch := wide.bind("b1")
	bob := g.nodes[1].join()
	bobs := bob.bind("b2")
	for i, r := range c.tryBind(codec.PolicyKickOld, withEpochs([]string{"b1", "b2", "b3"}, epoch, bobs, epoch)...) {
		if r.Code != codec.CodeDenied {
			t.Errorf("%d: %v", i, r.Code)
		}
	}
	g.nodes[1].eventually("b1 is free", func() bool { return bob.lookupCode("b1") == codec.CodeNoRoute })
	if got := bob.lookupCode("b2"); got != codec.CodeOK {
		t.Error(got)
	}
	wide.hears(wide.send("b1", "b2", "x"), codec.CodeDenied)
}

// Limits that would hold for nothing, or refuse everything, are an error wherever they come from.
func TestLimitsAreChecked(t *testing.T) {
	for _, c := range []struct {
		rate Rate
		want string
	}{
		{Rate{Burst: 5}, "Messages.Burst is 5, and PerSecond is not set"},
		{Rate{PerSecond: 100, Burst: -1}, "Messages.Burst is -1, want at least 0"},
	} {
		limits := Limits{Messages: c.rate}
		if _, err := New(Config{IdentityLimits: limits}); err == nil || !strings.Contains(err.Error(), "IdentityLimits."+c.want) {
			t.Errorf("New: %v, want %s", err, c.want)
		}
		if _, err := New(Config{ConnMessages: c.rate}); err == nil || !strings.Contains(err.Error(), "Conn"+c.want) {
			t.Errorf("New: %v, want %s", err, c.want)
		}
		if _, err := newLogin(Identity{Name: "alice", Limits: limits}); err == nil || err.Error() != `the limits of "alice": `+c.want {
			t.Errorf("a login: %v, want %s", err, c.want)
		}
	}
}

// A node keeps its secrets when the caller overwrites those that it gave.
func TestSecretsAreCopied(t *testing.T) {
	e, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	secret := []byte("a secret of enough bytes")
	if err := e.SetSecrets(Secrets{Resume: [][]byte{secret}}); err != nil {
		t.Fatal(err)
	}
	clear(secret)
	if got := string(e.secrets.resume.First()); got != "a secret of enough bytes" {
		t.Errorf("%q", got)
	}
}
