package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"distmsg/codec"
	"distmsg/internal/callback"
)

type watching struct {
	found []Presence
	err   error
}

func startWatch(ctx context.Context, s *Session, ids ...string) <-chan watching {
	ch := make(chan watching, 1)
	go func() {
		found, err := s.Watch(ctx, ids...)
		ch <- watching{found, err}
	}()
	return ch
}

// expectWatch reads watch frames until they have asked for n IDs.
func (c *fakeConn) expectWatch(n int) (frames []asked) {
	c.t.Helper()
	for n > 0 {
		var f codec.Watch
		if err := codec.DecodeWatch(c.expect(codec.KindWatch), 100, &f); err != nil {
			c.t.Fatal(err)
		}
		n -= f.IDs.Len()
		frames = append(frames, asked{f.Seq, listIDs(f.IDs)})
	}
	return frames
}

func (c *fakeConn) watched(a asked, r ...codec.Result) {
	c.t.Helper()
	c.put(codec.AppendResults(nil, codec.KindWatched, a.seq, r))
}

func (c *fakeConn) changed(all ...codec.Change) {
	c.t.Helper()
	c.put(codec.AppendChanged(nil, all))
}

func (c *fakeConn) expectUnwatch() (ids []string) {
	c.t.Helper()
	l, err := codec.DecodeUnwatch(c.expect(codec.KindUnwatch), 100)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, v := range listIDs(l) {
		ids = append(ids, v.id)
	}
	return ids
}

func online(id string, epoch uint64) codec.Change {
	return codec.Change{ID: []byte(id), Code: codec.CodeOK, Epoch: epoch}
}

func offline(id string, epoch uint64) codec.Change {
	return codec.Change{ID: []byte(id), Code: codec.CodeNoRoute, Epoch: epoch}
}

// show makes presences short.
func show(all []Presence) (s []string) {
	for _, p := range all {
		s = append(s, fmt.Sprintf("%s %v %d", p.ID, p.Code, p.Epoch))
	}
	return s
}

// presences is an OnPresence that waits until it is let go.
type presences struct {
	told chan []Presence
	hold chan struct{}
}

func newPresences() *presences {
	return &presences{told: make(chan []Presence, 100), hold: make(chan struct{}, 100)}
}

func (p *presences) hear(all []Presence) {
	p.told <- all
	<-p.hold
}

// next returns what was reported and lets the callback continue.
func (p *presences) next(t testing.TB) []string {
	t.Helper()
	all := receive(t, p.told, "OnPresence")
	p.hold <- struct{}{}
	return show(all)
}

