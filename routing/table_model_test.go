package routing_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"distmsg/routing"
)

// TestTableAgainstModel plays random calls against the table and against slices and maps.
func TestTableAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &tableModel{table: routing.NewTable(), bound: make(map[string]modelBinding)}
		for range 3 {
			m.sessions = append(m.sessions, newModelSession(open(m.table, "")))
		}
		t.Repeat(map[string]func(*rapid.T){
			"":       m.check,
			"attach": m.attach,
			"detach": m.detach,
			"end":    m.end,
			"force":  m.forceEnd,
			"open":   m.reopen,
			"bind":   m.bind,
			"unbind": m.unbind,
		})
	})
}

type tableModel struct {
	table    *routing.Table
	sessions []*modelSession // the ended ones stay, to be misused
	bound    map[string]modelBinding
	serial   uint64
}

type modelSession struct {
	s       *routing.Session
	handles []routing.Handle
	serial  uint64
	ended   bool
	last    map[string]*routing.LastOwn // for one ID each; and for all, under ""
}

func newModelSession(s *routing.Session) *modelSession {
	return &modelSession{s: s, last: make(map[string]*routing.LastOwn)}
}

type modelBinding struct {
	owner *modelSession
	epoch uint64
}

func (m *tableModel) anySession(t *rapid.T) *modelSession {
	return rapid.SampledFrom(m.sessions).Draw(t, "session")
}

func anyID(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "id") }

func anyEpoch(t *rapid.T) uint64 { return rapid.Uint64Range(1, 6).Draw(t, "epoch") }

func anyHandle(t *rapid.T) routing.Handle {
	return routing.Handle{Slot: rapid.Uint32Range(0, 3).Draw(t, "slot")}
}

func (s *modelSession) lastOf(id string) *routing.LastOwn {
	if s.last[id] == nil {
		s.last[id] = new(routing.LastOwn)
	}
	return s.last[id]
}

func (m *tableModel) attach(t *rapid.T) {
	s, h := m.anySession(t), anyHandle(t)
	serial, ok := m.table.Attach(s.s, h)
	if ok == s.ended || ok && serial <= m.serial {
		t.Fatalf("serial %d after %d, %v; ended: %v", serial, m.serial, ok, s.ended)
	}
	if !ok {
		return
	}
	if !slices.Contains(s.handles, h) {
		s.handles = append(s.handles, h)
	}
	s.serial, m.serial = serial, serial
}

func (m *tableModel) detach(t *rapid.T) {
	s, h := m.anySession(t), anyHandle(t)
	want := slices.Contains(s.handles, h)
	s.handles = slices.DeleteFunc(s.handles, func(x routing.Handle) bool { return x == h })
	left, serial, found := m.table.Detach(s.s, h)
	if left != len(s.handles) || serial != s.serial || found != want {
		t.Fatalf("%d left, serial %d, %v; want %d, %d, %v", left, serial, found, len(s.handles), s.serial, want)
	}
}

func (m *tableModel) end(t *rapid.T) {
	s := m.anySession(t)
	serial := rapid.SampledFrom([]uint64{s.serial, s.serial - 1}).Draw(t, "serial")
	bound, ended := m.table.EndSession(s.s, serial)
	m.wantEnd(t, s, bound, ended, !s.ended && len(s.handles) == 0 && serial == s.serial)
}

func (m *tableModel) forceEnd(t *rapid.T) {
	s := m.anySession(t)
	bound, ended := m.table.ForceEndSession(s.s)
	m.wantEnd(t, s, bound, ended, !s.ended)
}

func (m *tableModel) wantEnd(t *rapid.T, s *modelSession, bound []routing.BoundID, ended, want bool) {
	if ended != want {
		t.Fatalf("ended: %v, want %v", ended, want)
	}
	if !ended {
		return
	}
	s.ended, s.handles = true, nil
	for _, b := range bound {
		if m.bound[b.ID] != (modelBinding{s, b.Epoch}) {
			t.Fatalf("removed %v", b)
		}
		delete(m.bound, b.ID)
	}
	for id, b := range m.bound {
		if b.owner == s {
			t.Fatalf("did not remove %q", id)
		}
	}
}

// reopen brings a session back under its ID, or finds it alive.
func (m *tableModel) reopen(t *rapid.T) {
	old := m.anySession(t)
	i := slices.IndexFunc(m.sessions, func(x *modelSession) bool { return x.s.ID() == old.s.ID() && !x.ended })
	s := m.table.OpenSession(old.s.ID(), "")
	if i >= 0 && s != m.sessions[i].s || i < 0 && (s == old.s || s.Ended()) {
		t.Fatal("opened a second session, or an ended one")
	}
	if i < 0 {
		m.sessions = append(m.sessions, newModelSession(s))
	}
}

func (m *tableModel) bind(t *rapid.T) {
	id, s, epoch := anyID(t), m.anySession(t), anyEpoch(t)
	held, some := m.bound[id]
	want, wantPrev := routing.Bound, modelBinding{}
	switch {
	case some && (held.epoch > epoch || held.epoch == epoch && held.owner.s.ID() != s.s.ID()):
		want, wantPrev = routing.Superseded, held
	case s.ended:
		want = routing.Dead
	case some && held.owner.s.ID() != s.s.ID():
		wantPrev = held
	}
	prev, got := m.table.Bind(id, s.s, epoch)
	if got != want || prev.Epoch != wantPrev.epoch || wantPrev.owner != nil && prev.Session != wantPrev.owner.s {
		t.Fatalf("%v, prev %+v; want %v, prev %+v", got, prev, want, wantPrev)
	}
	if got == routing.Bound {
		m.bound[id] = modelBinding{s, epoch}
	}
}

func (m *tableModel) unbind(t *rapid.T) {
	id, s, epoch := anyID(t), m.anySession(t), anyEpoch(t)
	want := m.bound[id] == modelBinding{s, epoch}
	if got := m.table.Unbind(id, s.s, epoch); got != want {
		t.Fatalf("%v, want %v", got, want)
	}
	if want {
		delete(m.bound, id)
	}
}

func (m *tableModel) check(t *rapid.T) {
	count := make(map[*modelSession]int)
	for _, id := range []string{"a", "b", "c", "d"} {
		b, want := m.bound[id]
		route, ok := m.table.Lookup([]byte(id))
		if ok != want || ok && (route.Session != b.owner.s || route.Epoch != b.epoch) {
			t.Fatalf("%q: %+v, %v; want %+v", id, route, ok, b)
		}
		count[b.owner]++
		for _, s := range m.sessions {
			for _, last := range []*routing.LastOwn{s.lastOf(id), s.lastOf("")} {
				if got := m.table.Holds(s.s, []byte(id), last); got != (want && b.owner == s) {
					t.Fatalf("%q: held: %v; want %+v", id, got, b)
				}
			}
		}
	}
	for _, s := range m.sessions {
		if s.s.Ended() != s.ended || !slices.Equal(s.s.Handles(), s.handles) || s.s.Len() != count[s] || len(s.s.Bound()) != count[s] {
			t.Fatalf("session: ended %v, %v, %d IDs; want %+v, %d IDs", s.s.Ended(), s.s.Handles(), s.s.Len(), s, count[s])
		}
	}
	if m.table.Len() != len(m.bound) {
		t.Fatalf("%d IDs, want %d", m.table.Len(), len(m.bound))
	}
}
