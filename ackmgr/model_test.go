package ackmgr

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// pair drives a Manager and a naive model of it side by side, and fails at the
// first difference. The model is plain slices, searched and sorted.
type pair struct {
	*rapid.T
	m   *Manager
	now int64 // latest time given to Advance

	order     int // counts arms and joins
	depth     int // of callbacks
	pending   []*fact
	ended     []Token
	forgotten []Token // handed out two tags ago
	due       []*fact // what Advance calls that have not returned have yet to report
	lists     []List
	gone      []Token // ended under the previous tag
	tag       uint16

	limit int   // most pending of ours
	extra int   // pending entries that are not ours
	queue []ref // free slots, next to be used first
	fresh ref   // slots never used, up to a page's end, come first
}

// fact is what the model knows of a pending entry.
type fact struct {
	token        Token
	entry        Entry
	deadline     int64 // no less than the time of arming
	armed        int
	dest, origin List
	joined       int // order in dest
	doomed       [2]int
}

const (
	testTag  = 0xabc
	testLoop = 7
	ballast  = pageSize - 24 // entries that keep slots from use
)

// newPair makes a Manager that has a page of fresh slots, or one that has but few
// slots, used before, whose generations are about to wrap.
func newPair(t *rapid.T) *pair {
	now := rapid.Int64Range(-5000, 1<<40).Draw(t, "epoch")
	p := &pair{T: t, now: now, tag: testTag, limit: 24}
	p.m = New(Config{Tag: testTag, Loop: testLoop, Max: p.limit}, now)
	if rapid.Bool().Draw(t, "scarce") {
		p.extra = ballast
		p.m.max = pageSize
		for range ballast {
			p.m.Arm(Entry{}, now+maxAhead, 0, 0)
		}
		p.fresh = pageSize
		for r := ref(ballast); r < pageSize; r++ {
			p.m.End(mustArm(t, p.m, now, 0, 0))
			p.m.slab.slot(r).state = maxGeneration - 1
			p.queue = append(p.queue, r)
		}
	}
	return p
}

func (p *pair) entry() Entry {
	return Entry{
		Seq:     rapid.Uint64().Draw(p.T, "seq"),
		Session: rapid.Uint64().Draw(p.T, "session"),
		Conn:    rapid.Uint32().Draw(p.T, "conn"),
		Sum:     rapid.Uint32().Draw(p.T, "sum"),
		Flags:   rapid.Uint8().Draw(p.T, "flags"),
	}
}

func (p *pair) list() List {
	return rapid.SampledFrom(append([]List{0}, p.lists...)).Draw(p.T, "list")
}

// token draws a pending one mostly, else one that has ended.
func (p *pair) token() (Token, *fact) {
	if len(p.pending) > 0 && rapid.IntRange(0, 3).Draw(p.T, "which") > 0 {
		f := rapid.SampledFrom(p.pending).Draw(p.T, "pending")
		return f.token, f
	}
	if len(p.ended) > 0 {
		return rapid.SampledFrom(p.ended).Draw(p.T, "ended"), nil
	}
	return 0, nil
}

// gap draws a span of time: mostly around the boundaries of the wheel's levels.
func (p *pair) gap() int64 {
	return rapid.OneOf(
		rapid.Int64Range(0, 200),
		rapid.Map(rapid.IntRange(0, 22), func(n int) int64 { return int64(1)<<n - 1 }),
		rapid.Map(rapid.IntRange(0, 22), func(n int) int64 { return int64(1) << n }),
		rapid.Int64Range(0, 3_600_000),
	).Draw(p.T, "gap")
}

func (p *pair) newList() {
	if len(p.lists) < 6 {
		l := p.m.NewList()
		if l == 0 || slices.Contains(p.lists, l) || !p.m.Empty(l) {
			p.Fatalf("NewList returned %d; in use %d", l, p.lists)
		}
		p.lists = append(p.lists, l)
	}
}

func (p *pair) freeList() {
	l := p.list()
	if l != 0 && p.m.Empty(l) {
		p.m.FreeList(l)
		p.lists = slices.DeleteFunc(p.lists, func(x List) bool { return x == l })
	}
}