// TestWatch: the answers come back in order, changes are reported in order, and collected while the
// application is busy, and not after Unwatch.
func TestWatch(t *testing.T) {
	n := newFakeNode(t).start()
	p := newPresences()
	s, c := attachFake(t, n, Config{OnPresence: p.hear})
	// the node takes 4 in a frame
	done := startWatch(testContext(t), s, "a", "b", "", "c", "d", "e", "a")
	frames := c.expectWatch(5)
	if len(frames) != 2 {
		t.Fatalf("%d frames", len(frames))
	}
	c.watched(frames[0], codec.Result{Code: codec.CodeOK, Epoch: 1}, codec.Result{Code: codec.CodeNoRoute},
		codec.Result{Code: codec.CodeRegistryUnavailable}, codec.Result{Code: codec.CodeOverflow})
	c.changed(online("b", 5), online("stranger", 1)) // before the last answer: Watch returns it
	c.watched(frames[1], codec.Result{Code: codec.CodeOK, Epoch: 3})
	got := receive(t, done, "the watch")
	want := []string{"a ok 1", "b ok 5", " bad_id 0", "c registry_unavailable 0", "d overflow 0", "e ok 3", "a ok 1"}
	if got.err != nil || !slices.Equal(show(got.found), want) {
		t.Fatalf("%v, %v; want %v", show(got.found), got.err, want)
	}
	if st := s.Stats(); st.Watched != 4 {
		t.Errorf("%d IDs are watched, want those that are neither bad nor too many", st.Watched)
	}

	c.changed(offline("a", 1), offline("c", 0), online("b", 5), codec.Change{ID: []byte("e"), Code: 99})
	if told := receive(t, p.told, "OnPresence"); !slices.Equal(show(told), []string{"a no_route 1", "c no_route 0"}) {
		t.Errorf("told of %v", show(told))
	}
	// The application is busy.
	c.changed(online("a", 7), offline("b", 5))
	c.changed(offline("a", 7), online("c", 8), online("b", 9)) // a is as it was told, b moved
	c.changed(offline("e", 3))
	eventually(t, "all changes", func() bool { s.watches.mu.Lock(); defer s.watches.mu.Unlock(); return len(s.watches.news) == 4 })
	s.Unwatch("e", "unknown", "e")
	if ids := c.expectUnwatch(); !slices.Equal(ids, []string{"e"}) {
		t.Errorf("unwatched %v", ids)
	}
	p.hold <- struct{}{}
	if told := p.next(t); !slices.Equal(told, []string{"b ok 9", "c ok 8"}) {
		t.Errorf("told of %v", told)
	}
	c.changed(online("e", 4), online("a", 10))
	if told := p.next(t); !slices.Equal(told, []string{"a ok 10"}) {
		t.Errorf("told of %v", told)
	}

	// What is watched already is not asked for again.
	done = startWatch(testContext(t), s, "a", "e")
	frames = c.expectWatch(1)
	if !slices.Equal(frames[0].ids, []idEpoch{{id: "e"}}) {
		t.Errorf("asks for %v", frames[0].ids)
	}
	c.watched(frames[0], codec.Result{Code: codec.CodeNoRoute})
	if got := receive(t, done, "the watch"); !slices.Equal(show(got.found), []string{"a ok 10", "e no_route 0"}) {
		t.Errorf("%v", show(got.found))
	}
	if len(p.told) > 0 {
		t.Errorf("told of %v, too", show(<-p.told))
	}
}

// TestWatchReconnects: on a new connection the session asks for everything, and the differences are
// reported. Late frames of the old one are ignored.
func TestWatchReconnects(t *testing.T) {
	n := newFakeNode(t).start()
	p := newPresences()
	s, c := attachFake(t, n, Config{OnPresence: p.hear})
	done := startWatch(testContext(t), s, "a", "b", "c")
	c.watched(c.expectWatch(3)[0], codec.Result{Epoch: 1}, codec.Result{Code: codec.CodeNoRoute}, codec.Result{Epoch: 2})
	receive(t, done, "the watch")
	c.Close()
	c = n.accept()
	a := c.expectWatch(3)[0]
	states := map[string]codec.Result{"a": {Epoch: 9}, "b": {Code: codec.CodeNoRoute, Epoch: 7}, "c": {Code: codec.CodeRegistryUnavailable}}
	var results []codec.Result
	for _, id := range a.ids {
		results = append(results, states[id.id])
	}
	c.watched(a, results...)
	if told := p.next(t); !slices.Equal(told, []string{"a ok 9"}) {
		t.Errorf("told of %v", told)
	}
	c.changed(offline("c", 2))
	if told := p.next(t); !slices.Equal(told, []string{"c no_route 2"}) {
		t.Errorf("told of %v", told)
	}
	// The node takes fewer now.
	c.Close()
	c = n.accept()
	a = c.expectWatch(3)[0]
	results = results[:0]
	for _, id := range a.ids {
		results = append(results, map[string]codec.Result{"a": {Epoch: 9}, "b": {Code: codec.CodeNoRoute}, "c": {Code: codec.CodeOverflow}}[id.id])
	}
	c.watched(a, results...)
	if told := p.next(t); !slices.Equal(told, []string{"c overflow 0"}) {
		t.Errorf("told of %v", told)
	}
	if st := s.Stats(); st.Watched != 2 {
		t.Errorf("%d are watched", st.Watched)
	}
}

