package engine

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"

	"distmsg/codec"
	"distmsg/internal/cpus"
	"distmsg/routing"
)

// No more loops are in an iteration at the same time than there are CPUs, and messages between all
// of them arrive.
func TestLoopsShareCPUs(t *testing.T) {
	const loops, cpus, messages = 4, 2, 50
	var inside, most atomic.Int32
	n := start(t, Config{Loops: loops, CPUs: cpus, Hooks: Hooks{Deliver: func(routing.SessionID, string, *codec.Deliver) codec.Code {
		now := inside.Add(1)
		defer inside.Add(-1)
		for last := most.Load(); now > last && !most.CompareAndSwap(last, now); last = most.Load() {
		}
		return codec.CodeOK
	}}})
	clients := make([]*client, loops)
	for i := range clients {
		clients[i] = n.joinOn(i, fmt.Sprint(i))
	}
	for range messages {
		for i, c := range clients {
			for to := range clients {
				c.send(fmt.Sprint(i), fmt.Sprint(to), "hi")
			}
		}
	}
	answered, outcomes := make([]int, loops), make([]int, loops)
	read := func(i int) {
		switch f := clients[i].next(); f.kind {
		case codec.KindDeliver:
			var d codec.Deliver
			clients[i].decoded(codec.DecodeDeliver(f.body, &d))
			clients[i].ack(d, "")
			answered[i]++
		case codec.KindOutcome:
			outcomes[i]++
		}
	}
	for i := range clients {
		for answered[i] < loops*messages {
			read(i)
		}
	}
	for i := range clients {
		for outcomes[i] < loops*messages {
			read(i)
		}
	}
	if most.Load() > cpus {
		t.Errorf("%d loops were in an iteration at the same time, with %d CPUs", most.Load(), cpus)
	}
}

// A loop waits for a CPU that another one has, until the engine stops.
func TestSharedCPUs(t *testing.T) {
	var own sharedCPUs
	own.share(2, 2, nil)
	own.take()
	own.take()
	own.take() // as there are enough, nobody counts
	own.give()

	over := make(chan struct{})
	var s sharedCPUs
	s.share(3, 1, over)
	s.take()
	got := make(chan struct{})
	go func() {
		for range 3 {
			s.take()
			got <- struct{}{}
		}
	}()
	select {
	case <-got:
		t.Error("two have the only CPU")
	default:
	}
	s.give()
	<-got
	s.give()
	<-got
	close(over)
	<-got // nobody has given it back
	s.give()
	s.give()
	s.give()
}

// A program that may use fewer CPUs than the machine has does not get a loop for each of those. The
// runtime learns of a container's limit by itself, and says so by GOMAXPROCS. Nor does a program
// that has made a P to spare before.
func TestLoopsFollowTheLimit(t *testing.T) {
	t.Setenv("GOMAXPROCS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for range 2 {
		c, err := Config{}.withDefaults()
		if err != nil || c.Loops != 1 || c.CPUs != 1 {
			t.Errorf("%d loops on %d CPUs, %v; want 1 on 1", c.Loops, c.CPUs, err)
		}
		cpus.Spare(3)
	}
}
