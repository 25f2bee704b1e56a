package client

import (
	"context"
	"errors"
	"runtime"
	"testing"

	"pgregory.net/rapid"
)

// TestBudgetModel compares budget with a naive model: a list of those who wait, looked through
// after every step.
func TestBudgetModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type asker struct {
			msgs   int
			n      int
			cancel context.CancelFunc
			result chan error
		}
		b := new(budget)
		maxMsgs, maxBytes := rapid.IntRange(1, 4).Draw(t, "msgs"), rapid.IntRange(10, 30).Draw(t, "bytes")
		b.setLimits(maxMsgs, maxBytes)
		var queue []asker // in order
		var held [][2]int // messages and bytes
		msgs, bytes := 0, 0
		fits := func(m, n int) bool { return (msgs+m <= maxMsgs || msgs == 0) && bytes+n <= maxBytes }
		take := func(m, n int) { held = append(held, [2]int{m, n}); msgs += m; bytes += n }
		// settle lets the model grant what it can and demands the same of the budget.
		settle := func() {
			for len(queue) > 0 && fits(queue[0].msgs, queue[0].n) {
				a := queue[0]
				queue = queue[1:]
				take(a.msgs, a.n)
				// hangs, and the test with it, if the budget does not grant
				if err := <-a.result; err != nil {
					t.Fatalf("granted with %v", err)
				}
				a.cancel()
			}
			for _, a := range queue {
				if len(a.result) > 0 {
					t.Fatalf("granted %d out of turn", a.n)
				}
			}
			if m, n := b.used(); m != msgs || n != bytes {
				t.Fatalf("used %d messages, %d bytes; want %d, %d", m, n, msgs, bytes)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { settle() },
			"acquire": func(t *rapid.T) {
				a := asker{msgs: someMsgs(t), n: rapid.IntRange(1, 10).Draw(t, "n"), result: make(chan error, 1)}
				var ctx context.Context
				ctx, a.cancel = context.WithCancel(context.Background())
				immediate := len(queue) == 0 && fits(a.msgs, a.n)
				go func() { a.result <- b.acquire(ctx, a.msgs, a.n) }()
				queue = append(queue, a)
				if !immediate {
					waitListed(b, len(queue))
				}
			},
			"try": func(t *rapid.T) {
				m, n := someMsgs(t), rapid.IntRange(1, 10).Draw(t, "n")
				want := len(queue) == 0 && fits(m, n)
				if got := b.try(m, n); got != want {
					t.Fatalf("try(%d, %d) = %v", m, n, got)
				}
				if want {
					take(m, n)
				}
			},
			"grow": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				n := rapid.IntRange(-held[i][1]+1, 10).Draw(t, "n")
				want := n <= 0 || len(queue) == 0 && bytes+n <= maxBytes
				if got := b.grow(n); got != want {
					t.Fatalf("grow(%d) = %v", n, got)
				}
				if want {
					held[i][1] += n
					bytes += n
				}
			},
			"release": func(t *rapid.T) {
				if len(held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(held)-1).Draw(t, "i")
				m, n := held[i][0], held[i][1]
				held = append(held[:i], held[i+1:]...)
				msgs, bytes = msgs-m, bytes-n
				b.release(m, n)
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
		for _, v := range held {
			select {
			case <-idle:
				t.Fatal("idle while something is held")
			default:
			}
			b.release(v[0], v[1])
		}
		<-idle
		if b.try(1, 1) || b.acquire(context.Background(), 1, 1) != ErrClosed {
			t.Fatal("a closed budget gave something")
		}
	})
}

// someMsgs is one message as a rule, and sometimes more than the budget may have.
func someMsgs(t *rapid.T) int { return max(1, rapid.IntRange(-3, 6).Draw(t, "messages")) }

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
