package routing

import (
	"context"
	"encoding/binary"
	"fmt"
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

// A session that holds very many IDs ends some at a time: other calls come in between.
func TestEndOfLargeSession(t *testing.T) {
	const many = 100_000
	m := NewMemory(MemoryConfig{})
	session := NewSessionID()
	for n := 0; n < many; n += 1000 {
		ops := make([]BindOp, 1000)
		for i := range ops {
			ops[i] = BindOp{ID: fmt.Sprint("id", n+i), Session: session}
		}
		if _, err := m.Bind(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := m.EndSession(context.Background(), EndOp{Session: session, Force: true})
		done <- err
	}()
	between := 0
	for left := many; left > 0; {
		m.mu.Lock()
		left = m.bindings.Len()
		m.mu.Unlock()
		if left > 0 && left < many {
			between++
		}
	}
	if err := <-done; err != nil || between == 0 {
		t.Errorf("%v; other calls came in between %d times", err, between)
	}
}
