package engine

import (
	"context"
	"testing"

	"distmsg/routing"
)

// A loop looks at a bounded number of connections for a question, and then does its other work.
func TestSurveyInSteps(t *testing.T) {
	const most = 2*surveyStep + 1
	l := bareLoop()
	l.armed.Store(true) // nobody runs it
	var all []routing.Handle
	for i := range most {
		l.conns, l.gens = append(l.conns, &conn{state: stateOpen}), append(l.gens, 1)
		all = append(all, routing.Handle{Slot: uint32(i), Gen: 1})
	}
	l.conns[3], l.conns[4].state = nil, stateHello
	visits, over := 0, false
	done := func() { over = true }
	s := survey{ctx: context.Background(), visit: func(*conn) { visits++ }}
	for _, begin := range []func(){func() { s.from(l, 0, done) }, func() { s.next(l, all, done) }} {
		visits, over = 0, false
		begin()
		for steps := 1; !over; steps++ {
			if visits > steps*surveyStep || len(l.inbox.tasks) != 1 {
				t.Fatalf("%d connections after %d steps, %d tasks", visits, steps, len(l.inbox.tasks))
			}
			next := l.inbox.tasks[0]
			l.inbox.tasks = nil
			next()
		}
		if visits != most-2 {
			t.Errorf("%d connections, want %d", visits, most-2)
		}
	}
	ended, stop := context.WithCancel(context.Background())
	stop()
	s.ctx, visits = ended, 0
	s.from(l, 0, done)
	s.next(l, all, done)
	if visits > 0 || len(l.inbox.tasks) > 0 {
		t.Error("it goes on when nobody waits")
	}
}
