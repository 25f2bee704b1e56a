package faults

import (
	"bytes"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"distmsg/internal/proc"
)

// start starts one more node, until the proof ends.
func (p *proof) start(options proc.RelayOptions) *proc.Relay {
	p.Helper()
	node, err := proc.StartRelay(p.ctx, options)
	p.check(err)
	p.Cleanup(node.Close)
	return node
}

// until waits until a node's health is as it should be, and returns how long that took.
func (p *proof) until(node *proc.Relay, since time.Time, good func(health string) bool) time.Duration {
	p.Helper()
	for {
		health, err := node.Health(p.ctx)
		if err == nil && good(health) {
			return time.Since(since)
		}
		if !Pause(p.ctx, pollEvery) {
			p.Fatalf("the health of %s: %q (%v)", node.Addr, health, err)
		}
	}
}

// linked reports whether a node's health misses no other node. Of the registry, which has just been
// made, it may still say something.
func linked(health string) bool { return !strings.Contains(health, "link") }

// twin stops a node, starts its replacement elsewhere under its name, and lets it wake.
func twin(p *proof) {
	long := 5 * time.Second
	if *full {
		long = 8 * time.Second
	}
	sender := p.users(1, UsersConfig{Name: "sender", Sessions: 1, PerUser: 1})
	victims := p.users(0, UsersConfig{Name: "victim", Sessions: 20, PerUser: 10})
	p.reach(sender, victims.IDs, time.Now())

	stopped := time.Now()
	old := p.c.Nodes[0]
	p.Cleanup(old.Close)
	p.check(old.Pause())
	p.c.Nodes[0] = p.start(p.c.Relay("n1", p.c.Redis))
	p.reach(sender, victims.IDs, stopped)
	p.suffer(time.Until(stopped.Add(long)))
	p.check(p.c.WaitLinked(p.ctx))
	p.check(old.Resume())
	awake := time.Now()
	select {
	case <-old.Done():
		p.Within("the one that was stopped has ended", 2*time.Second, time.Since(awake))
		p.Count("its exit code", 1, old.Wait())
		p.Count("times that it says why", 1, strings.Count(old.Output(), `: give one of the two another node ID`))
	case <-p.ctx.Done():
		p.Fatal("both serve")
	}
	p.check(p.c.WaitLinked(p.ctx))
	late := p.talk(sender, victims.IDs)
	p.suffer(3 * time.Second)
	p.Outcomes("to its sessions, when it has ended", late(), "acked")
	p.Count("kicks", 0, victims.Kicks())
	for _, node := range p.c.Nodes {
		p.until(node, awake, linked)
	}
}

// otherRedis starts a node whose bindings are in another Redis than the others'.
func otherRedis(p *proof) {
	other, err := proc.StartRedis(p.ctx, proc.RedisOptions{})
	p.check(err)
	p.Cleanup(other.Close)
	stranger := p.start(p.c.Relay("n4", other))
	began := time.Now()
	for _, node := range p.c.Nodes {
		took := p.until(node, began, func(health string) bool {
			return strings.Contains(health, `no link to node "n4": its settings differ: registry `)
		})
		p.Within("health says what differs", 5*time.Second, took)
	}
	p.until(stranger, began, func(health string) bool {
		return strings.Count(health, ": its settings differ: registry ") == len(p.c.Nodes)
	})
	p.suffer(2 * time.Second)
	links, err := stranger.Metric(p.ctx, "distmsg_links")
	p.check(err)
	p.Count("links of the stranger", 0, int(links))
	p.check(p.c.WaitLinked(p.ctx))
	p.check(stranger.Stop())
	p.c.Nodes = append(p.c.Nodes, p.start(p.c.Relay("n4", p.c.Redis)))
	p.check(p.c.WaitLinked(p.ctx))
	for _, node := range p.c.Nodes {
		p.until(node, began, linked)
	}
}

// stuckStderr starts a node whose stderr is a pipe that is full, and that nobody reads.
func stuckStderr(p *proof) {
	unread, pipe, err := os.Pipe()
	p.check(err)
	p.Cleanup(func() { unread.Close() })
	defer pipe.Close()
	size, err := unix.FcntlInt(pipe.Fd(), unix.F_SETPIPE_SZ, os.Getpagesize())
	p.check(err)
	_, err = pipe.Write(bytes.Repeat([]byte{'x'}, size))
	p.check(err)

	options := p.c.Relay("n4", p.c.Redis)
	options.Stderr = pipe
	// a line for each connection that ends
	options.Flags = append(options.Flags, "--log-level", "debug")
	stuck := p.start(options)
	near, err := Connect(p.ctx, stuck.Addr, UsersConfig{Name: "near", Sessions: 1, PerUser: 10})
	p.check(err)
	p.Cleanup(near.Close)
	far := p.users(1, UsersConfig{Name: "far", Sessions: 1, PerUser: 10})
	p.reach(far, near.IDs, time.Now())
	to, from := p.talk(far, near.IDs), p.talk(near, far.IDs)
	for range 2 { // its links to that node come and go, and each time it has something to say
		p.c.Nodes[0].Kill()
		p.check(p.c.Nodes[0].Restart(p.ctx))
	}
	p.check(p.c.WaitMetric(p.ctx, "distmsg_links", 3, stuck))
	silence, err := stuck.Metric(p.ctx, "distmsg_loop_silent_seconds")
	p.check(err)
	p.Within("for so long its loops have not run", time.Second, time.Duration(silence*float64(time.Second)))
	p.Outcomes("to it", to(), "acked")
	p.Outcomes("from it", from(), "acked")
	near.Close()
	stopping := time.Now()
	p.check(stuck.Stop())
	p.Within("it has ended after SIGTERM", 12*time.Second, time.Since(stopping))
	p.Count("its exit code", 0, stuck.Wait())
	p.check(p.c.WaitLinked(p.ctx))
}
