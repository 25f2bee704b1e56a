package routing_test

import (
	"slices"
	"testing"

	"distmsg/routing"
)

func TestSessionID(t *testing.T) {
	id := routing.SessionID{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0xff}
	if got, want := id.String(), "0123456789abcdefff00000000000000"; got != want {
		t.Errorf("String: %s, want %s", got, want)
	}
	if got := id.Short(); got != 0x0123456789abcdef {
		t.Errorf("Short: %x", got)
	}
	if got, err := routing.ParseSessionID(id.String()); got != id || err != nil {
		t.Errorf("ParseSessionID: %v, %v", got, err)
	}
	for _, bad := range []string{"", "0123", id.String() + "00", "zz23456789abcdefff00000000000000"} {
		if got, err := routing.ParseSessionID(bad); err == nil || !got.IsZero() {
			t.Errorf("ParseSessionID(%q): %v, %v", bad, got, err)
		}
	}
	if a, b := routing.NewSessionID(), routing.NewSessionID(); a == b || a.IsZero() {
		t.Errorf("NewSessionID: %v, then %v", a, b)
	}
}

// One ID gets one connection as long as the connections stand, and all connections get
// their share of the IDs.
func TestPick(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	if _, ok := s.Pick(1); ok {
		t.Error("a detached session has a connection")
	}
	var handles []routing.Handle
	for i := range 5 {
		handles = append(handles, routing.Handle{Loop: uint16(i % 2), Slot: uint32(i), Gen: 1})
		table.Attach(s, handles[i])
		shares := make(map[routing.Handle]int)
		for k := range 1000 {
			route, _ := table.Lookup([]byte(idOf(k)))
			first, ok1 := s.Pick(route.Hash)
			again, ok2 := s.Pick(route.Hash)
			if !ok1 || !ok2 || first != again || !slices.Contains(handles, first) {
				t.Fatalf("ID %d of %d connections: %v, %v, then %v, %v", k, i+1, first, ok1, again, ok2)
			}
			shares[first]++
		}
		for h, n := range shares {
			if fair := 1000 / (i + 1); n < fair/2 || n > fair*2 {
				t.Errorf("%v of %d connections got %d of 1000 IDs", h, i+1, n)
			}
		}
	}
}

// A snapshot of the connections stays as it is.
func TestHandlesAreSnapshots(t *testing.T) {
	table := routing.NewTable()
	s := open(table, "alice")
	a, b, c := routing.Handle{Slot: 1}, routing.Handle{Slot: 2}, routing.Handle{Slot: 3}
	table.Attach(s, a)
	table.Attach(s, b)
	before := s.Handles()
	table.Detach(s, a)
	table.Attach(s, c)
	if want := []routing.Handle{a, b}; !slices.Equal(before, want) {
		t.Errorf("the snapshot is now %v, was %v", before, want)
	}
	if want := []routing.Handle{b, c}; !slices.Equal(s.Handles(), want) {
		t.Errorf("attached: %v, want %v", s.Handles(), want)
	}
}
