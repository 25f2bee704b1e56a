package attack

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/codec"
	"distmsg/engine"
	"distmsg/internal/faults"
)

// The modest clients, and the limit of each identity in messages a second.
const (
	modest      = 50
	modestRate  = 20
	greedyLimit = 2000
	greedyTimes = 10 // how many times its limit the greedy one sends
)

// TestGreedyIdentity measures how much a client that sends ten times what it may slows down 50
// others: the p99 of their sends with it, compared with the p99 without it. It takes the median of
// five alternating rounds.
func TestGreedyIdentity(t *testing.T) {
	if !*full {
		t.Skip("not the full attacks: -attack.full")
	}
	const rounds, most = 5, 1.2
	g := startGreedy(t)
	var ratios []float64
	for range rounds {
		without, with := g.round(t, false), g.round(t, true)
		ratios = append(ratios, float64(with)/float64(without))
		t.Logf("p99 %v without, %v with: %.2f times", without, with, ratios[len(ratios)-1])
	}
	slices.Sort(ratios)
	if median := ratios[rounds/2]; median > most {
		t.Errorf("the p99 is %.2f times that without the greedy client, at most %.1f is allowed: %.2f", median, most, ratios)
	}
	refused := uint64(0)
	for _, v := range g.node.Stats().Limited {
		if v.Identity == "greedy" && v.Limit == "identity-messages" {
			refused += v.Times
		} else {
			t.Errorf("%q has reached %s", v.Identity, v.Limit)
		}
	}
	if refused == 0 {
		t.Error("the greedy client has not reached its limit")
	}
	t.Logf("the node has refused %d messages of the greedy client", refused)
}

// greedy is a node with modest clients, each with an identity of its own.
type greedy struct {
	node    *engine.Engine
	clients []*client.Session
	flood   []byte // one tick of the greedy client
}

// greedyTick is how often the greedy client writes.
const greedyTick = 10 * time.Millisecond

func startGreedy(t *testing.T) *greedy {
	node, err := engine.New(engine.Config{
		Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler),
		IdentityLimits: engine.Limits{Messages: engine.Rate{PerSecond: greedyLimit, Burst: greedyLimit / 10}},
		Hooks: engine.Hooks{Authenticate: func(_ context.Context, l engine.Login) (engine.Identity, error) {
			return engine.Identity{Name: string(l.Credentials)}, nil
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- node.Run(ctx) }()
	<-node.Ready()
	g := &greedy{node: node}
	t.Cleanup(func() {
		for _, c := range g.clients {
			_ = c.Close(ctx)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for i := range modest {
		c, err := client.Dial(ctx, client.Config{
			Nodes: []string{node.Addr().String()}, Credentials: []byte(fmt.Sprint("modest-", i)),
			Logger: slog.New(slog.DiscardHandler), Handler: func(context.Context, *client.Delivery) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		g.clients = append(g.clients, c)
		if err := c.Bind(ctx, fmt.Sprint("modest-", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range greedyLimit * greedyTimes * int(greedyTick/time.Millisecond) / 1000 {
		g.flood = codec.AppendSend(g.flood, &codec.Send{Seq: uint64(i), From: []byte("greedy"), To: []byte(fmt.Sprint("modest-", i%modest)),
			Flags: codec.FlagAck, Payload: make([]byte, 100)})
	}
	return g
}

// round lets the modest clients send for a while, perhaps besides the greedy one, and returns the
// p99 of their sends.
func (g *greedy) round(t *testing.T, withGreedy bool) time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	var work sync.WaitGroup
	if withGreedy {
		work.Go(func() {
			if err := g.beGreedy(ctx); err != nil {
				t.Error(err)
			}
		})
		faults.Pause(ctx, 500*time.Millisecond) // its burst is used up
	}
	var mu sync.Mutex
	var took []time.Duration
	for i, c := range g.clients {
		work.Go(func() {
			m := client.Message{From: fmt.Sprint("modest-", i), To: fmt.Sprint("modest-", (i+1)%modest)}
			for faults.Pause(ctx, time.Second/modestRate) {
				began := time.Now()
				_, err := c.Send(context.WithoutCancel(ctx), m)
				mu.Lock()
				if took = append(took, time.Since(began)); err != nil {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	work.Wait()
	slices.Sort(took)
	return took[len(took)*99/100]
}

// beGreedy sends ten times what the identity may, and reads the outcomes, until ctx ends.
func (g *greedy) beGreedy(ctx context.Context) error {
	w, err := hello(ctx, g.node.Addr().String(), nil, codec.Hello{Credentials: []byte("greedy")})
	if err != nil {
		return err
	}
	if _, err := w.bind([][]byte{[]byte("greedy")}); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, w.nc) }()
	tick := time.NewTicker(greedyTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := w.write(g.flood); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}
