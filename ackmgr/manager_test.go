package ackmgr

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"
)

func ExampleManager() {
	m := New(Config{Tag: 0x5a1, Loop: 2}, 0)
	alice, bob := m.NewList(), m.NewList()

	acked, _ := m.Arm(Entry{Seq: 1, Session: 77}, 5000, bob, alice)
	m.Arm(Entry{Seq: 2, Session: 77}, 1000, bob, alice)
	m.Arm(Entry{Seq: 3, Session: 77}, 5000, bob, alice)

	if e, status := m.Lookup(acked); status == Pending && e.Session == 77 {
		m.End(acked)
		fmt.Println("acked", e.Seq)
	}
	m.Advance(1000, func(_ Token, e Entry) { fmt.Println("timeout", e.Seq) })
	m.EndDest(bob, func(_ Token, e Entry) { fmt.Println("lost", e.Seq) })
	_, status := m.Lookup(acked)
	fmt.Println("a second ack is late:", status == Late)
	// Output:
	// acked 1
	// timeout 2
	// lost 3
	// a second ack is late: true
}

func ignore(Token, Entry) {}

// mustArm arms an entry with the deadline as its Seq.
func mustArm(t interface{ Fatal(...any) }, m *Manager, deadline int64, dest, origin List) Token {
	tok, ok := m.Arm(Entry{Seq: uint64(deadline)}, deadline, dest, origin)
	if !ok {
		t.Fatal("Arm: full")
	}
	return tok
}

func wantPanic(t *testing.T, name string, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Errorf("%s did not panic", name)
		}
	}()
	f()
}

func TestTokenLayout(t *testing.T) {
	tok := makeToken(0x123, 0x45, 0x2abcde, 0x3fedcb)
	if want := Token(0x123<<52 | 0x45<<44 | 0x2abcde<<22 | 0x3fedcb); tok != want {
		t.Errorf("token %#x, want %#x", tok, want)
	}
	if tok.Tag() != 0x123 || tok.Loop() != 0x45 || tok.slot() != 0x2abcde || tok.generation() != 0x3fedcb {
		t.Errorf("%#x does not come apart again", tok)
	}
	first := mustArm(t, New(Config{}, 0), 0, 0, 0)
	if first == 0 {
		t.Error("the first token of the zero Config is 0")
	}
}

func TestLookupStatus(t *testing.T) {
	m := New(Config{Tag: 5, Loop: 3}, 0)
	ended := mustArm(t, m, 10, 0, 0)
	m.End(ended)
	pending := mustArm(t, m, 10, 0, 0)
	slot, gen := pending.slot(), pending.generation()
	for _, c := range []struct {
		name  string
		token Token
		want  Status
	}{
		{"pending", pending, Pending},
		{"ended", ended, Late},
		{"zero", 0, Forged},
		{"all ones", math.MaxUint64, Forged},
		{"another tag", makeToken(6, 3, slot, gen), Forged},
		{"another loop", makeToken(5, 4, slot, gen), Forged},
		{"next generation", makeToken(5, 3, slot, gen+1), Forged},
		{"generation 0", makeToken(5, 3, slot, 0), Forged},
		{"next slot", makeToken(5, 3, slot+1, gen), Forged},
		{"last slot", makeToken(5, 3, maxSlots-1, gen), Forged},
	} {
		if _, got := m.Lookup(c.token); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
		if c.want != Pending && (m.End(c.token) || m.Redirect(c.token, Entry{}, 0)) {
			t.Errorf("%s: End or Redirect took it", c.name)
		}
	}
}

func TestSetTag(t *testing.T) {
	m := New(Config{Tag: 0xf001}, 0)
	old := mustArm(t, m, 10, 0, 0)
	if old.Tag() != 1 {
		t.Errorf("tag %#x, want the low 12 bits of 0xf001", old.Tag())
	}
	wantPanic(t, "SetTag with a pending entry", func() { m.SetTag(2) })
	m.End(old)
	for i, want := range []Status{Late, Forged, Forged} {
		m.SetTag(uint16(2 + i))
		if _, got := m.Lookup(old); got != want {
			t.Errorf("after %d SetTags: status %d, want %d", i+1, got, want)
		}
	}
	tok := mustArm(t, m, 10, 0, 0)
	if tok.Tag() != 4 {
		t.Errorf("token %#x, want the new tag 4", tok)
	}
	if m.End(makeToken(3, 0, tok.slot(), tok.generation())) || !m.End(tok) {
		t.Error("a pending entry must end under its own tag only")
	}
}

// A generation comes back only after all others, is never 0, and once a slot
// has been through all of them no old token of it looks forged.
func TestGenerationWraps(t *testing.T) {
	m := New(Config{}, 0)
	m.End(mustArm(t, m, 0, 0, 0))
	m.slab.slot(0).state = maxGeneration - 1
	var got []uint32
	for len(got) < 3 {
		tok := mustArm(t, m, 0, 0, 0)
		m.End(tok)
		if tok.slot() == 0 {
			got = append(got, tok.generation())
		}
	}
	if want := []uint32{maxGeneration, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("generations %d, want %d", got, want)
	}
	for gen, want := range map[uint32]Status{0: Forged, 2: Late, 3: Late, maxGeneration: Late} {
		if _, got := m.Lookup(makeToken(0, 0, 0, gen)); got != want {
			t.Errorf("generation %d: status %d, want %d", gen, got, want)
		}
	}
}

