package discovery

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// watch returns the lists that Watch tells of, and a function that waits for its end.
func watch(t *testing.T, p *PeerList) (lists <-chan []Record, end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan []Record, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Watch(ctx, func(all []Record) { told <- all })
	}()
	return told, func() {
		cancel()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("Watch goes on after its context has ended")
		}
	}
}

func TestPeers(t *testing.T) {
	peers := []Record{{ID: "n1", Addr: "a:1", PeerAddr: "a:2"}, {ID: "n2", Addr: "b:1", PeerAddr: "b:2"}}
	p := Peers(peers...)
	lists, end := watch(t, p)
	expect := func(when string, want ...Record) {
		t.Helper()
		// of two changes at once, only the last may be told of
		for deadline := time.After(time.Minute); ; {
			select {
			case got := <-lists:
				if slices.Equal(got, want) {
					return
				}
				t.Logf("%s: %v", when, got)
			case <-deadline:
				t.Fatalf("%s: not told of %v", when, want)
			}
		}
	}
	own := Record{ID: "n0", Incarnation: 7, Addr: "c:1", PeerAddr: "c:2"}
	expect("at first", peers...)
	announce := func(r Record) {
		t.Helper()
		if err := p.Announce(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	announce(own)
	expect("announced", own, peers[0], peers[1])
	own.Draining = true
	announce(own)
	expect("announced again", own, peers[0], peers[1])
	own.ID = "n2"
	announce(own)
	expect("named among the peers, too", own, peers[0])
	if err := p.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect("withdrawn", peers...)
	end()
}

// What a watcher does with its list is nobody else's concern.
func TestPeersAreNotShared(t *testing.T) {
	given := []Record{{ID: "n1"}}
	p := Peers(given...)
	given[0].ID = "other"
	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		p.Watch(ctx, func(all []Record) {
			if len(all) != 1 || all[0].ID != "n1" {
				t.Errorf("told of %v", all)
			}
			all[0].ID = "other"
			cancel()
		})
	}
}

// A context that has ended before the call does nothing.
func TestPeersEndedContext(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	p := Peers()
	if err := p.Announce(t.Context(), Record{ID: "n1"}); err != nil {
		t.Fatal(err)
	}
	announce, withdraw := p.Announce(ended, Record{ID: "n2"}), p.Withdraw(ended)
	if all, _ := p.all(); !errors.Is(announce, context.Canceled) || !errors.Is(withdraw, context.Canceled) || len(all) != 1 || all[0].ID != "n1" {
		t.Errorf("%v, %v, and now there is %v", announce, withdraw, all)
	}
	p.Watch(ended, func([]Record) { t.Error("Watch called") })
}
