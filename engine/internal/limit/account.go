package limit

import (
	"cmp"
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
// book as long as a connection has it, and longer if it reached a limit.
type Account struct {
	Name string // static

	// The tokens that the connections share.
	Messages, Bytes, Lookups Pool
	// InFlight counts the sends that may wait for an ack, of all connections.
	InFlight Count
	// PendingBytes counts the bytes that may wait to be written, of all connections.
	PendingBytes Count

	book    *Book // static
	terms   atomic.Pointer[Terms]
	refused [Kinds]atomic.Uint64

	source func() Terms // guarded by book.mu; says what terms are now
	conns  int          // guarded by book.mu
	listed bool         // guarded by book.mu; it is in book.offenders
}

// Terms returns what the account's clients may use now.
func (a *Account) Terms() *Terms { return a.terms.Load() }

// Refused counts that a limit was reached n times.
func (a *Account) Refused(k Kind, n int) {
	if a.refused[k].Add(uint64(n)) == uint64(n) {
		a.book.mu.Lock()
		defer a.book.mu.Unlock()
		a.book.list(a)
	}
}

// Book holds the accounts of all identities that are connected. Its zero value is empty. Any
// goroutine may use it. It takes its lock for a moment when a connection comes or goes, and when an
// account reaches a limit for the first time, but not for a message.
type Book struct {
	mu       sync.Mutex
	accounts map[string]*Account // guarded by mu
	// guarded by mu; those that have reached a limit, at most MostOffenders
	offenders []*Account
	// guarded by mu; what accounts that are forgotten have reached
	others [Kinds]uint64

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
		if a.refused[IdentityConnections].Add(1) == 1 {
			b.list(a)
		}
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
	a.terms.Store(&t)
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
	if a.conns--; a.conns == 0 && !a.listed {
		b.forget(a)
	}
}

// list adds an account to the offenders. If there are too many, one that has no connection makes
// room. The caller holds mu.
func (b *Book) list(a *Account) {
	if a.listed || b.accounts[a.Name] != a { // it may be forgotten by now
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
	a.listed = true
	b.offenders = append(b.offenders, a)
}

// forget removes an account, and keeps what it has reached among the others. The caller holds mu.
func (b *Book) forget(a *Account) {
	a.listed = false
	for k := range a.refused {
		b.others[k] += a.refused[k].Swap(0)
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

// Offences returns how often limits were reached, by identity.
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
	others := b.others
	for _, a := range b.accounts {
		if len(b.offenders) < MostOffenders { // all that have reached a limit are listed
			break
		}
		if a.listed {
			continue
		}
		for k := range a.refused {
			others[k] += a.refused[k].Load()
		}
	}
	for k, n := range others {
		if n > 0 {
			all = append(all, Offence{Other: true, Kind: Kind(k), Times: n})
		}
	}
	slices.SortStableFunc(all, func(x, y Offence) int { return cmp.Compare(x.Identity, y.Identity) })
	return all
}