// A slot is reused when all other free ones of the page have been.
func TestReuseIsFIFO(t *testing.T) {
	m := New(Config{}, 0)
	var free []ref
	for range pageSize {
		free = append(free, mustArm(t, m, 0, 0, 0).slot())
	}
	for i := range free { // ended in an order unlike that of arming
		free[i] = ref(i * 1021 % pageSize)
		m.End(makeToken(0, 0, free[i], 1))
	}
	for i := range 3 * pageSize {
		tok := mustArm(t, m, 0, 0, 0)
		if want := free[i%pageSize]; tok.slot() != want || tok.generation() != uint32(i/pageSize+2) {
			t.Fatalf("arm %d used slot %d generation %d, want slot %d", i, tok.slot(), tok.generation(), want)
		}
		m.End(tok)
	}
}

func TestMax(t *testing.T) {
	m := New(Config{Max: 2}, 0)
	a := mustArm(t, m, 10, 0, 0)
	mustArm(t, m, 10, 0, 0)
	if tok, ok := m.Arm(Entry{}, 10, 0, 0); ok || tok != 0 {
		t.Errorf("third Arm returned %#x, %v", tok, ok)
	}
	m.End(a)
	mustArm(t, m, 10, 0, 0)
	if New(Config{}, 0).max != 1<<20 {
		t.Error("the default Max is not 1<<20")
	}
	wantPanic(t, "Max over 1<<22", func() { New(Config{Max: maxSlots + 1}, 0) })
	wantPanic(t, "negative Max", func() { New(Config{Max: -1}, 0) })
}

func TestMisusedLists(t *testing.T) {
	m := New(Config{}, 0)
	l, used := m.NewList(), m.NewList()
	asDest, asOrigin := mustArm(t, m, 10, used, 0), mustArm(t, m, 10, 0, used)
	wantPanic(t, "FreeList with a dest entry", func() { m.FreeList(used) })
	m.End(asDest)
	wantPanic(t, "FreeList with an origin entry", func() { m.FreeList(used) })
	m.FreeList(l)
	for name, f := range map[string]func(){
		"FreeList":        func() { m.FreeList(l) },
		"Empty":           func() { m.Empty(l) },
		"Arm with dest":   func() { m.Arm(Entry{}, 10, l, 0) },
		"Arm with origin": func() { m.Arm(Entry{}, 10, 0, l) },
		"Redirect":        func() { m.Redirect(asOrigin, Entry{}, l) },
		"EndDest":         func() { m.EndDest(l, ignore) },
		"EndOrigin":       func() { m.EndOrigin(l, ignore) },
		"not a list":      func() { m.EndOrigin(5, ignore) },
	} {
		wantPanic(t, name+" of a freed list", f)
	}
	if m.Len() != 1 || !m.End(asOrigin) {
		t.Error("a refused call changed something")
	}
	m.FreeList(0)
	m.EndDest(0, ignore)
	m.EndOrigin(0, ignore)
}

// A callback that keeps the list filled must not keep the call going.
func TestRearmingCallbacksEnd(t *testing.T) {
	m := New(Config{}, 0)
	l := m.NewList()
	for name, call := range map[string]func(func(Token, Entry)){
		"Advance":   func(f func(Token, Entry)) { m.Advance(100, f) },
		"EndDest":   func(f func(Token, Entry)) { m.EndDest(l, f) },
		"EndOrigin": func(f func(Token, Entry)) { m.EndOrigin(l, f) },
	} {
		calls := 0
		mustArm(t, m, 50, l, l)
		mustArm(t, m, 60, l, l)
		call(func(Token, Entry) {
			if calls++; calls > 2 {
				t.Fatalf("%s reports what its callback armed", name)
			}
			mustArm(t, m, 50, l, l)
		})
		if calls != 2 || m.Len() != 2 {
			t.Errorf("%s: %d calls, %d pending; want 2 and 2", name, calls, m.Len())
		}
		m.EndDest(l, ignore)
	}
}

// A connection's callback may give its own list back.
func TestFreeListInCallback(t *testing.T) {
	m := New(Config{}, 0)
	l := m.NewList()
	mustArm(t, m, 50, l, 0)
	mustArm(t, m, 60, l, 0)
	calls := 0
	m.EndDest(l, func(Token, Entry) {
		if calls++; calls == 1 {
			m.FreeList(l)
			mustArm(t, m, 70, m.NewList(), 0)
		}
	})
	if calls != 2 || m.Len() != 1 {
		t.Errorf("%d calls, %d pending; want 2 and 1", calls, m.Len())
	}
}

