package engine

import (
	"sync/atomic"
	"testing"
)

// However many wait for the mail between loops, the loops get few tasks for it.
func TestMailRoundsAreShared(t *testing.T) {
	eachLoops(t, func(t *testing.T, loops int) {
		n := start(t, Config{Loops: loops})
		release := n.hold()
		const all = 1000
		var called atomic.Int32
		for range all {
			n.mailRounds.after(func() { called.Add(1) })
		}
		for _, l := range n.loops {
			l.inbox.mu.Lock()
			if tasks := len(l.inbox.tasks); tasks > 4 {
				t.Errorf("%d tasks wait for a loop", tasks)
			}
			l.inbox.mu.Unlock()
		}
		release()
		n.eventually("all are called", func() bool { return called.Load() == all })
	})
}