func (p *pair) arm() {
	f := &fact{entry: p.entry(), dest: p.list(), origin: p.list()}
	deadline := p.now + p.gap() - rapid.SampledFrom([]int64{0, 0, 0, 100, 1 << 50}).Draw(p.T, "past")
	f.deadline = max(deadline, p.now)
	p.order++
	f.armed, f.joined = p.order, p.order
	t, ok := p.m.Arm(f.entry, deadline, f.dest, f.origin)
	if ok != (len(p.pending) < p.limit) {
		p.Fatalf("Arm is %v with %d pending", ok, len(p.pending))
	}
	if !ok {
		return
	}
	want := p.takeSlot()
	if t.slot() != want || t.Tag() != p.tag || t.Loop() != testLoop || slices.Contains(p.ended, t) {
		p.Fatalf("Arm returned %#x, want slot %d and never the same", t, want)
	}
	f.token = t
	p.pending = append(p.pending, f)
}

// takeSlot says which slot must be next: the FIFO property.
func (p *pair) takeSlot() ref {
	if p.fresh < pageSize {
		p.fresh++
		return p.fresh - 1
	}
	r := p.queue[0]
	p.queue = p.queue[1:]
	return r
}

// drop makes the model's entry an ended one.
func (p *pair) drop(f *fact) {
	i := slices.Index(p.pending, f)
	if i < 0 {
		p.Fatalf("%#x ended twice", f.token)
	}
	p.pending = slices.Delete(p.pending, i, i+1)
	p.ended = append(p.ended, f.token)
	p.queue = append(p.queue, f.token.slot())
}

func (p *pair) end() {
	t, f := p.token()
	if got := p.m.End(t); got != (f != nil) {
		p.Fatalf("End(%#x) = %v", t, got)
	}
	if f != nil {
		p.drop(f)
	}
}

func (p *pair) take() {
	t, f := p.token()
	session := rapid.Uint64().Draw(p.T, "session")
	if f != nil && rapid.Bool().Draw(p.T, "own session") {
		session = f.entry.Session
	}
	var want Entry
	mine := f != nil && f.entry.Session == session
	if mine {
		want = f.entry
	}
	if e, got := p.m.Take(t, session); got != mine || e != want {
		p.Fatalf("Take(%#x, %d) = %+v, %v; want %+v, %v", t, session, e, got, want, mine)
	}
	if mine {
		p.drop(f)
	}
}

func (p *pair) redirect() {
	t, f := p.token()
	e, dest := p.entry(), p.list()
	if got := p.m.Redirect(t, e, dest); got != (f != nil) {
		p.Fatalf("Redirect(%#x) = %v", t, got)
	}
	if f == nil {
		return
	}
	p.order++
	f.dest, f.joined, f.doomed[0] = dest, p.order, 0
	f.entry.Session, f.entry.Sum, f.entry.Flags = e.Session, e.Sum, e.Flags
}

func (p *pair) advance() {
	now := p.now + p.gap() - rapid.SampledFrom([]int64{0, 0, 0, 50}).Draw(p.T, "back")
	p.now = max(p.now, now)
	var due []*fact
	for _, f := range p.pending {
		if f.deadline <= p.now && !slices.Contains(p.due, f) {
			due = append(due, f)
		}
	}
	slices.SortFunc(due, func(a, b *fact) int {
		if a.deadline != b.deadline {
			return int(a.deadline - b.deadline)
		}
		return a.armed - b.armed
	})
	p.due = append(p.due, due...)
	next := func() *fact {
		for len(p.due) > 0 {
			f := p.due[0]
			p.due = p.due[1:]
			if slices.Contains(p.pending, f) {
				return f
			}
		}
		return nil
	}
	p.m.Advance(now, p.reported("Advance", next))
	if f := next(); f != nil {
		p.Fatalf("Advance did not report %#x", f.token)
	}
}

func (p *pair) endDest() {
	l := p.list()
	p.endAll("EndDest", 0, l, p.m.EndDest, func(f *fact) (List, int) { return f.dest, f.joined })
}

func (p *pair) endOrigin() {
	l := p.list()
	p.endAll("EndOrigin", 1, l, p.m.EndOrigin, func(f *fact) (List, int) { return f.origin, f.armed })
}