func heapAlloc() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestMemoryOfAMillionPending(t *testing.T) {
	if size := unsafe.Sizeof(slot{}); size > 64 { // else it takes more than one cache line
		t.Errorf("a slot has %d bytes, want at most 64", size)
	}
	const entries, conns, limit = 1_000_000, 20_000, 64 << 20
	before := heapAlloc()
	m := New(Config{}, 0)
	lists := make([]List, conns)
	for i := range lists {
		lists[i] = m.NewList()
	}
	for i := range entries {
		mustArm(t, m, int64(i%60_000), lists[i%conns], lists[i*7%conns])
	}
	used := heapAlloc() - before
	t.Logf("%d entries on %d connections: %.1f MiB", entries, conns, float64(used)/(1<<20))
	if used >= limit {
		t.Errorf("%d bytes, want less than %d", used, limit)
	}
	runtime.KeepAlive(m)
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	m := New(Config{}, 0)
	dest, origin := m.NewList(), m.NewList()
	now := int64(0)
	for name, f := range map[string]func(){
		"arm, look up, end": func() {
			tok := mustArm(t, m, now+5000, dest, origin)
			m.Lookup(tok)
			m.End(tok)
		},
		"arm, redirect, expire": func() {
			m.Redirect(mustArm(t, m, now+300, dest, origin), Entry{}, origin)
			now += 100
			m.Advance(now, ignore)
		},
		"connections come and go": func() {
			d, o := m.NewList(), m.NewList()
			for range 4 {
				mustArm(t, m, now+5000, d, o)
				mustArm(t, m, now+5000, o, d)
			}
			m.EndDest(d, ignore)
			m.EndOrigin(d, ignore)
			m.FreeList(d)
			m.FreeList(o)
		},
	} {
		if n := testing.AllocsPerRun(2*pageSize, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	// two, two, one inside EndDest
	if lists := m.slab.heads.len - New(Config{}, 0).slab.heads.len; lists > 5 {
		t.Errorf("%d list heads for at most 5 in use at once", lists)
	}
}

func FuzzLookup(f *testing.F) {
	m := New(Config{Tag: 9, Loop: 1}, 0)
	pending := mustArm(f, m, 10, 0, 0)
	ended := mustArm(f, m, 10, 0, 0)
	m.End(ended)
	for _, tok := range []Token{0, 1, pending, ended, math.MaxUint64, pending + 1, pending ^ 1<<tagShift} {
		f.Add(uint64(tok))
	}
	f.Fuzz(func(t *testing.T, v uint64) {
		want := Forged
		switch Token(v) {
		case pending:
			want = Pending
		case ended:
			want = Late
		}
		if _, got := m.Lookup(Token(v)); got != want {
			t.Errorf("Lookup(%#x): status %d, want %d", v, got, want)
		}
		if Token(v) != pending && (m.End(Token(v)) || m.Redirect(Token(v), Entry{}, 0)) {
			t.Errorf("%#x is not pending, but End or Redirect took it", v)
		}
	})
}

// The common case: the ack comes long before the deadline, and inflight others
// are pending meanwhile.
func BenchmarkArmEnd(b *testing.B) {
	for _, inflight := range []int{1, 10_000, 1_000_000} {
		b.Run(fmt.Sprintf("inflight=%d", inflight), func(b *testing.B) {
			m := New(Config{Max: maxSlots}, 0)
			lists := make([]List, 200)
			for i := range lists {
				lists[i] = m.NewList()
			}
			ring := make([]Token, inflight)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.End(ring[i%inflight])
				ring[i%inflight] = mustArm(b, m, int64(i/1000)+5000, lists[i%200], lists[i%199])
				if i%1000 == 0 {
					m.Advance(int64(i/1000), ignore)
				}
			}
		})
	}
}

// The worst case: every entry lives to its deadline and goes down every level
// on the way. An op is one entry, armed and expired.
func BenchmarkArmExpire(b *testing.B) {
	for _, after := range []int64{10, 1000, 30_000} {
		b.Run(fmt.Sprintf("after=%dms", after), func(b *testing.B) {
			m := New(Config{Max: maxSlots}, 0)
			l, o := m.NewList(), m.NewList()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				now := int64(i / 20)
				mustArm(b, m, now+after, l, o)
				if i%20 == 0 {
					m.Advance(now, ignore)
				}
			}
		})
	}
}

// How long one Advance can hold the loop up: a million entries are pending all
// the time, none is ever acked, and Advance is called every millisecond. Of
// several rounds the best counts, since the others had a busy machine in them.
func BenchmarkLongestAdvance(b *testing.B) {
	for _, after := range []int64{5000, 30_000, 70_000} {
		b.Run(fmt.Sprintf("after=%dms", after), func(b *testing.B) {
			best := time.Hour
			for b.Loop() {
				best = min(best, longestAdvance(b, after))
			}
			b.ReportMetric(float64(best.Microseconds()), "longest-µs")
		})
	}
}

func longestAdvance(b *testing.B, after int64) (longest time.Duration) {
	m := New(Config{Max: maxSlots}, 0)
	l, o := m.NewList(), m.NewList()
	for now := range 2 * after {
		for range 1_000_000 / after {
			mustArm(b, m, now+after, l, o)
		}
		began := time.Now()
		m.Advance(now, ignore)
		longest = max(longest, time.Since(began))
	}
	return longest
}
