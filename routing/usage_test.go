package routing

import (
	"fmt"
	"testing"
)

// Sessions of one identity are counted, and so are their IDs, whichever way they end.
func TestIdentityUse(t *testing.T) {
	table := NewTable()
	open := func(identity string) *Session { return table.OpenSession(NewSessionID(), identity) }
	a, b, other, nameless := open("shop"), open("shop"), open("another"), open("")
	check := func(when string, s *Session, sessions, ids int) {
		t.Helper()
		if gotS, gotI := s.IdentityUse(); gotS != sessions || gotI != ids {
			t.Errorf("%s: %d sessions and %d IDs, want %d and %d", when, gotS, gotI, sessions, ids)
		}
	}
	for i := range 10 {
		table.Bind(fmt.Sprint("a", i), a, 1)
		table.Bind(fmt.Sprint("b", i), b, 1)
		table.Bind(fmt.Sprint("c", i), nameless, 1)
	}
	check("bound", a, 2, 20)
	check("another", other, 1, 0)
	check("nameless", nameless, 0, 0)
	table.Bind("a0", a, 2) // the same session again
	table.Bind("a1", b, 2) // from a to b
	check("moved within the identity", a, 2, 20)
	table.Bind("a1", other, 3)
	table.Unbind("b0", b, 1)
	check("moved away and unbound", a, 2, 18)
	check("moved to another", other, 1, 1)
	table.ForceEndSession(a)
	check("one has ended", b, 1, 9)
	table.ForceEndSession(b)
	table.ForceEndSession(other)
	table.ForceEndSession(nameless)
	if len(table.usages) != 0 {
		t.Errorf("%d identities are left", len(table.usages))
	}
}
