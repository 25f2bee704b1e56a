package client

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
)

// board is what an application knows of who is online.
type board struct {
	mu   sync.Mutex
	said map[string]Presence
}

func newBoard() *board { return &board{said: make(map[string]Presence)} }

func (b *board) hear(changed []Presence) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range changed {
		b.said[p.ID] = p
	}
}

// shows waits until the last word on an ID is that it is online, or not. It returns the epoch.
func (b *board) shows(t testing.TB, id string, online bool) (epoch uint64) {
	t.Helper()
	eventually(t, fmt.Sprint(id, " to be online: ", online), func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		p, ok := b.said[id]
		epoch = p.Epoch
		return ok && p.Online() == online
	})
	return epoch
}

// watch watches IDs and puts the first answers on the board.
func (b *board) watch(t testing.TB, s *Session, ids ...string) {
	t.Helper()
	b.mu.Lock() // before anything newer
	defer b.mu.Unlock()
	found, err := s.Watch(testContext(t), ids...)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		if !decided(p.Code) {
			t.Errorf("%+v", p)
		}
		b.said[p.ID] = p
	}
}

// TestWatchAtNode: it reports a bind, an unbind, a bind elsewhere and a crash, the last when the
// resume window is over.
func TestWatchAtNode(t *testing.T) {
	long(t)
	n := startNode(t, engine.Config{ResumeWindow: time.Second})
	b := newBoard()
	watcher := dial(t, Config{OnPresence: b.hear}, n.addr)
	first := holder(t, Config{}, n.addr, "a")
	second := dial(t, Config{}, n.addr)
	b.watch(t, watcher, "a", "b")
	before := b.shows(t, "a", true)
	b.shows(t, "b", false)
	if err := second.Bind(testContext(t), "a", "b"); err != nil {
		t.Fatal(err)
	}
	b.shows(t, "b", true)
	eventually(t, "the new binding of a", func() bool { return b.shows(t, "a", true) > before })
	if err := second.Unbind(testContext(t), "a"); err != nil {
		t.Fatal(err)
	}
	b.shows(t, "a", false)
	watcher.Unwatch("a")
	if err := first.Bind(testContext(t), "a"); err != nil {
		t.Fatal(err)
	}

	var ends cutter
	doomed, err := Dial(testContext(t), Config{Nodes: []string{n.addr}, Logger: quiet(), Dialer: ends.dial})
	if err != nil {
		t.Fatal(err)
	}
	closeAbruptly(t, doomed)
	if err := doomed.Bind(testContext(t), "c"); err != nil {
		t.Fatal(err)
	}
	b.watch(t, watcher, "c")
	b.shows(t, "c", true)
	ends.cut()
	b.shows(t, "c", false)
	b.shows(t, "a", false) // nothing was told since
}

// TestWatchInCluster: IDs at other nodes are watched like those at one's own, also while the
// watcher's node drains, and what changed while it moved is reported.
func TestWatchInCluster(t *testing.T) {
	long(t)
	for name, attach := range map[string]int{"mesh": 1, "spread": AllNodes} {
		t.Run(name, func(t *testing.T) {
			k := startCluster(t)
			b := newBoard()
			watcher := k.dial(Config{OnPresence: b.hear, Attach: attach}, int(min(uint(attach), 3)))
			at := watcher.State().Nodes[0].Addr
			var others []*Session
			var ids []string
			for i, addr := range slices.Sorted(maps.Keys(k.nodes)) {
				if addr != at {
					others = append(others, holder(t, Config{}, addr, fmt.Sprint("at-", i)))
					ids = append(ids, fmt.Sprint("at-", i))
				}
			}
			all := append([]string{"nobody"}, ids...)
			for i := range 3000 { // more than a frame
				all = append(all, fmt.Sprint("filler-", i))
			}
			b.watch(t, watcher, all...)
			b.shows(t, "nobody", false)
			for i, s := range others {
				b.shows(t, ids[i], true)
				if err := s.Unbind(testContext(t), ids[i]); err != nil {
					t.Fatal(err)
				}
			}
			b.shows(t, ids[0], false)
			b.shows(t, ids[1], false)

			n := k.nodes[at]
			if err := n.Drain(testContext(t)); err != nil {
				t.Error(err)
			}
			if err := others[0].Bind(testContext(t), ids[0], "nobody"); err != nil {
				t.Fatal(err)
			}
			n.stop()
			if err := others[1].Bind(testContext(t), ids[1]); err != nil {
				t.Fatal(err)
			}
			for _, id := range append(ids, "nobody") {
				b.shows(t, id, true)
			}
		})
	}
}

// Who is refused a watch hears which limit that is.
func TestWatchIsRefusedWithAReason(t *testing.T) {
	for limit, cfg := range map[string]engine.Config{
		"max-watched":      {MaxWatched: 1},
		"max-node-watched": {MaxNodeWatched: 1},
	} {
		s := dial(t, Config{}, startNode(t, cfg).addr)
		found, err := s.Watch(testContext(t), "a", "b")
		if err != nil || len(found) != 2 {
			t.Fatalf("%+v, %v", found, err)
		}
		if p := found[0]; p.Code != codec.CodeNoRoute || p.Reason != "" {
			t.Errorf("%s: %+v", limit, p)
		}
		if p := found[1]; p.Code != codec.CodeOverflow || !strings.Contains(p.Reason, "("+limit+")") {
			t.Errorf("%s: %+v", limit, p)
		}
	}
}
