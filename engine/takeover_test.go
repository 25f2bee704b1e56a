package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/internal/proc"
	"distmsg/routing/redis"
)

// ask writes a bind and returns its seq.
func (c *client) ask(ids ...string) uint64 {
	c.t.Helper()
	c.seq++
	c.write(codec.AppendBind(nil, c.seq, codec.PolicyKickOld, withEpochs(ids)))
	return c.seq
}

// answered is the answer to a bind.
type answered struct {
	seq    uint64
	code   codec.Code // of its first ID
	reason string
}

// nextBound passes over what is not bound. Any goroutine may call it.
func (c *client) nextBound() (a answered, err error) {
	for {
		f, err := c.read()
		if err != nil || f.kind != codec.KindBound {
			if err != nil {
				return a, err
			}
			continue
		}
		var b codec.Results
		if err := codec.DecodeResults(f.body, codec.KindBound, &b); err != nil {
			return a, err
		}
		r, _ := b.All.Next()
		a.seq, a.code = b.Seq, r.Code
		if reason, ok := b.Reasons.Next(); ok {
			a.reason = string(reason.Text)
		}
		return a, nil
	}
}

// binds binds one ID and returns the answer.
func (c *client) binds(id string) answered {
	c.t.Helper()
	seq := c.ask(id)
	a, err := c.nextBound()
	if err != nil || a.seq != seq {
		c.t.Fatalf("bound %+v (%v), want seq %d", a, err, seq)
	}
	return a
}

// startPair starts nodes, two of them with a real Redis, and returns a client of each, or two of
// one.
func startPair(t *testing.T, nodes int, change func(*Config)) (a, b *client) {
	t.Helper()
	if nodes == 1 {
		var cfg Config
		change(&cfg)
		n := start(t, cfg)
		return n.join(), n.join()
	}
	long(t)
	server, err := proc.StartRedis(t.Context(), proc.RedisOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	g := startGroupWith(t, nodes, 1, func(cfg *Config) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		registry, err := redis.Open(ctx, redis.Config{URL: server.URL(), RebuildWindow: time.Millisecond, Logger: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { registry.Close() })
		cfg.Registry = registry
		change(cfg)
	})
	return g.nodes[0].join(), g.nodes[1].join()
}

// onPairs runs a test with two clients of one node, and with clients of two nodes and a real Redis.
func onPairs(t *testing.T, change func(*Config), test func(t *testing.T, a, b *client)) {
	for nodes := 1; nodes <= 2; nodes++ {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			a, b := startPair(t, nodes, change)
			test(t, a, b)
		})
	}
}

// inLaneOf is IDs that share a lane with another.
func (n *node) inLaneOf(id string, count int) (ids []string) {
	for i := 0; len(ids) < count; i++ {
		if next := fmt.Sprint("same lane ", i); n.dir.Probe().LaneOf(next) == n.dir.Probe().LaneOf(id) {
			ids = append(ids, next)
		}
	}
	return ids
}

// fight has a client bind one ID as fast as it can.
func (c *client) fight(id string, until time.Time) error {
	for time.Now().Before(until) {
		seq := c.ask(id)
		a, err := c.nextBound()
		if err != nil {
			return err
		}
		if a.seq != seq || a.code != codec.CodeOK && a.code != codec.CodeOverflow {
			return fmt.Errorf("%+v in answer to %d", a, seq)
		}
	}
	return nil
}

// Two sessions that take one ID from each other do so as often as it may change hands, and no more.
func TestFightOverAnID(t *testing.T) {
	const interval, burst = 100 * time.Millisecond, 4
	change := func(c *Config) { c.TakeoverInterval, c.TakeoverBurst = interval, burst }
	onPairs(t, change, func(t *testing.T, a, b *client) {
		began := time.Now()
		ended := make(chan error, 2)
		for _, c := range []*client{a, b} {
			go func() { ended <- c.fight("contested", began.Add(1200*time.Millisecond)) }()
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		}
		took := a.n.Stats().Takeovers
		delayed := a.n.Stats().TakeoversDelayed
		if a.n != b.n {
			took, delayed = took+b.n.Stats().Takeovers, delayed+b.n.Stats().TakeoversDelayed
		}
		// Beyond what has become due, each session may have one bind that is under way.
		if most := burst + uint64(time.Since(began)/interval) + 4; took > most {
			t.Errorf("%d takeovers in %v, at most %d were due", took, time.Since(began), most)
		}
		if took == 0 || delayed == 0 {
			t.Errorf("%d takeovers, %d had to wait", took, delayed)
		}
	})
}

