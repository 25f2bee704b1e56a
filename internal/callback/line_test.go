package callback

import (
	"bytes"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of a test; it is never reached on a good day.
const patience = 30 * time.Second

func receive[T any](t *testing.T, ch <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-ch:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
	return v
}

// notes is a log that a test reads while others write it.
type notes struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *notes) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

type harness struct {
	*Group
	log    notes
	failed atomic.Int32
}

func newHarness() *harness {
	h := new(harness)
	h.Group = NewGroup(slog.New(slog.NewTextHandler(&h.log, nil)), "test: ", func() { h.failed.Add(1) })
	return h
}

// TestLineOrder: calls come one at a time and in order, whoever pushes while they run.
func TestLineOrder(t *testing.T) {
	h := newHarness()
	var got []int // the line's own: the race detector says if two calls run at once
	l := NewLine(h.Group, "it", 0, 0, func(i int) { got = append(got, i) })
	const n = 10_000
	for i := range n {
		l.Push(i)
		if i%1000 == 0 {
			runtime.Gosched()
		}
	}
	receive(t, h.Drained(), "all calls")
	if len(got) != n || !slices.IsSorted(got) || l.Len() != 0 || h.Pending() != 0 {
		t.Errorf("%d calls, in order: %v; %d left, %d pending", len(got), slices.IsSorted(got), l.Len(), h.Pending())
	}
}

// TestLineBound: more than allowed do not wait, and several are taken all or none.
func TestLineBound(t *testing.T) {
	h := newHarness()
	entered, release := make(chan struct{}), make(chan struct{})
	var calls atomic.Int32
	l := NewLine(h.Group, "it", 2, 0, func(int) {
		if calls.Add(1) == 1 {
			close(entered)
			<-release
		}
	})
	l.Push(0)
	receive(t, entered, "the call")
	if !l.Push(1) || !l.Push(2, 3, 4) || l.Push(5) || l.Len() != 5 {
		t.Errorf("%d wait or run", l.Len())
	}
	close(release)
	receive(t, h.Drained(), "all calls")
	if n := calls.Load(); n != 5 {
		t.Errorf("%d calls", n)
	}
}

// TestLineContains: neither a panic nor runtime.Goexit keeps the next calls from being made, and
// the log says where it was.
func TestLineContains(t *testing.T) {
	h := newHarness()
	var got []int
	l := NewLine(h.Group, "it", 0, 0, func(i int) {
		switch got = append(got, i); i {
		case 1:
			panic("on purpose")
		case 2, 5:
			runtime.Goexit()
		}
	})
	l.Push(0, 1, 2, 3)
	receive(t, h.Drained(), "the first calls")
	l.Push(4, 5)
	receive(t, h.Drained(), "the last calls")
	if !slices.Equal(got, []int{0, 1, 2, 3, 4, 5}) || h.failed.Load() != 3 {
		t.Errorf("calls %v, %d failed", got, h.failed.Load())
	}
	for _, want := range []string{"test: it panicked", "on purpose", "test: it called runtime.Goexit", "TestLineContains"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, &h.log)
		}
	}
}

// TestLineStuck: a call that does not return holds up the line if it has no spare goroutine, and is
// passed by if it has one. Either way it is logged and counted.
func TestLineStuck(t *testing.T) {
	for _, spare := range []int{0, 1} {
		t.Run(fmt.Sprint(spare), func(t *testing.T) {
			t.Parallel()
			h := newHarness()
			release, called := make(chan struct{}), make(chan int, 10)
			l := NewLine(h.Group, "it", 0, spare, func(i int) {
				if i < 2 {
					<-release
				}
				called <- i
			})
			l.Push(2, 0, 3, 1, 4)
			if got := receive(t, called, "the first call"); got != 2 {
				t.Errorf("%d", got)
			}
			if spare > 0 {
				if got := receive(t, called, "a call behind one that is stuck"); got != 3 {
					t.Errorf("%d", got)
				}
			}
			poll := time.NewTicker(10 * time.Millisecond)
			defer poll.Stop()
			logged := func() bool { return strings.Count(h.log.String(), "it does not return") >= 1+spare }
			for end := time.Now().Add(patience); h.Stuck() < 1+spare || !logged(); <-poll.C {
				if time.Now().After(end) {
					t.Fatalf("%d are stuck:\n%s", h.Stuck(), &h.log)
				}
			}
			if len(called) > 0 {
				t.Error("more are passed by than there are goroutines for")
			}
			close(release)
			receive(t, h.Drained(), "all calls")
			close(called)
			n := 1 + spare
			for range called {
				n++
			}
			if n != 5 || h.Stuck() != 0 {
				t.Errorf("%d calls, %d stuck", n, h.Stuck())
			}
		})
	}
}

func TestInside(t *testing.T) {
	h := newHarness()
	var deep func(int) bool
	deep = func(n int) bool {
		if n == 0 {
			return Inside()
		}
		return deep(n - 1)
	}
	inside := make(chan bool, 3)
	l := NewLine(h.Group, "it", 0, 0, func(n int) { inside <- deep(n) })
	l.Push(0, 62, 1000)
	for range 3 {
		if !receive(t, inside, "an answer") {
			t.Error("a call is not inside")
		}
	}
	if deep(0) || deep(1000) {
		t.Error("the test is inside")
	}
	receive(t, h.Drained(), "the end")
}

func TestApart(t *testing.T) {
	if f := Apart(func() {}); f != nil {
		t.Errorf("%+v", f)
	}
	if f := Apart(func() { panic("p") }); f == nil || f.Panic != "p" || f.How() != "panicked" {
		t.Errorf("%+v", f)
	}
	if f := Apart(runtime.Goexit); f == nil || f.Panic != nil || f.How() != "called runtime.Goexit" {
		t.Errorf("%+v", f)
	}
}

// TestLineAllocations: a call takes no memory.
func TestLineAllocations(t *testing.T) {
	h := newHarness()
	done := make(chan struct{}, 1)
	l := NewLine(h.Group, "it", 0, 0, func([4]int) { done <- struct{}{} })
	call := func() {
		l.Push([4]int{})
		<-done
	}
	call()
	if n := testing.AllocsPerRun(1000, call); n > 0 {
		t.Errorf("%v allocations for a call", n)
	}
	receive(t, h.Drained(), "the end")
}
