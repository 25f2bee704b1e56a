package directory

import (
	"fmt"
	"testing"
	"time"

	"distmsg/routing"
)

// What is remembered of ended bindings is bounded, in number and in time.
func TestOversAreBounded(t *testing.T) {
	o, now, session := newOvers(time.Minute, 10), time.Now(), routing.NewSessionID()
	for i := range 25 {
		o.add(session, fmt.Sprint(i), uint64(100+i), now.Add(time.Duration(i)*time.Second))
	}
	if o.table.Len() != 10 || o.count != 10 || o.has([]byte("14"), 1) || !o.has([]byte("15"), 115) || o.has([]byte("15"), 116) {
		t.Errorf("%d are remembered", o.table.Len())
	}
	o.add(session, "15", 90, now) // less than is known
	o.add(session, "15", 200, now.Add(30*time.Second))
	o.expire(now.Add(76 * time.Second)) // the first 15 was due at 75 s, 16 at 76 s
	if !o.has([]byte("15"), 200) || o.has([]byte("16"), 1) || !o.has([]byte("17"), 117) {
		t.Errorf("%d are remembered", o.table.Len())
	}
	o.expire(now.Add(time.Hour))
	if o.table.Len() != 0 || o.count != 0 {
		t.Errorf("%d are remembered", o.table.Len())
	}
}

// One ID that is bound again and again takes no other's place.
func TestOversOfOneID(t *testing.T) {
	o, now, session := newOvers(time.Minute, 10), time.Now(), routing.NewSessionID()
	o.add(session, "other", 1, now)
	for epoch := range uint64(1000) {
		o.add(session, "one", epoch+1, now)
		if o.count > 20 {
			t.Fatalf("%d entries", o.count)
		}
	}
	if !o.has([]byte("other"), 1) || !o.has([]byte("one"), 1000) || o.has([]byte("one"), 1001) {
		t.Errorf("%d are remembered", o.table.Len())
	}
	o.expire(now.Add(time.Minute))
	if o.table.Len() != 0 || o.count != 0 {
		t.Errorf("%d are remembered", o.table.Len())
	}
}

// A session with many ended bindings loses its own, and not those of others.
func TestOversAreShared(t *testing.T) {
	const most = 100
	o, now := newOvers(time.Minute, most), time.Now()
	others := []routing.SessionID{routing.NewSessionID(), routing.NewSessionID()}
	for i, s := range others {
		for k := range most / 4 {
			o.add(s, fmt.Sprint("other ", i, " ", k), 1, now)
		}
	}
	busy := routing.NewSessionID()
	for k := range 10 * most {
		o.add(busy, fmt.Sprint("busy ", k), 1, now.Add(time.Second))
	}
	for i := range others {
		for k := range most / 4 {
			if id := fmt.Sprint("other ", i, " ", k); !o.has([]byte(id), 1) {
				t.Fatalf("%q is forgotten", id)
			}
		}
	}
	if o.table.Len() != most || o.count != most || !o.has(fmt.Append(nil, "busy ", 10*most-1), 1) || o.has([]byte("busy 0"), 1) {
		t.Errorf("%d are remembered, in %d entries", o.table.Len(), o.count)
	}
	o.expire(now.Add(time.Minute))
	if len(o.sessions) != 1 || len(o.largest) != 1 || o.count != most/2 {
		t.Errorf("%d entries of %d sessions are left", o.count, len(o.sessions))
	}
	o.expire(now.Add(time.Hour))
	if len(o.sessions) != 0 || len(o.largest) != 0 || o.count != 0 || o.table.Len() != 0 {
		t.Errorf("%d entries of %d sessions are left", o.count, len(o.sessions))
	}
}
