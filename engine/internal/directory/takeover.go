package directory

import (
	"fmt"
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/ranking"
	"distmsg/routing"
)

// A bind that displaces another session's binding is a takeover. It costs the registry two calls,
// and each node a frame and a kick. Two sessions that take one ID from each other would do
// thousands a second. So each ID has a budget: TakeoverBurst takeovers at once, and from then on
// one in each TakeoverInterval (S32). While an ID is over its budget, a bind of it waits for its
// time outside its lane, and holds up nothing else. If it would have to wait for longer than
// longestTurn, it is refused.
//
// For each ID the node knows when its takeovers are paid for: each one adds an interval. All nodes
// count all takeovers, as they notify each other of them. A bind that has to wait is counted when
// it begins to, whoever holds the ID then, so that each one has a time of its own. If it is not
// bound in the end, that is paid back.
//
// What comes later may overtake a bind that waits, and no harm is done. An unbind and a re-assert
// name an epoch, and the bind that waits has none yet. Another bind of the same session waits as
// well.

const (
	// longestTurn bounds how long a bind waits. stillWanted refuses binds that are older than
	// Config.LoopGap, so it is less than that in any case.
	longestTurn = 2 * time.Second
	// turnsTogether is how exactly the time of a bind is kept: those that are due at about the same
	// time go to the registry together.
	turnsTogether = 10 * time.Millisecond
	// debtSets is how many sets of IDs there are, and debtWays how many IDs are in one. An ID owes
	// something for as long as its latest takeovers cost. No registry does so many in that time.
	debtSets = 1 << 14
	debtWays = 4
)

// takeovers is what this node knows of the takeovers of late. Methods that are called with mu held
// say so; any goroutine may call the others.
type takeovers struct {
	// static
	dir      *Directory
	interval time.Duration // what a takeover costs
	slack    time.Duration // an ID that owes as much may still be taken at once
	longest  time.Duration // a bind older than that does not wait
	reason   string        // why a bind is refused
	seed     maphash.Seed

	done, delayed, refused atomic.Uint64 // for Stats

	mu      sync.Mutex
	debts   [][debtWays]debt     // guarded by mu, as all below; nil until there is one
	waiting map[waiter]*lateBind // the first of each session for each ID
	queue   ranking.Ranking[*lateBind]
	timer   *time.Timer // nil until a bind waits
	over    bool        // the engine stops, and nobody waits any more
}

// debt says when the takeovers of an ID are paid for, on the engine's clock.
type debt struct {
	id   uint64 // its hash
	paid time.Duration
}

// waiter is a session that waits for an ID.
type waiter struct {
	session routing.SessionID
	id      string
}

// lateBind is an ID of a request that waits. It counts in request.left.
type lateBind struct {
	r   *Request
	i   int
	due time.Duration // on the engine's clock
	// its takeover has been counted; if not, that of an earlier bind of its session has
	counted bool
}

func (b *lateBind) waiter() waiter { return waiter{b.r.Session.ID(), b.r.items[b.i].id} }

// GoesBefore says which one is due first.
func (b *lateBind) GoesBefore(c *lateBind) bool { return b.due < c.due }

func (b *lateBind) StandsAt(int) {}

func newTakeovers(d *Directory) *takeovers {
	c := &d.cfg
	return &takeovers{
		dir:      d,
		interval: c.TakeoverInterval,
		slack:    time.Duration(c.TakeoverBurst-1) * c.TakeoverInterval,
		longest:  min(longestTurn, c.LoopGap*2/3),
		reason:   fmt.Sprintf("the ID changes hands more often than once in %v, and other binds of it wait (takeover-interval)", c.TakeoverInterval),
		seed:     maphash.MakeSeed(),
		waiting:  make(map[waiter]*lateBind),
	}
}

// heard counts a takeover at another node.
func (t *takeovers) heard(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.owe(id)
}

// took counts a takeover by an item of a request, unless it has waited and is counted already. Call
// it in the lane of the ID.
func (t *takeovers) took(it *item) {
	t.done.Add(1)
	it.took = true
	if !it.counted {
		t.heard(it.id)
	}
}

// owe adds a takeover to the debt of an ID. It returns when all takeovers before it are paid for.
// An ID that is not in its set replaces the one that owes least. The caller holds mu.
func (t *takeovers) owe(id string) (before time.Duration) {
	if t.debts == nil {
		t.debts = make([][debtWays]debt, debtSets)
	}
	at := t.debtOf(id)
	if at == nil {
		h, set := t.place(id)
		at = &set[0]
		for i := range set {
			if set[i].paid < at.paid {
				at = &set[i]
			}
		}
		*at = debt{id: h}
	}
	before = max(at.paid, t.dir.cfg.Clock())
	at.paid = before + t.interval
	return before
}

// place returns the hash of an ID and the set that it belongs to. The caller holds mu, and there
// are debts.
func (t *takeovers) place(id string) (hash uint64, set *[debtWays]debt) {
	hash = maphash.String(t.seed, id)
	return hash, &t.debts[hash%debtSets]
}

