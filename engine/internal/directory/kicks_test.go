package directory

import (
	"fmt"
	"testing"
	"time"

	"distmsg/routing"
)

// Sessions that lose very many IDs are asked to say their bindings again. The kicks of others are
// remembered one by one.
func TestKicksAreShared(t *testing.T) {
	var m kickMemory
	const most = 4 * worthRoom
	other := routing.NewSessionID()
	m.now.add(other, "a", 1, most)
	lose := func(n int) (session routing.SessionID) {
		session = routing.NewSessionID()
		for i := range n {
			m.now.add(session, fmt.Sprint(i), 1, most)
		}
		return session
	}
	var sessions []routing.SessionID
	for range 100 {
		sessions = append(sessions, lose(2*worthRoom))
	}
	summed := 0
	for _, s := range sessions {
		if lost, all := m.of(s); !all {
			summed++
		} else if len(lost) != 2*worthRoom {
			t.Errorf("%d of %d are remembered", len(lost), 2*worthRoom)
		}
	}
	if lost, all := m.of(other); len(lost) != 1 || !all || m.now.overflow || m.now.count > most || summed == 0 {
		t.Errorf("the other session has lost %v, all %v; %d kicks, %d sessions summed up", lost, all, m.now.count, summed)
	}
	m.now = kickGeneration{}
	m.now.add(other, "a", 1, maxKicks)
	for range 2 {
		s := routing.NewSessionID()
		for i := range maxRepeated + 10 {
			m.now.add(s, fmt.Sprint(i), 1, maxKicks)
		}
		if lost, all := m.of(s); len(lost) != 0 || all {
			t.Errorf("%d of so many are remembered, all %v", len(lost), all)
		}
	}
	if m.now.count != 3 {
		t.Errorf("%d kicks are counted", m.now.count)
	}
}

// Kicks are remembered for the resume window and the time in which a dead connection may hide, and
// not much longer.
func TestKicksAreForgotten(t *testing.T) {
	d := office(t, Config{ResumeWindow: 100 * time.Millisecond, IdleTimeout: 100 * time.Millisecond})
	lost, other := routing.NewSessionID(), routing.NewSessionID()
	d.news.remember(lost, "a", 1)
	d.news.remember(lost, "a", 3)
	d.news.remember(lost, "a", 2)
	if of, all := d.LostIDs(lost); len(of) != 1 || of["a"] != 3 || !all {
		t.Errorf("%v %v", of, all)
	}
	for began := time.Now(); ; time.Sleep(time.Millisecond) {
		d.news.remember(other, "b", 1)
		if of, _ := d.LostIDs(lost); len(of) == 0 {
			break
		}
		if time.Since(began) > time.Minute {
			t.Fatal("it is remembered for a minute")
		}
	}
}