// TestWatchMoves: a session with several nodes watches over one; when it leaves that one, over
// another, and believes only that.
func TestWatchMoves(t *testing.T) {
	a, b := newFakeNode(t).start(), newFakeNode(t).start()
	p := newPresences()
	s, c := attachFake(t, a, Config{OnPresence: p.hear, Attach: AllNodes})
	c.put(membersOf(a, b))
	other := b.accept()
	eventually(t, "both", func() bool { return len(addrs(s)) == 2 })
	done := startWatch(testContext(t), s, "x")
	c.watched(c.expectWatch(1)[0], codec.Result{Epoch: 1})
	receive(t, done, "the watch")
	other.changed(offline("x", 1)) // nobody asked this one
	other.deliver("nobody", 1, codec.FlagAck)
	other.expect(codec.KindNotHere) // it has read that
	c.put(codec.AppendDrain(nil, &codec.Drain{Deadline: 60_000}))
	ask := other.expectWatch(1)[0]
	c.changed(online("x", 2)) // too late
	other.watched(ask, codec.Result{Epoch: 3})
	if told := p.next(t); !slices.Equal(told, []string{"x ok 3"}) {
		t.Errorf("told of %v", told)
	}
}

// TestWatchUnanswered: a Watch whose context ends says timeout and why, and the application hears
// when the node answers after all.
func TestWatchUnanswered(t *testing.T) {
	n := newFakeNode(t).start()
	p := newPresences()
	s, c := attachFake(t, n, Config{OnPresence: p.hear})
	ctx, cancel := context.WithCancel(testContext(t))
	done := startWatch(ctx, s, "a", "b")
	ask := c.expectWatch(2)[0]
	second := startWatch(testContext(t), s, "a")
	eventually(t, "the second", func() bool {
		s.watches.mu.Lock()
		defer s.watches.mu.Unlock()
		return len(s.watches.byID["a"].calls) == 2
	})
	cancel()
	if got := receive(t, done, "the watch"); !errors.Is(got.err, context.Canceled) || !slices.Equal(show(got.found), []string{"a timeout 0", "b timeout 0"}) {
		t.Errorf("%v, %v", show(got.found), got.err)
	}
	s.Unwatch("b")
	c.expectUnwatch()
	c.watched(ask, codec.Result{Epoch: 4}, codec.Result{Epoch: 5})
	// it may have overtaken the watch
	if ids := c.expectUnwatch(); !slices.Equal(ids, []string{"b"}) {
		t.Errorf("unwatched %v", ids)
	}
	if told := p.next(t); !slices.Equal(told, []string{"a ok 4"}) {
		t.Errorf("told of %v", told)
	}
	if got := receive(t, second, "the second watch"); !slices.Equal(show(got.found), []string{"a ok 4"}) {
		t.Errorf("%v", show(got.found))
	}

	third := startWatch(testContext(t), s, "z")
	c.expectWatch(1)
	s.Unwatch("z")
	if got := receive(t, third, "a watch that is called off"); !slices.Equal(show(got.found), []string{"z timeout 0"}) {
		t.Errorf("%v", show(got.found))
	}
	last := startWatch(testContext(t), s, "y")
	c.expectUnwatch()
	c.expectWatch(1)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.Close(over)
	if got := receive(t, last, "the last watch"); got.err != ErrClosed {
		t.Errorf("%v", got.err)
	}
	if _, err := s.Watch(context.Background(), "a"); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
	s.Unwatch("a")
}

// TestWatchNotSupported: an older node has no watches. After a move to one, presence is outdated,
// and is updated again at the next.
func TestWatchNotSupported(t *testing.T) {
	n := newFakeNode(t)
	old := true
	n.greet = func(_ *codec.Hello, w *codec.Welcome) *codec.ErrorFrame {
		if old {
			w.Limits.MaxWatched = 0
		}
		old = !old
		return nil
	}
	p := newPresences()
	s, c := attachFake(t, n.start(), Config{OnPresence: p.hear})
	if _, err := s.Watch(testContext(t), "a"); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), n.addr) {
		t.Errorf("%v", err)
	}
	c.Close()
	c = n.accept()
	done := startWatch(testContext(t), s, "a")
	c.watched(c.expectWatch(1)[0], codec.Result{Epoch: 1})
	receive(t, done, "the watch")
	c.Close()
	c = n.accept()
	eventually(t, "the older node", func() bool { c := s.attachments.first(); return c != nil && c.limits.MaxWatched == 0 })
	c.Close()
	c = n.accept()
	c.watched(c.expectWatch(1)[0], codec.Result{Code: codec.CodeNoRoute})
	if told := p.next(t); !slices.Equal(told, []string{"a no_route 0"}) {
		t.Errorf("told of %v", told)
	}
}

