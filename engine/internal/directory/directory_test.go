package directory

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// nobody is loops and links of a node without connections.
type nobody struct{}

func (nobody) Kick([]routing.Handle, string, uint64)                  {}
func (nobody) Close([]routing.Handle, codec.Fault, string)            {}
func (nobody) CloseAside(routing.SessionID, codec.Fault, string)      {}
func (nobody) Answer(*Request)                                        {}
func (nobody) Resolved(int, []Resolved)                               {}
func (nobody) SendersKnown(int, []Holder)                             {}
func (nobody) TellChanges(routing.Handle)                             {}
func (nobody) Reassert(routing.Handle, time.Duration)                 {}
func (nobody) AskForAll(routing.Handle, time.Duration, func(Reply))   {}
func (nobody) LinkTo(routing.Presence) (link routing.Handle, ok bool) { return link, false }
func (nobody) Links() []routing.Handle                                { return nil }
func (nobody) Tell([]byte)                                            {}
func (nobody) TellOne(routing.Handle, []byte)                         {}

// office is a directory with these settings, and a registry of its own if there is none.
func office(t *testing.T, cfg Config) *Directory {
	if cfg.Registry == nil {
		cfg.Registry, cfg.Own = routing.NewMemory(routing.MemoryConfig{}), true
	}
	cfg.Node, cfg.Loops, cfg.Log, cfg.Table = "n0", 1, slog.New(slog.DiscardHandler), routing.NewTable()
	began := time.Now()
	cfg.Clock = func() time.Duration { return time.Since(began) }
	cfg.Incarnation = func() uint64 { return 1 }
	cfg.Gone = func(p routing.Presence) bool { return p.Node != cfg.Node || p.Incarnation != 1 }
	cfg.LoopGap, cfg.VerifyPeriod, cfg.ResumeWindow = time.Minute, time.Minute, cmp.Or(cfg.ResumeWindow, time.Minute)
	cfg.TakeoverBurst = max(1, cfg.TakeoverBurst)
	d := New(cfg, nobody{}, nobody{})
	d.Start(t.Context())
	t.Cleanup(func() {
		d.Hurry()
		d.Stop()
		d.Close()
	})
	return d
}

// The registry is asked for a bounded number of IDs a second.
func TestWatchPeriodGrows(t *testing.T) {
	const configured = 2 * time.Second
	for _, tc := range []struct {
		ids  int
		want time.Duration
	}{{0, configured}, {1000, configured}, {100_000, configured}, {150_000, 3 * time.Second}, {1_000_000, 20 * time.Second}} {
		if got := watchPeriod(configured, tc.ids); got != tc.want {
			t.Errorf("%d IDs: a round takes %v, want %v", tc.ids, got, tc.want)
		}
	}
	w := office(t, Config{WatchPeriod: configured}).watcher
	w.mu.Lock()
	for i := range 200_000 {
		w.watched(fmt.Sprint(i))
	}
	w.mu.Unlock()
	batch, pause := w.takeTurn()
	if rate := float64(len(batch)) / pause.Seconds(); rate > 1.1*watchRate || rate < 0.9*watchRate {
		t.Errorf("%d IDs every %v", len(batch), pause)
	}
}

// The connections that ask have their turns in a question.
func TestResolverTakesTurns(t *testing.T) {
	r := newResolver(nil)
	for i := range 10 * resolveTurn {
		for greedy := range uint32(3) {
			r.ask(0, of(10+greedy).conn, fmt.Sprint(greedy, " ", i))
		}
	}
	r.ask(0, of(1).conn, "modest")
	if batch := r.take(4 * resolveTurn); !slices.Contains(batch, "modest") {
		t.Error("a question of four turns has no ID of the fourth connection")
	}
	left := 0
	for batch := r.take(resolveTurn); len(batch) > 0; batch = r.take(resolveTurn) {
		left += len(batch)
	}
	if left != 30*resolveTurn+1-4*resolveTurn || len(r.lines)+len(r.turns) != 0 {
		t.Errorf("%d IDs are left, and %d lines", left, len(r.lines))
	}
}

// What was found out about a session is remembered for a moment: for its other IDs nobody is asked.
func TestSessionIsRemembered(t *testing.T) {
	reg := &tallied{Registry: routing.NewMemory(routing.MemoryConfig{})}
	d := office(t, Config{Registry: reg, Remote: routing.NewTable()})
	dead := routing.NewSessionID()
	if _, err := reg.EndSession(t.Context(), routing.EndOp{Session: dead, Force: true}); err != nil {
		t.Fatal(err)
	}
	before := reg.presences
	for range 5 {
		f := finding{found: routing.LookupResult{Binding: routing.Binding{Session: dead, Epoch: 1}}}
		if w := d.resolver.whereabouts(t.Context(), []finding{f, f}); w[dead].at != ended {
			t.Errorf("%+v", w)
		}
	}
	if n := reg.presences - before; n != 1 {
		t.Errorf("the registry was asked %d times, want once", n)
	}
}

// News of a bind under epoch 0, which no registry gives, ends no binding.
func TestSupersededByNothing(t *testing.T) {
	d := office(t, Config{Remote: routing.NewTable()})
	d.news.superseded(routing.NewSessionID(), "id", 0)
	if d.Over([]byte("id"), 1) {
		t.Error("epoch 1 is over")
	}
}

// An ID that owes something stays known, however many others there are that owe nothing.
func TestDebtsAreBounded(t *testing.T) {
	d := office(t, Config{TakeoverInterval: time.Hour})
	takeovers := d.bindings.takeovers
	takeovers.heard("x")
	takeovers.interval = 0
	for i := range 2 * debtSets * debtWays {
		takeovers.heard(fmt.Sprint(i))
	}
	if d.Probe().Owes("x") < time.Hour {
		t.Error("it is forgotten")
	}
}

// A registry may hold a field of any length. A claim with it would end the link, again and again.
func TestClaimOfWhatIsNoID(t *testing.T) {
	c := routing.Claim{Bound: []routing.BoundID{{ID: "a", Epoch: 1}, {ID: strings.Repeat("x", 3<<20), Epoch: 2}, {ID: "", Epoch: 3}, {ID: "b", Epoch: 4}}}
	frame := appendClaim(nil, &c, routing.Presence{})
	body, n, err := codec.Split(frame, 64<<10)
	var f codec.Claim
	if err != nil || n != len(frame) {
		t.Fatalf("a frame of %d bytes, %v", len(frame), err)
	}
	if err := codec.DecodeClaim(body, 10, &f); err != nil || f.IDs.Len() != 2 {
		t.Errorf("%d IDs, %v", f.IDs.Len(), err)
	}
}

// tallied counts the questions for sessions.
type tallied struct {
	routing.Registry
	presences int
}

func (r *tallied) Presences(ctx context.Context, all []routing.SessionID) ([]routing.SessionPresence, error) {
	r.presences++
	return r.Registry.Presences(ctx, all)
}
