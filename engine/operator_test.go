package engine

import (
	"context"
	"testing"
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
