package limit

import (
	"fmt"
	"slices"
	"testing"
)

func always(t Terms) func() Terms { return func() Terms { return t } }

func TestBookForgetsWhoNeverOffended(t *testing.T) {
	var b Book
	first, _ := b.Enter("shop", always(Terms{}), 0)
	second, _ := b.Enter("shop", always(Terms{Messages: Rate{1, 1}}), 0)
	if first != second || first.Terms().Messages.PerSecond != 1 {
		t.Fatalf("two connections of one identity have %p and %p; %+v", first, second, first.Terms())
	}
	b.Leave(first)
	if len(b.accounts) != 1 {
		t.Fatal("the account is gone while one of its connections is open")
	}
	if b.Leave(first); len(b.accounts) != 0 {
		t.Fatal("an account without a connection stays")
	}
}

// However many identities reach limits, the book tells a hundred of them apart, and no count is
// lost.
func TestOffencesAreBounded(t *testing.T) {
	var b Book
	const n = 3 * MostOffenders
	for i := range n {
		a, _ := b.Enter(fmt.Sprint("identity-", i), always(Terms{}), 0)
		a.Refused(IdentityBytes, 1)
		a.Refused(IdentityBytes, 1)
		if i%2 == 0 {
			b.Leave(a)
		}
	}
	all := b.Offences()
	var sum uint64
	for _, o := range all {
		sum += o.Times
	}
	if len(all) > MostOffenders+1 || sum != 2*n {
		t.Errorf("%d lines with %d offences, want at most %d with %d", len(all), sum, MostOffenders+1, 2*n)
	}
	if len(b.accounts) > MostOffenders+n/2 {
		t.Errorf("%d accounts are left", len(b.accounts))
	}
	// One that has left makes room for a new one.
	a, _ := b.Enter("late", always(Terms{}), 0)
	b.Leave(b.offenders[0])
	a.Refused(ConnectionMessages, 1)
	if !slices.Contains(b.Offences(), Offence{Identity: "late", Kind: ConnectionMessages, Times: 1}) {
		t.Errorf("a new offender is not named: %+v", b.Offences())
	}
}

// A refused connection may be counted when the account that refused it is forgotten and has a
// successor. That takes nothing from the successor.
func TestForgottenAccountReachesLimit(t *testing.T) {
	var b Book
	one := Terms{Connections: 1}
	old, _ := b.Enter("shop", always(one), 0)
	b.Leave(old)
	now, _ := b.Enter("shop", always(one), 0)
	old.Refused(IdentitySessions, 1)
	for i := range MostOffenders {
		a, _ := b.Enter(fmt.Sprint("identity-", i), always(Terms{}), 0)
		a.Refused(IdentityBytes, 1)
	}
	if again, ok := b.Enter("shop", always(one), 0); again != now || ok {
		t.Error("the identity has fresh limits")
	}
	if n := b.others[IdentityConnections].Load(); n != 1 {
		t.Errorf("%d refused connections are counted, want 1", n)
	}
}

// What an account has reached before it is listed stays with the others, so no count goes down. It
// is listed once there is room, although nothing but its own refusals makes it try.
func TestOthersOnlyGrow(t *testing.T) {
	var b Book
	for i := range MostOffenders {
		a, _ := b.Enter(fmt.Sprint("identity-", i), always(Terms{}), 0)
		a.Refused(IdentityBytes, 1)
	}
	late, _ := b.Enter("late", always(Terms{}), 0)
	for range 5 {
		late.Refused(IdentityBytes, 1)
	}
	others := Offence{Other: true, Kind: IdentityBytes, Times: 5}
	if !slices.Contains(b.Offences(), others) {
		t.Fatalf("of the others, 5 are not counted: %+v", b.Offences())
	}
	b.Leave(b.offenders[0])
	for range 5 {
		late.Refused(IdentityBytes, 1)
	}
	// the eighth made it try; one more counts for the one that has left
	others.Times = 5 + 2 + 1
	for _, want := range []Offence{others, {Identity: "late", Kind: IdentityBytes, Times: 3}} {
		if !slices.Contains(b.Offences(), want) {
			t.Errorf("%+v is not among %+v", want, b.Offences())
		}
	}
}

func TestKindsHaveWords(t *testing.T) {
	seen := make(map[string]bool)
	for k := range Kinds {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("limit %d has the word %q", k, k)
		}
		seen[k.String()] = true
	}
}

func TestConnectionsOfAnIdentity(t *testing.T) {
	var b Book
	two := Terms{Connections: 2}
	for i, tc := range []struct {
		leaving int
		ok      bool
	}{{0, true}, {0, true}, {0, false}, {1, true}, {1, false}} {
		if _, ok := b.Enter("shop", always(two), tc.leaving); ok != tc.ok {
			t.Errorf("connection %d: %v", i, ok)
		}
	}
	if _, ok := b.Enter("another", always(two), 0); !ok {
		t.Error("another identity has no connection")
	}
}

// New terms hold for the connections that there are.
func TestNewTermsOfAnAccount(t *testing.T) {
	var b Book
	now := Terms{IDs: 1}
	a, _ := b.Enter("shop", func() Terms { return now }, 0)
	refused, _ := b.Enter("another", always(Terms{IDs: 3}), 0)
	now.IDs = 2
	if b.Renew(); a.Terms().IDs != 2 || refused.Terms().IDs != 3 {
		t.Errorf("the terms are %+v and %+v", a.Terms(), refused.Terms())
	}
}
