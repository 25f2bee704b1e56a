package engine

import (
	"context"
	"errors"
	"testing"

	"distmsg/codec"
	"distmsg/routing"
)

// asks returns a context that bounds a question of a test.
func asks(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// An operator asks a node that is alone.
func TestOperatorAlone(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{NodeID: "n0", Loops: loops})
		o := n.Operator()
		a, b := n.join("a", "b"), n.join("c")
		n.settle()
		nodes, err := o.Nodes(asks(t))
		if err != nil || len(nodes.Answers) != 1 || len(nodes.Missing) != 0 {
			t.Fatalf("%+v, %v", nodes, err)
		}
		if v := nodes.Answers[0]; v.Node != "n0" || v.State != NodeReady || v.Sessions != 2 || v.IDs != 3 || len(v.Loops) != loops || v.Addr != n.Addr().String() {
			t.Errorf("%+v", v)
		}
		sessions, err := o.Sessions(asks(t), SessionQuery{})
		if err != nil || len(sessions.Answers) != 2 {
			t.Fatalf("%+v, %v", sessions, err)
		}
		for _, s := range sessions.Answers {
			ids := map[string]int{a.sessionID().String(): 2, b.sessionID().String(): 1}
			if s.Node != "n0" || !s.Attached || s.Conns != 1 || s.IDs != ids[s.Session] || s.IDs == 0 || len(s.Remotes) != 1 {
				t.Errorf("%+v", s)
			}
		}
		slowest, err := o.Sessions(asks(t), SessionQuery{Slowest: 1})
		if err != nil || len(slowest.Answers) != 1 {
			t.Fatalf("%+v, %v", slowest, err)
		}
		conns, err := o.Conns(asks(t), 1)
		if err != nil || len(conns.Answers) != 1 || conns.Answers[0].State != "open" || conns.Answers[0].Remote == "" {
			t.Fatalf("%+v, %v", conns, err)
		}
		ids, err := o.IDs(asks(t), a.sessionID().String(), 1)
		if err != nil || len(ids.Answers) != 1 || ids.Answers[0].Node != "n0" || ids.Answers[0].Epoch == 0 {
			t.Fatalf("%+v, %v", ids, err)
		}
		if links, err := o.Links(asks(t)); err != nil || len(links.Answers)+len(links.Missing) != 0 {
			t.Errorf("%+v, %v", links, err)
		}
	})
}

// On a node without a cluster, an operator can do what he can in a cluster, but move clients.
func TestOperatorOrdersAlone(t *testing.T) {
	n := start(t, Config{NodeID: "n0"})
	o := n.Operator()
	a, b := n.join("a"), n.join("b")
	if w := where(t, n, "b"); w.State != WhereBound || w.Session != b.sessionID().String() || w.Disagree || len(w.Beliefs) != 1 {
		t.Errorf("%+v", w)
	}
	if got := traced(t, n, "a", "b", b); got.Code != codec.CodeAcked.String() || len(got.Hops) != 4 {
		t.Errorf("%+v", got)
	}
	if got := traced(t, n, "a", "nobody", nil); got.Code != codec.CodeNoRoute.String() {
		t.Errorf("%+v", got)
	}
	if err := o.Kick(asks(t), "b"); err != nil {
		t.Fatal(err)
	}
	if id, _, err := codec.DecodeKick(b.expect(codec.KindKick)); err != nil || string(id) != "b" {
		t.Errorf("%q, %v", id, err)
	}
	a.hears(a.send("a", "b", "x"), codec.CodeNoRoute)
	b.bind("b")

	if _, err := o.Rebalance(asks(t), "", 1, 0); err == nil {
		t.Error("there is nowhere to go")
	}
	if err := o.Drain(asks(t), ""); err != nil || !n.Draining() {
		t.Fatal(err)
	}
	if f := a.hearsDrain(0); f.Deadline != 0 {
		t.Errorf("%+v", f)
	}
	b.hearsDrain(0)
	a.hears(a.send("a", "b", "x"), codec.CodeDraining)
	if err := o.Undrain(asks(t), ""); err != nil || n.Draining() {
		t.Fatal(err)
	}
	a.exchange("a", b, "b")
}

// Before the node runs and after it has stopped, questions end with an error.
func TestOperatorWithoutNode(t *testing.T) {
	e, err := New(Config{Addr: noListener, Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	o := e.Operator()
	if _, err := o.Nodes(asks(t)); err == nil {
		t.Error("it answers before it runs")
	}
	if err := o.Watch(asks(t), []string{"a"}, func(WatchEvent) {}); err == nil {
		t.Error("it watches before it runs")
	}
	n := start(t, Config{NodeID: "n0"})
	o = n.Operator()
	watched := make(chan error, 1)
	began := make(chan struct{}, 1)
	go func() {
		watched <- o.Watch(asks(t), []string{"a"}, func(WatchEvent) { began <- struct{}{} })
	}()
	<-began
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; !errors.Is(err, ErrStopped) {
		t.Errorf("watch: %v", err)
	}
	if all, err := o.Sessions(asks(t), SessionQuery{}); err != nil || len(all.Missing) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	if err := o.Drain(asks(t), ""); err == nil {
		t.Error("it drains when it has stopped")
	}
}

// While the registry is down, the state of a watched ID is unknown. It is told when the registry
// can say it, though nothing changes any more.
func TestOperatorWatchesTheUnknown(t *testing.T) {
	reg := &down{Registry: routing.NewMemory(routing.MemoryConfig{})}
	n := start(t, Config{Registry: reg})
	n.join("a")
	reg.off.Store(true)
	ctx, stop := context.WithCancel(t.Context())
	events, done := make(chan WatchEvent, 8), make(chan error, 1)
	go func() { done <- n.Operator().Watch(ctx, []string{"a"}, func(e WatchEvent) { events <- e }) }()
	if e := <-events; e.State != WhereUnknown {
		t.Errorf("%+v", e)
	}
	reg.off.Store(false)
	if e := <-events; e.State != WhereBound {
		t.Errorf("%+v", e)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
