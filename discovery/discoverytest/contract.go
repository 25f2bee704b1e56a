// Package discoverytest is the suite that every source of nodes passes. Each source runs it against
// its real server.
package discoverytest

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"distmsg/discovery"
)

// Source is a membership under test.
type Source interface {
	discovery.Membership
	Announce(ctx context.Context, r discovery.Record) error
	Withdraw(ctx context.Context) error
	Watch(ctx context.Context, f func([]discovery.Record))
	Err() error
	Close()
}

// Harness is what the suite needs of a source. Each test gets one of its own.
type Harness struct {
	Open  func(t *testing.T) Source             // the test closes what it opens
	Set   func(t *testing.T, nodes ...int)      // makes these nodes all that there are
	Want  func(nodes ...int) []discovery.Record // what a watcher then sees
	Break func(t *testing.T)                    // the server cannot be asked any more
	Heal  func(t *testing.T)                    // it can
}

// patience bounds each wait.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, harness func(t *testing.T) *Harness) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, h *Harness)
	}{
		{"watch", watch}, {"watch ends", watchEnds}, {"nodes", nodes}, {"ended contexts", endedContexts}, {"away", away}, {"closed", closed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.run(t, harness(t))
		})
	}
}

// Sees waits until a watcher sees a list.
func Sees(t *testing.T, s Source, want []discovery.Record) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last []discovery.Record
	s.Watch(ctx, func(all []discovery.Record) {
		if last = all; slices.Equal(all, want) {
			cancel()
		}
	})
	if !slices.Equal(last, want) {
		t.Fatalf("waited for %v, there is %v", want, last)
	}
}

// A watcher sees the present list at once, and each later one, sorted. Watchers see the same.
func watch(t *testing.T, h *Harness) {
	h.Set(t, 2, 1)
	a, b := h.Open(t), h.Open(t)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan []discovery.Record, 100)
	var watching sync.WaitGroup
	watching.Go(func() { a.Watch(ctx, func(all []discovery.Record) { seen <- all }) })
	for _, list := range [][]int{{1, 2}, {1, 2, 3}, {3}} {
		h.Set(t, list...)
		for got := []discovery.Record(nil); !slices.Equal(got, h.Want(list...)); {
			select {
			case got = <-seen:
			case <-time.After(patience):
				t.Fatalf("not told of %v", list)
			}
		}
		Sees(t, b, h.Want(list...))
	}
	cancel()
	watching.Wait()
}

// Watch returns when its context or the membership ends.
func watchEnds(t *testing.T, h *Harness) {
	h.Set(t, 1)
	s := h.Open(t)
	for _, end := range []func(cancel func()){func(cancel func()) { cancel() }, func(func()) { s.Close() }} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		called, ended := make(chan struct{}, 100), make(chan struct{})
		go func() {
			defer close(ended)
			s.Watch(ctx, func([]discovery.Record) { called <- struct{}{} })
		}()
		<-called
		end(cancel)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("Watch goes on")
		}
	}
}

// Clients see the addresses, and their channel is closed when those change.
func nodes(t *testing.T, h *Harness) {
	h.Set(t, 1)
	s := h.Open(t)
	Sees(t, s, h.Want(1))
	one, changed := s.Nodes()
	if len(one) != 1 || changed == nil {
		t.Fatalf("%v, changes %v", one, changed)
	}
	h.Set(t, 1, 2)
	select {
	case <-changed:
	case <-time.After(patience):
		t.Fatal("clients do not hear of a change")
	}
	if two, _ := s.Nodes(); len(two) != 2 || two[0] != one[0] || two[1].Addr == one[0].Addr {
		t.Errorf("%v, and before %v", two, one)
	}
}

// If a context has ended before a call, the call does nothing.
func endedContexts(t *testing.T, h *Harness) {
	h.Set(t, 1)
	s := h.Open(t)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for what, err := range map[string]error{"Announce": s.Announce(ended, discovery.Record{ID: "n"}), "Withdraw": s.Withdraw(ended)} {
		if what == "Announce" && err == nil || what == "Withdraw" && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Watch(ended, func([]discovery.Record) { t.Error("Watch called") })
}

// While the server cannot be asked, the last list stays in force, and Err says why. Afterwards
// changes are seen, and Err is nil.
func away(t *testing.T, h *Harness) {
	h.Set(t, 1, 2)
	s := h.Open(t)
	Sees(t, s, h.Want(1, 2))
	h.Break(t)
	eventually(t, "Err says that the server is away", func() bool { return s.Err() != nil })
	Sees(t, s, h.Want(1, 2))
	h.Heal(t)
	eventually(t, "Err is nil again", func() bool { return s.Err() == nil })
	Sees(t, s, h.Want(1, 2))
	h.Set(t, 2, 3)
	Sees(t, s, h.Want(2, 3))
}

// A membership that is closed announces nothing.
func closed(t *testing.T, h *Harness) {
	h.Set(t, 1)
	s := h.Open(t)
	s.Close()
	if err := s.Announce(t.Context(), h.Want(1)[0]); err == nil {
		t.Error("announced after Close")
	}
	if err := s.Withdraw(t.Context()); err == nil {
		t.Error("withdrawn after Close")
	}
}

// eventually polls what cannot be waited for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.After(patience); !ok(); {
		select {
		case <-deadline:
			t.Fatalf("waited %v in vain until %s", patience, what)
		case <-poll.C:
		}
	}
}
