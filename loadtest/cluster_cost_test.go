//go:build !race

package loadtest_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"testing"
	"time"

	"distmsg/discovery"
	"distmsg/engine"
	"distmsg/loadtest"
	"distmsg/routing"
)

// pair is the membership of two nodes.
type pair struct {
	mu      sync.Mutex
	records []discovery.Record             // guarded by mu
	tell    []func(all []discovery.Record) // guarded by mu
}

func (p *pair) Announce(_ context.Context, r discovery.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.records {
		if p.records[i].ID == r.ID {
			p.records = append(p.records[:i:i], p.records[i+1:]...)
			break
		}
	}
	p.records = append(p.records, r)
	for _, f := range p.tell {
		f(p.records)
	}
	return nil
}

func (p *pair) Withdraw(context.Context) error { return nil }

func (p *pair) Watch(ctx context.Context, f func([]discovery.Record)) {
	p.mu.Lock()
	p.tell = append(p.tell, f)
	f(p.records)
	p.mu.Unlock()
	<-ctx.Done()
}

// TestCostPerForward is TestCostPerMessage for two nodes, with every message from one to the other.
func TestCostPerForward(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, noAck := range []bool{false, true} {
		t.Run(fmt.Sprintf("noAck=%v", noAck), func(t *testing.T) {
			held(t, func() (first, last cost) { return runForwardCost(t, noAck) })
		})
	}
}

func runForwardCost(t *testing.T, noAck bool) (first, last cost) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	members, registry := new(pair), routing.NewMemory(routing.MemoryConfig{})
	var nodes [2]*engine.Engine
	var addrs []string
	var stopped sync.WaitGroup
	for i := range nodes {
		e, err := engine.New(engine.Config{NodeID: fmt.Sprint("n", i), Addr: "127.0.0.1:0", PeerAddr: "127.0.0.1:0", Loops: 1, HelloTimeout: time.Minute, Logger: slog.New(slog.DiscardHandler),
			Registry: registry, Membership: members, ClusterSecret: []byte("the secret of a test")})
		if err != nil {
			t.Fatal(err)
		}
		stopped.Go(func() {
			if err := e.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		<-e.Ready()
		nodes[i] = e
		addrs = append(addrs, e.Addr().String())
	}
	defer func() { stop(); stopped.Wait() }()
	total := func() cost {
		a, b := costOf(nodes[0]), costOf(nodes[1])
		return cost{b.mallocs, a.writes + b.writes, a.sends + b.sends, b.at}
	}
	first, last = measure(t, loadtest.Config{Nodes: addrs, Cross: new(1.0), NoAck: noAck}, total,
		func() bool { return nodes[0].Stats().Connections+nodes[1].Stats().Connections >= 200 })
	a, b := nodes[0].Stats(), nodes[1].Stats()
	if all := a.Forwarded + b.Forwarded; noAck && all < (a.Sends+b.Sends)*9/10 {
		t.Errorf("of %d and %d sends only %d were forwarded", a.Sends, b.Sends, all)
	}
	return first, last
}