// TestPresenceModel: whatever comes in whatever order, the last thing the application heard of an
// ID is what the node said last.
func TestPresenceModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSession(Config{Logger: quiet(), Workers: 1, QueueTotal: 1 << 20})
		// the test calls when it wants
		s.cb.presences = callback.NewLine(s.cb.group, "none", 0, 0, func(struct{}) {})
		heard := make(map[string]Presence)
		s.cfg.OnPresence = func(all []Presence) {
			for _, p := range all {
				if _, ok := heard[p.ID]; !ok {
					t.Fatalf("%s is told of before Watch has returned it, or after Unwatch", p.ID)
				}
				heard[p.ID] = p
			}
		}
		c := &conn{s: s}
		c.outPhase = outShut // unwatch frames go nowhere
		w := &s.watches
		w.conn = c
		said := make(map[string]Presence) // by the node, of what is watched
		type open struct {
			ids     []string
			entries []*watched
		}
		var waiting []open
		watchedIDs := func(t *rapid.T) string {
			ids := []string{}
			for id := range said {
				ids = append(ids, id)
			}
			slices.Sort(ids)
			if len(ids) == 0 {
				t.Skip("nothing is watched")
			}
			return rapid.SampledFrom(ids).Draw(t, "ID")
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if w.len() != len(said) {
					t.Fatalf("%d are watched, want %d", w.len(), len(said))
				}
			},
			"watch": func(t *rapid.T) {
				ids := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3).Draw(t, "IDs")
				entries, _ := w.add(ids)
				for _, id := range ids {
					if _, ok := said[id]; !ok {
						said[id] = Presence{ID: id, Code: codec.CodeTimeout}
					}
				}
				waiting = append(waiting, open{ids, entries})
			},
			"return": func(t *rapid.T) {
				if len(waiting) == 0 {
					t.Skip("none waits")
				}
				for i, p := range w.answer(waiting[0].ids, waiting[0].entries) {
					if id := waiting[0].ids[i]; waiting[0].entries[i] == w.byID[id] {
						heard[id] = p
					}
				}
				waiting = waiting[1:]
			},
			"change": func(t *rapid.T) {
				p := Presence{ID: watchedIDs(t), Code: codec.CodeNoRoute, Epoch: rapid.Uint64Range(0, 3).Draw(t, "epoch")}
				if rapid.Bool().Draw(t, "online") {
					p.Code = codec.CodeOK
				}
				said[p.ID] = p
				body := codec.AppendChanged(nil, []codec.Change{{ID: []byte(p.ID), Code: p.Code, Epoch: p.Epoch}})[codec.PrefixLen:]
				if err := c.onChanged(body); err != nil {
					t.Fatal(err)
				}
			},
			"unavailable": func(t *rapid.T) {
				id := watchedIDs(t)
				s.watches.heard(c, []idEpoch{{id: id}}, answer{results: []codec.Result{{Code: codec.CodeRegistryUnavailable}}})
			},
			"unwatch": func(t *rapid.T) {
				id := watchedIDs(t)
				s.Unwatch(id)
				delete(said, id)
				delete(heard, id)
			},
			"tell": func(t *rapid.T) { s.watches.tellPresence() },
		})
		for _, v := range waiting {
			for i, p := range w.answer(v.ids, v.entries) {
				if v.entries[i] == w.byID[v.ids[i]] {
					heard[v.ids[i]] = p
				}
			}
		}
		s.watches.tellPresence()
		for id, want := range said {
			got := heard[id]
			if decided(want.Code) && (got.Code != want.Code || want.Code == codec.CodeOK && got.Epoch != want.Epoch) {
				t.Fatalf("%s: heard %+v last, the node said %+v", id, got, want)
			}
		}
		s.endLife()
		s.stop()
	})
}