// A bind that waits for its time holds up nobody: not its connection's other requests, and not
// other connections'.
func TestOthersPassALateBind(t *testing.T) {
	change := func(c *Config) { c.TakeoverInterval, c.TakeoverBurst = time.Second, 1 }
	onPairs(t, change, func(t *testing.T, a, b *client) {
		a.bind("x")
		epoch := b.bind("x")
		a.kicked("x", epoch) // so its node has heard of the takeover
		another := a.n.join()
		late := a.ask("x")
		same := a.n.inLaneOf("x", 4)
		for _, id := range same {
			a.ask(id)
		}
		another.bind(same[0] + "'s")
		for _, id := range same {
			if got, err := a.nextBound(); err != nil || got.seq == late || got.code != codec.CodeOK {
				t.Fatalf("bound %+v (%v), want ok for %s", got, err, id)
			}
		}
		if got := another.binds(same[1]); got.code != codec.CodeOK {
			t.Errorf("another connection: %+v", got)
		}
		if r := b.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, epoch)...)[0]; r.Code != codec.CodeOK {
			t.Errorf("re-assert: %v", r)
		}
		got, err := a.nextBound()
		if err != nil || got.seq != late || got.code != codec.CodeOK {
			t.Errorf("bound %+v (%v), want ok for %d", got, err, late)
		}
	})
}

// Beyond what it would be worth to wait for, a bind is refused, and the reason says why.
func TestTakeoverIsRefused(t *testing.T) {
	change := func(c *Config) { c.TakeoverInterval, c.TakeoverBurst = time.Minute, 2 }
	onPairs(t, change, func(t *testing.T, a, b *client) {
		a.bind("x")
		a.kicked("x", b.bind("x"))
		epoch := a.bind("x")
		b.kicked("x", epoch)
		got := b.binds("x")
		if got.code != codec.CodeOverflow || !strings.Contains(got.reason, "takeover-interval") {
			t.Errorf("%+v", got)
		}
		if got := a.binds("x"); got.code != codec.CodeOverflow { // whoever holds it
			t.Errorf("%+v", got)
		}
		refused := a.n.Stats().TakeoversRefused
		if a.n != b.n {
			refused += b.n.Stats().TakeoversRefused
		}
		if s := b.n.Stats(); refused != 2 || s.TakeoversDelayed != 0 {
			t.Errorf("%d were refused, %d waited", refused, s.TakeoversDelayed)
		}
		if got := b.binds("y"); got.code != codec.CodeOK {
			t.Errorf("another ID: %+v", got)
		}
		for range 20 { // who holds it may say so
			if r := a.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, epoch)...)[0]; r.Code != codec.CodeOK {
				t.Errorf("re-assert: %v", r)
			}
		}
		if r := b.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x"})...)[0]; r.Code != codec.CodeTaken {
			t.Errorf("reject-new: %v", r)
		}
	})
}

// Each session has one of the times at which an ID may be taken, however many binds it asks for.
// And if it goes away, nobody waits in its place.
func TestTurnsToTakeAnIDAreShared(t *testing.T) {
	n := start(t, Config{TakeoverInterval: 500 * time.Millisecond, TakeoverBurst: 1})
	n.join("x")
	b, greedy, other := n.join(), n.join(), n.join()
	b.bind("x")
	before := n.dir.Probe().Owes("x")
	for range 50 {
		greedy.ask("x")
	}
	n.eventually("all wait", func() bool { return n.Stats().TakeoversDelayed == 50 })
	if got := n.dir.Probe().Owes("x") - before; got != n.cfg.TakeoverInterval {
		t.Errorf("the 50 binds of one session are counted as %v", got)
	}
	if got := other.binds("x"); got.code != codec.CodeOK {
		t.Errorf("another session: %+v", got)
	}
	gone := n.join()
	before = n.dir.Probe().Owes("x")
	gone.ask("x")
	n.eventually("it waits", func() bool { return n.dir.Probe().Owes("x") > before })
	gone.nc.Close()
	n.eventually("it is paid back", func() bool { return n.dir.Probe().Owes("x") == before })
}

// A bind that waits ends with the engine.
func TestStopWithLateBinds(t *testing.T) {
	n := start(t, Config{TakeoverInterval: time.Second, TakeoverBurst: 1})
	a := n.join("x")
	n.join().bind("x")
	a.ask("x")
	n.eventually("it waits", func() bool { return n.Stats().TakeoversDelayed == 1 })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if n.dir.Asked() != 0 || n.dir.Probe().LateBinds() != 0 {
		t.Errorf("%d bytes of requests are under way, %d binds wait", n.dir.Asked(), n.dir.Probe().LateBinds())
	}
}
