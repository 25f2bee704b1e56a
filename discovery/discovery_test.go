package discovery

import (
	"fmt"
	"testing"
)

func members(t *testing.T, n int) []Node {
	t.Helper()
	var addrs []string
	for i := range n {
		addrs = append(addrs, fmt.Sprintf("10.0.0.%d:7400", i))
	}
	m, err := Static(addrs...)
	if err != nil {
		t.Fatal(err)
	}
	nodes, changed := m.Nodes()
	if changed != nil || len(nodes) != n || n > 0 && nodes[n-1].Addr != addrs[n-1] {
		t.Fatalf("%v, changes %v", nodes, changed)
	}
	return nodes
}

func TestStaticRefuses(t *testing.T) {
	for _, addrs := range [][]string{nil, {""}, {"host"}, {"host:"}, {"a:1", "b"}, {"::1:7400"}} {
		if m, err := Static(addrs...); err == nil {
			t.Errorf("%q gave %v", addrs, m)
		}
	}
	if _, err := Static("[::1]:7400", "node-1:7400"); err != nil {
		t.Error(err)
	}
}

func TestRoundRobinTakesTurns(t *testing.T) {
	nodes := members(t, 3)
	s := RoundRobin()
	for i := range 10 {
		if got := s.Pick(nodes, "a", "b"); got != i%3 {
			t.Errorf("pick %d is %d", i, got)
		}
	}
}

// TestEveryNodeIsChosen: random and pair-hash spread their messages over all nodes, none with less
// than half or more than twice its share.
func TestEveryNodeIsChosen(t *testing.T) {
	const picks, n = 10_000, 5
	nodes := members(t, n)
	for name, s := range map[string]Strategy{"random": Random(), "pair-hash": PairHash()} {
		var got [n]int
		for i := range picks {
			got[s.Pick(nodes, "alice", fmt.Sprint(i))]++
		}
		for i, v := range got {
			if v < picks/n/2 || v > picks/n*2 {
				t.Errorf("%s: node %d was chosen %d times of %d", name, i, v, picks)
			}
		}
	}
}

// TestPairHashIsStable: a pair stays where it is unless its own node comes or goes.
func TestPairHashIsStable(t *testing.T) {
	nodes := members(t, 6)
	s := PairHash()
	moved := 0
	for i := range 1000 {
		from, to := fmt.Sprint("from", i), fmt.Sprint("to", i)
		before := nodes[s.Pick(nodes, from, to)]
		if again := nodes[s.Pick(nodes, from, to)]; again != before {
			t.Fatalf("the same pair goes to %v and %v", before, again)
		}
		after := nodes[:5][s.Pick(nodes[:5], from, to)]
		if after != before {
			moved++
			if before != nodes[5] {
				t.Fatalf("%v moved to %v although it is there", before, after)
			}
		}
	}
	if moved == 0 {
		t.Error("nobody moved when a node went")
	}
	if s.Pick(nodes, "ab", "c") == s.Pick(nodes, "a", "bc") && s.Pick(nodes, "abc", "") == s.Pick(nodes, "", "abc") &&
		s.Pick(nodes, "x", "yz") == s.Pick(nodes, "xy", "z") {
		t.Error("pairs are told apart by their concatenation only")
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	nodes := members(t, 8)
	for _, s := range []Strategy{Random(), RoundRobin(), PairHash()} {
		if n := testing.AllocsPerRun(100, func() { s.Pick(nodes, "alice", "bob") }); n != 0 {
			t.Errorf("%T: %v allocations", s, n)
		}
	}
}
