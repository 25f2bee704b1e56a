package limit

import (
	"cmp"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// Terms are what the clients of one identity may use together at this node.
type Terms struct {
	Messages, Bytes, Lookups Rate
	// 0 means any number.
	Connections, Sessions, IDs, Watched, InFlight, PendingBytes int
}

// Account counts what the clients of one identity use. Any goroutine may use it. It lives in its
// book as long as a connection has it, and longer if the book lists it as an offender.
type Account struct {
	Name string // static

	// The tokens that the connections share.
	Messages, Bytes, Lookups Pool
	// InFlight counts the sends that may wait for an ack, of all connections.
	InFlight Count
	// PendingBytes counts the bytes that may wait to be written, of all connections.
	PendingBytes Count

	book  *Book // static
	terms atomic.Pointer[Terms]

	listed   atomic.Bool          // it is in book.offenders; set with book.mu held
	refused  [Kinds]atomic.Uint64 // how often it has reached limits while it was listed
	unlisted atomic.Uint64        // and while it was not

	source func() Terms // guarded by book.mu; says what terms are now
	conns  int          // guarded by book.mu
}

// Terms returns what the account's clients may use now.
func (a *Account) Terms() *Terms { return a.terms.Load() }

// Refused counts that a limit was reached n times. An account that is not listed counts among the
// others. It tries to be listed the first time, and whenever its count has doubled, so it seldom
// takes the book's lock.
func (a *Account) Refused(k Kind, n int) {
	if a.listed.Load() {
		a.refused[k].Add(uint64(n))
		return
	}
	now := a.unlisted.Add(uint64(n))
	if bits.Len64(now) == bits.Len64(now-uint64(n)) {
		a.book.others[k].Add(uint64(n))
		return
	}
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	a.book.count(a, k, n)
}

// Book holds the accounts of all identities that are connected. Its zero value is empty. Any
// goroutine may use it. It takes its lock for a moment when a connection comes or goes, and when an
// account reaches a limit for the first time, but not for a message.
type Book struct {
	mu       sync.Mutex
	accounts map[string]*Account // guarded by mu
	// guarded by mu; those that have reached a limit, at most MostOffenders
	offenders []*Account

	others   [Kinds]atomic.Uint64 // what accounts have reached that are not listed
	nameless [Kinds]atomic.Uint64 // reached by clients whose identity is not known yet
}

// MostOffenders is how many identities the book tells apart in what it counts.
const MostOffenders = 100

// Refused counts that a client reached a limit before its identity was known.
func (b *Book) Refused(k Kind) { b.nameless[k].Add(1) }

// Enter adds a connection to the account of an identity. The terms of the latest connection hold
// for all of them. terms returns what they are at the moment. It may be called again at any time,
// with a lock held. leaving is how many of the connections are about to leave. If there are too
// many, ok is false, and the connection is not added, but counted as refused.
func (b *Book) Enter(name string, terms func() Terms, leaving int) (a *Account, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := terms()
	if a = b.accounts[name]; a == nil {
		a = &Account{Name: name, book: b}
		if b.accounts == nil {
			b.accounts = make(map[string]*Account)
		}
		b.accounts[name] = a
	}
	if t.Connections > 0 && a.conns-leaving >= t.Connections {
		b.count(a, IdentityConnections, 1)
		return a, false
	}
	a.conns++
	a.source = terms
	a.set(t)
	return a, true
}

// set sets the account's terms, and reports whether they are others than before.
func (a *Account) set(t Terms) (changed bool) {
	if old := a.terms.Load(); old != nil && *old == t {
		return false
	}
	next := t // t itself would be allocated even if nothing changes
	a.terms.Store(&next)
	return true
}

// Renew sets the terms of all accounts to what they are now. Where they have changed, nothing is
// owed any more: it could be much at another rate.
func (b *Book) Renew() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		if a.source != nil && a.set(a.source()) {
			a.Messages.fill()
			a.Bytes.fill()
			a.Lookups.fill()
		}
	}
}

// Leave takes a connection out of its account.
func (b *Book) Leave(a *Account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.conns--; a.conns == 0 && !a.listed.Load() {
		b.forget(a)
	}
}

// count lists an account if it can, and counts that a limit was reached n times. The caller holds
// mu.
func (b *Book) count(a *Account, k Kind, n int) {
	if b.list(a); a.listed.Load() {
		a.refused[k].Add(uint64(n))
	} else {
		b.others[k].Add(uint64(n))
	}
}

// list adds an account to the offenders. If there are too many, one that has no connection makes
// room. The caller holds mu.
func (b *Book) list(a *Account) {
	if a.listed.Load() || b.accounts[a.Name] != a { // it may be forgotten by now
		return
	}
	if len(b.offenders) >= MostOffenders {
		i := slices.IndexFunc(b.offenders, func(o *Account) bool { return o.conns == 0 })
		if i < 0 {
			return
		}
		b.forget(b.offenders[i])
		b.offenders = slices.Delete(b.offenders, i, i+1)
	}
	a.listed.Store(true)
	b.offenders = append(b.offenders, a)
}

// forget removes an account, and keeps what it has reached among the others. The caller holds mu.
func (b *Book) forget(a *Account) {
	a.listed.Store(false)
	for k := range a.refused {
		b.others[k].Add(a.refused[k].Swap(0))
	}
	if b.accounts[a.Name] == a {
		delete(b.accounts, a.Name)
	}
}

// Offence says how often the clients of an identity have reached a limit.
type Offence struct {
	Identity string
	Other    bool // of all identities that the book does not tell apart
	Kind     Kind
	Times    uint64
}

// Offences returns how often limits were reached, by identity. The count of the others never goes
// down: what an account has reached before it is listed stays there.
func (b *Book) Offences() []Offence {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Offence
	for _, a := range b.offenders {
		for k := range a.refused {
			if n := a.refused[k].Load(); n > 0 {
				all = append(all, Offence{Identity: a.Name, Kind: Kind(k), Times: n})
			}
		}
	}
	for k := range b.nameless {
		if n := b.nameless[k].Load(); n > 0 {
			all = append(all, Offence{Kind: Kind(k), Times: n})
		}
	}
	for k := range b.others {
		if n := b.others[k].Load(); n > 0 {
			all = append(all, Offence{Other: true, Kind: Kind(k), Times: n})
		}
	}
	slices.SortStableFunc(all, func(x, y Offence) int { return cmp.Compare(x.Identity, y.Identity) })
	return all
}
