package drive

import (
	"testing"

	"distmsg/client"
	"distmsg/discovery"
	"distmsg/loadtest/internal/traffic"
)

// After a move, the route to a session changes once more, when the SDK leaves the former
// connection. The SDK does not report that, so the order may break until it must have happened.
func TestRouteChangesUntilTheSDKHasLeft(t *testing.T) {
	tr := traffic.New(&traffic.Config{Acks: true, Conns: 2, IDsPerConn: 1, Fanout: 1, Window: 1})
	d := newSDK(tr, &Config{})
	c := &d.conns[0]
	c.bound = true
	attached := client.State{Attached: true, Resumed: true, Nodes: []discovery.Node{{Addr: "127.0.0.1:1"}}}
	tr.ConnUp(0, traffic.Unlimited)
	c.onState(attached)
	if until := tr.Ledger.ChangingUntil(0); until > tr.Now {
		t.Errorf("the route changes until %d, and it is %d: the session has not moved", until, tr.Now)
	}
	c.onState(attached)
	if until := tr.Ledger.ChangingUntil(0); until < tr.Now+int64(leaveTime) {
		t.Errorf("the route changes until %d, and it is %d: the SDK may take %v to leave", until, tr.Now, leaveTime)
	}
}

// A session that attaches to several nodes, one after the other, has not moved.
func TestSpreadIsNoMove(t *testing.T) {
	for _, v := range []struct {
		attach int
		nodes  []int // how many the session has, at each report
		moves  uint64
	}{
		{attach: 1, nodes: []int{1, 1, 2}, moves: 2},
		{attach: 2, nodes: []int{1, 2, 2}, moves: 1},
		{attach: client.AllNodes, nodes: []int{1, 2, 3, 3}, moves: 0},
	} {
		tr := traffic.New(&traffic.Config{Acks: true, Conns: 2, IDsPerConn: 1, Fanout: 1, Window: 1})
		d := newSDK(tr, &Config{Attach: v.attach})
		c := &d.conns[0]
		c.bound = true
		tr.ConnUp(0, traffic.Unlimited)
		for _, n := range v.nodes {
			c.onState(client.State{Attached: true, Resumed: true, Nodes: make([]discovery.Node, n)})
		}
		if tr.Moves != v.moves {
			t.Errorf("--attach %d with %v nodes: %d moves, want %d", v.attach, v.nodes, tr.Moves, v.moves)
		}
	}
}
