package routing

import (
	"encoding/binary"
	"testing"
)

// Dead sessions are remembered for long, and in bounded memory.
func TestDeadAreRemembered(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	session := func(i int) (id SessionID) {
		binary.BigEndian.PutUint64(id[:], uint64(i))
		return id
	}
	const n = 2*deadKept + deadKept/2
	for i := range n {
		if ended, err := m.EndSession(t.Context(), EndOp{Session: session(i)}); !ended || err != nil {
			t.Fatal(ended, err)
		}
	}
	for i := n - deadKept; i < n; i++ {
		if !m.isDead(session(i)) {
			t.Fatalf("forgot the session that ended %d ends ago", n-1-i)
		}
	}
	if kept := len(m.dead) + len(m.deadOld); kept > 2*deadKept {
		t.Errorf("remembers %d", kept)
	}
}
