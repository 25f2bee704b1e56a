package client

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// TestBudgetModel compares budget with a naive model: a list of those who wait, looked through after every step.
func TestBudgetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type asker struct {
			n      int
			cancel context.CancelFunc
			result chan error
		}
		b := new(budget)
		maxMsgs, maxBytes := rapid.IntRange(1, 4).Draw(t, "msgs"), rapid.IntRange(10, 30).Draw(t, "bytes")
		b.setLimits(maxMsgs, maxBytes)
		var queue []asker // in order
		var held []int
		bytes := 0
		fits := func(n int) bool { return len(held) < maxMsgs && bytes+n <= maxBytes }
		take := func(n int) { held = append(held, n); bytes += n }
		// settle lets the model grant what it can and demands the same of the budget.
		settle := func() {
			for len(queue) > 0 && fits(queue[0].n) {
				a := queue[0]
				queue = queue[1:]
				take(a.n)
				if err := <-a.result; err != nil { // hangs, and the test with it, if the budget does not grant
					t.Fatalf("granted with %v", err)
				}
				a.cancel()
			}
			for _, a := range queue {
				if len(a.result) > 0 {
					t.Fatalf("granted %d out of turn", a.n)
				}
			}
			if m, n := b.used(); m != len(held) || n != bytes {
				t.Fatalf("used %d messages, %d bytes; want %d, %d", m, n, len(held), bytes)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { settle() },
			"acquire": func(t *rapid.T) {
				a := asker{n: rapid.IntRange(1, 10).Draw(t, "n"), result: make(chan error, 1)}
				var ctx context.Context
				ctx, a.cancel = context.WithCancel(context.Background())
				immediate := len(queue) == 0 && fits(a.n)
				go func() { a.result <- b.acquire(ctx, a.n) }()
				queue = append(queue, a)
				if !immediate {
					waitListed(b, len(queue))
				}
			},
			"try": func(t *rapid.T) {
				n := rapid.IntRange(1, 10).Draw(t, "n")
				want := len(queue) == 0 && fits(n)
				if got := b.try(n); got != want {
					t.Fatalf("try(%d) = %v", n, got)
				}
				if want {
					take(n)
				}
			},
			"grow": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				n := rapid.IntRange(-held[i]+1, 10).Draw(t, "n")
				want := n <= 0 || len(queue) == 0 && bytes+n <= maxBytes
				if got := b.grow(n); got != want {
					t.Fatalf("grow(%d) = %v", n, got)
				}
				if want {
					held[i] += n
					bytes += n
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				n := held[i]
				held = append(held[:i], held[i+1:]...)
				bytes -= n
				b.release(n)
			},
			"cancel": func(t *rapid.T) {
				if len(queue) == 0 {
					t.Skip("nobody waits")
				}
				i := rapid.IntRange(0, len(queue)-1).Draw(t, "i")
				a := queue[i]
				queue = append(queue[:i:i], queue[i+1:]...)
				a.cancel()
				if err := <-a.result; !errors.Is(err, context.Canceled) {
					t.Fatalf("cancelled with %v", err)
				}
			},
			"limits": func(t *rapid.T) {
				maxMsgs, maxBytes = rapid.IntRange(1, 4).Draw(t, "msgs"), rapid.IntRange(10, 30).Draw(t, "bytes")
				b.setLimits(maxMsgs, maxBytes)
			},
		})
		idle := b.close(ErrClosed)
		for _, a := range queue {
			if err := <-a.result; err != ErrClosed {
				t.Fatalf("closed with %v", err)
			}
			a.cancel()
		}
		for _, n := range held {
			select {
			case <-idle:
				t.Fatal("idle while something is held")
			default:
			}
			b.release(n)
		}
		<-idle
		if b.try(1) || b.acquire(context.Background(), 1) != ErrClosed {
			t.Fatal("a closed budget gave something")
		}
	})
}

// waitListed returns when n askers wait.
func waitListed(b *budget, n int) {
	for listed := -1; listed != n; runtime.Gosched() {
		b.mu.Lock()
		listed = 0
		for w := b.first; w != nil; w = w.next {
			listed++
		}
		b.mu.Unlock()
	}
}