func (p *pair) endAll(name string, side int, l List, call func(List, func(Token, Entry)), on func(*fact) (List, int)) {
	p.order++
	mark := p.order // an entry belongs to the call that reached it first, until redirected
	var doomed []*fact
	for _, f := range p.pending {
		if have, _ := on(f); l != 0 && have == l && f.doomed[side] == 0 {
			f.doomed[side] = mark
			doomed = append(doomed, f)
		}
	}
	slices.SortFunc(doomed, func(a, b *fact) int { _, x := on(a); _, y := on(b); return x - y })
	next := func() *fact {
		for len(doomed) > 0 {
			f := doomed[0]
			doomed = doomed[1:]
			if f.doomed[side] == mark && slices.Contains(p.pending, f) {
				return f
			}
		}
		return nil
	}
	call(l, p.reported(name, next))
	if f := next(); f != nil {
		p.Fatalf("%s did not report %#x", name, f.token)
	}
}

// reported returns a callback that wants the facts that next returns, in that
// order, and does things of its own in between.
func (p *pair) reported(name string, next func() *fact) func(Token, Entry) {
	return func(t Token, e Entry) {
		f := next()
		if f == nil {
			p.Fatalf("%s reported %#x too much", name, t)
		}
		if t != f.token || e != f.entry {
			p.Fatalf("%s reported %#x %+v, want %#x %+v", name, t, e, f.token, f.entry)
		}
		p.drop(f)
		p.check()
		if p.depth < 3 {
			p.depth++
			for range rapid.IntRange(0, 3).Draw(p.T, "nested") {
				p.step()
			}
			p.depth--
		}
	}
}

func (p *pair) setTag() {
	if p.m.Len() != 0 {
		return
	}
	p.tag++
	p.m.SetTag(p.tag)
	p.forgotten = append(p.forgotten, p.gone...)
	p.gone, p.ended = p.ended, nil
}

func (p *pair) step() {
	steps := []func(){
		p.arm, p.arm, p.arm, p.arm, p.arm, p.end, p.take, p.take, p.redirect, p.advance, p.advance,
		p.endDest, p.endOrigin, p.newList, p.freeList, p.setTag,
	}
	steps[rapid.IntRange(0, len(steps)-1).Draw(p.T, "step")]()
	p.check()
}

// check compares all that can be seen from outside.
func (p *pair) check() {
	if got := p.m.Len(); got != len(p.pending)+p.extra {
		p.Fatalf("Len = %d, want %d", got, len(p.pending)+p.extra)
	}
	used := map[List]bool{}
	for _, f := range p.pending {
		if e, status := p.m.Lookup(f.token); status != Pending || e != f.entry {
			p.Fatalf("Lookup(%#x) = %+v, %d; want %+v, Pending", f.token, e, status, f.entry)
		}
		used[f.dest] = used[f.dest] || f.doomed[0] == 0
		used[f.origin] = used[f.origin] || f.doomed[1] == 0
	}
	for _, l := range p.lists {
		if p.m.Empty(l) == used[l] {
			p.Fatalf("Empty(%d) = %v", l, !used[l])
		}
	}
	p.wantStatus(Late, p.ended)
	p.wantStatus(Late, p.gone)
	p.wantStatus(Forged, p.forgotten)
}

func (p *pair) wantStatus(want Status, tokens []Token) {
	for _, t := range tokens {
		if e, got := p.m.Lookup(t); got != want || e != (Entry{}) {
			p.Fatalf("Lookup(%#x) = %+v, %d; want status %d", t, e, got, want)
		}
	}
}

// Every operation in any order, callbacks that call back in included, does what
// the model does: each entry ends exactly once, in order, at its time.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPair(t)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			p.step()
		}
		for _, f := range p.pending { // whatever is left expires in the end
			p.now = max(p.now, f.deadline)
		}
		left := len(p.pending)
		p.m.Advance(p.now, func(tok Token, _ Entry) {
			i := slices.IndexFunc(p.pending, func(f *fact) bool { return f.token == tok })
			p.drop(p.pending[i])
			left--
		})
		if left != 0 {
			t.Fatalf("%d entries never ended", left)
		}
		p.check()
	})
}