// debtOf returns what is known of an ID, or nil if it owes nothing. The caller holds mu.
func (t *takeovers) debtOf(id string) *debt {
	if t.debts == nil {
		return nil
	}
	h, set := t.place(id)
	for i := range set {
		if set[i].id == h {
			return &set[i]
		}
	}
	return nil
}

// admit returns the IDs of a request that may be bound now. The others wait or are refused. Call it
// in the lane of the IDs.
func (t *takeovers) admit(r *Request, mine []int) []int {
	t.mu.Lock()
	defer t.mu.Unlock()
	// which displaces nobody who is alive
	if t.debts == nil || t.over || r.Policy == codec.PolicyRejectNew {
		return mine
	}
	rebuilding := t.dir.registry.Rebuilding()
	now := make([]int, 0, len(mine))
	for _, i := range mine {
		it := &r.items[i]
		switch {
		// It has waited, or it takes nothing from anybody.
		case it.counted, it.epoch != 0 && (!rebuilding || t.dir.bindings.knows(r.Session, *it)):
			now = append(now, i)
		case !t.late(r, i):
			now = append(now, i)
		}
	}
	return now
}

// late makes an ID of a request wait, or refuses it, if it may not be bound now. It returns false
// if it may. The caller holds mu.
func (t *takeovers) late(r *Request, i int) bool {
	id := r.items[i].id
	d := t.debtOf(id)
	if d == nil {
		return false
	}
	now := t.dir.cfg.Clock()
	if d.paid <= now+t.slack {
		return false
	}
	b := &lateBind{r: r, i: i}
	first := t.waiting[b.waiter()]
	switch {
	case first == nil && d.paid-t.slack-r.since > t.longest:
		t.refused.Add(1)
		r.refuse([]int{i}, codec.CodeOverflow, t.reason)
		return true
	case first == nil:
		b.due, b.counted = t.owe(id)-t.slack, true
		t.waiting[b.waiter()] = b
	default:
		b.due = first.due
		// its client has come back, and has asked again
		if first.r.Ended != nil && first.r.Ended.Load() {
			b.counted, first.counted = first.counted, false
			t.waiting[b.waiter()] = b
		}
	}
	t.delayed.Add(1)
	r.left.Add(1)
	t.queue.Add(b)
	if t.queue[0] == b {
		t.arm(b.due - now)
	}
	return true
}

// arm sets the timer. The caller holds mu.
func (t *takeovers) arm(after time.Duration) {
	after = (after + turnsTogether).Truncate(turnsTogether)
	if t.timer == nil {
		t.timer = time.AfterFunc(after, func() { t.release(t.dir.cfg.Clock()) })
		return
	}
	t.timer.Reset(after)
}

// release queues the binds that are due in their lanes again.
func (t *takeovers) release(now time.Duration) {
	t.mu.Lock()
	var due []*lateBind
	for len(t.queue) > 0 && t.queue[0].due <= now {
		b := t.queue.TakeFirst()
		if t.waiting[b.waiter()] == b {
			delete(t.waiting, b.waiter())
		}
		due = append(due, b)
	}
	if len(t.queue) > 0 {
		t.arm(t.queue[0].due - now)
	}
	t.mu.Unlock()
	t.resume(due)
}

// resume queues binds that have waited in the lines of their connections.
func (t *takeovers) resume(due []*lateBind) {
	type of struct {
		r    *Request
		lane int
		verb Verb
	}
	ls := t.dir.lanes
	parts := make(map[of][]int)
	var order []of
	for _, b := range due {
		to := of{b.r, ls.of([]byte(b.r.items[b.i].id)), Bind}
		if b.counted {
			to.verb = bindLate
		}
		if parts[to] == nil {
			order = append(order, to)
		}
		parts[to] = append(parts[to], b.i)
	}
	for _, to := range order {
		p := part{to.r, parts[to]}
		p.left.Add(int32(1 - len(p.mine))) // from now on they count as one
		if !ls.try(to.lane, account{conn: p.Conn}, to.verb, p) {
			p.refuse(p.mine, codec.CodeOverflow, ReasonRequests)
			if to.verb == bindLate {
				t.payBack([]part{p})
			}
			p.done()
		}
	}
}

// countedBefore notes that binds have waited, and that their takeovers are counted. Call it in the
// lane of the IDs, as payBack.
func countedBefore(parts []part) {
	for _, p := range parts {
		for _, i := range p.mine {
			p.items[i].counted = true
		}
	}
}

// payBack takes back what was counted for IDs that were not taken from anybody in the end.
func (t *takeovers) payBack(parts []part) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range parts {
		for _, i := range p.mine {
			if p.items[i].took {
				continue
			}
			if d := t.debtOf(p.items[i].id); d != nil {
				d.paid -= t.interval
			}
		}
	}
}

// stop ends all waits.
func (t *takeovers) stop() {
	t.mu.Lock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
	t.mu.Unlock()
	t.release(math.MaxInt64)
}
