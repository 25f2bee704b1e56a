package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/engine"
)

// mixed is a handler that answers by the receiver's name.
func mixed(_ context.Context, d *Delivery) {
	switch d.To {
	case "replies":
		_ = d.Reply([]byte("to " + d.From))
	case "rejects":
		_ = d.Reject("not today")
	}
}

// TestMulticastAtNode: a real node reports each copy's outcome, in order with other sends, whatever
// became of the others.
func TestMulticastAtNode(t *testing.T) {
	n := startNode(t, engine.Config{MaxPayload: 1000, MaxMulticast: 50})
	holder(t, Config{Handler: mixed}, n.addr, "accepts", "replies", "rejects", "forgotten")
	s := holder(t, Config{}, n.addr, "alice", "silent")
	ctx := testContext(t)
	to := []string{"rejects", "nobody", "accepts", "silent", "replies", "accepts"}
	want := []string{"rejects rejected", "nobody no_route", "accepts acked", "silent rejected", "replies acked", "accepts acked"}
	for range 3 {
		results, err := s.Multicast(ctx, Message{From: "alice", Payload: []byte("hi")}, to)
		if err != nil || !slices.Equal(words(results), want) || string(results[4].Reply.Payload) != "to alice" {
			t.Fatalf("%v, %v; want %v", words(results), err, want)
		}
	}
	results, err := s.Multicast(ctx, Message{From: "mallory"}, []string{"accepts", "nobody"})
	if err != nil || !slices.Equal(words(results), []string{"accepts denied", "nobody denied"}) {
		t.Errorf("%v, %v", words(results), err)
	}
	if _, err := s.Multicast(ctx, Message{From: "alice"}, manyIDs(51)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("51 IDs: %v", err)
	}
	if results, err := s.Multicast(ctx, Message{From: "alice"}, manyIDs(50)); err != nil || len(results) != 50 || !errors.Is(results[49].Err, ErrNoRoute) {
		t.Errorf("50 IDs: %v, %v", results, err)
	}
	if st := s.Stats(); st.InFlight != 0 || st.InFlightBytes != 0 || st.LateOutcomes != 0 {
		t.Errorf("%+v", st)
	}
}

// TestMulticastNotHere: what the session of a receiver does not hold comes back to the node once,
// and the other copies arrive.
func TestMulticastNotHere(t *testing.T) {
	n := startNode(t, engine.Config{})
	bob := holder(t, Config{Handler: accept}, n.addr, "here", "gone", "gone too")
	s := holder(t, Config{}, n.addr, "alice")
	bob.holds.mu.Lock() // as if an unbind were on its way
	bob.holds.remove(bob.holds.byID["gone"])
	bob.holds.remove(bob.holds.byID["gone too"])
	bob.holds.mu.Unlock()
	results, err := s.Multicast(testContext(t), Message{From: "alice"}, []string{"gone", "here", "gone too"})
	if err != nil || !slices.Equal(words(results), []string{"gone no_route", "here acked", "gone too no_route"}) {
		t.Errorf("%v, %v", words(results), err)
	}
	if st := bob.Stats(); st.NotHere != 2 || st.Received != 3 {
		t.Errorf("%+v", st)
	}
}

// TestMulticastOrder: to one ID, multicasts and single sends of one goroutine arrive in order, also
// posts.
func TestMulticastOrder(t *testing.T) {
	k := startCluster(t)
	const rounds = 200
	var mu sync.Mutex
	got := make(map[string][]byte)
	var ids []string
	for i, addr := range slices.Sorted(maps.Keys(k.nodes)) {
		id := fmt.Sprint("bob-", i)
		ids = append(ids, id)
		holder(t, Config{Handler: func(_ context.Context, d *Delivery) {
			mu.Lock()
			got[d.To] = append(got[d.To], d.Payload[0])
			mu.Unlock()
		}}, addr, id)
	}
	alice := k.dial(Config{}, 1, "alice")
	ctx := testContext(t)
	var all sync.WaitGroup
	for i := range rounds {
		m := Message{From: "alice", Payload: []byte{byte(i)}}
		switch i % 3 {
		case 0:
			if _, err := alice.PostMulticast(ctx, m, ids); err != nil {
				t.Fatal(err)
			}
		case 1:
			for _, id := range ids {
				m.To = id
				all.Add(1)
				alice.SendAsync(ctx, m, func(_ Reply, err error) {
					if err != nil {
						t.Error(err)
					}
					all.Done()
				})
			}
		default:
			results, err := alice.Multicast(ctx, m, ids)
			if err != nil || slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
				t.Fatalf("%v, %v", words(results), err)
			}
		}
	}
	all.Wait()
	count := func() (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, all := range got {
			n += len(all)
		}
		return n
	}
	eventually(t, "the last posts", func() bool { return count() == rounds*len(ids) })
	mu.Lock()
	defer mu.Unlock()
	for id, all := range got {
		if !slices.IsSorted(all) {
			t.Errorf("%s got %v", id, all)
		}
	}
}

// TestMulticastThousand: to 1,000 IDs of six app servers at three nodes, one payload goes over each
// link and one to each app server.
func TestMulticastThousand(t *testing.T) {
	k := startCluster(t)
	var received atomic.Int64
	var ids []string
	for i, addr := range slices.Sorted(maps.Keys(k.nodes)) {
		for j := range 2 {
			var mine []string
			for n := range 167 {
				mine = append(mine, fmt.Sprintf("user-%d-%d-%d", i, j, n))
			}
			holder(t, Config{Handler: func(context.Context, *Delivery) { received.Add(1) }}, addr, mine...)
			ids = append(ids, mine...)
		}
	}
	ids = ids[:1000]
	alice := k.dial(Config{MaxInFlight: 100}, 1, "alice") // fewer than IDs
	m := Message{From: "alice", Payload: make([]byte, 10_000)}
	known, err := alice.Multicast(testContext(t), m, ids) // then all routes are known
	if err != nil || slices.ContainsFunc(known, func(r Result) bool { return r.Err != nil }) {
		t.Fatalf("%v", err)
	}
	stats := func() (forwards, delivers uint64) {
		for _, n := range k.nodes {
			old := n.Stats().Wakeups
			eventually(t, "a node to publish its numbers", func() bool { return n.Stats().Wakeups != old })
			st := n.Stats()
			forwards += st.MulticastForwards
			delivers += st.MulticastDelivers
		}
		return forwards, delivers
	}
	forwards, delivers := stats()
	results, err := alice.Multicast(testContext(t), m, ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.ID != ids[i] || r.Err != nil {
			t.Fatalf("%s: %v", r.ID, r.Err)
		}
	}
	f, d := stats()
	if f-forwards != 2 || d-delivers != 6 || received.Load() != 2000 {
		t.Errorf("%d payloads over links, %d to app servers, %d messages handled; want 2, 6, 2000", f-forwards, d-delivers, received.Load())
	}
}

// cutter is a Dialer whose connections can be cut, and which then makes no more.
type cutter struct {
	mu    sync.Mutex
	conns []net.Conn
	over  bool
}

func (d *cutter) dial(_ context.Context, addr string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.over {
		return nil, errBroken
	}
	nc, err := net.Dial("tcp", addr)
	d.conns = append(d.conns, nc)
	return nc, err
}

func (d *cutter) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	for _, nc := range d.conns {
		nc.Close()
	}
}

// TestMulticastReceiverLost: an app server dies with its copies: lost. While its session may come
// back: unreachable; the other copies do not care.
func TestMulticastReceiverLost(t *testing.T) {
	k := startCluster(t)
	var ends cutter
	arrived := make(chan string, 10)
	var at []string
	for addr := range k.nodes {
		at = append(at, addr)
	}
	// Not holder: its Close would complain that it was cut off.
	doomed, err := Dial(testContext(t), Config{Nodes: at[:1], Logger: quiet(), Dialer: ends.dial, Handler: func(_ context.Context, d *Delivery) {
		d.Defer()
		arrived <- d.To
	}})
	if err != nil {
		t.Fatal(err)
	}
	closeAbruptly(t, doomed)
	if err := doomed.Bind(testContext(t), "x", "y"); err != nil {
		t.Fatal(err)
	}
	holder(t, Config{Handler: accept}, at[1], "bob")
	alice := holder(t, Config{}, at[2], "alice")
	to := []string{"x", "bob", "y"}
	done := startMulticast(testContext(t), alice, Message{From: "alice", TTL: 20 * time.Second}, to)
	receive(t, arrived, "a copy")
	receive(t, arrived, "another copy")
	ends.cut()
	if got := receive(t, done, "the multicast"); !slices.Equal(words(got.results), []string{"x lost", "bob acked", "y lost"}) {
		t.Errorf("%v, %v", words(got.results), got.err)
	}
	eventually(t, "unreachable", func() bool {
		results, err := alice.Multicast(testContext(t), Message{From: "alice"}, to)
		return err == nil && slices.Equal(words(results), []string{"x unreachable", "bob acked", "y unreachable"})
	})
}

// TestMulticastWhileNodesDrain: the sender's node and a receiver's drain during multicasts.
// None fails.
func TestMulticastWhileNodesDrain(t *testing.T) {
	k := startCluster(t)
	var ids []string
	for addr := range k.nodes {
		id := "user at " + addr
		holder(t, Config{Handler: accept}, addr, id)
		ids = append(ids, id)
	}
	alice := k.dial(Config{}, 1, "alice")
	var stop atomic.Bool
	var all sync.WaitGroup
	var sent atomic.Int64
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				results, err := alice.Multicast(context.Background(), Message{From: "alice"}, ids)
				if err != nil || slices.ContainsFunc(results, func(r Result) bool { return r.Err != nil }) {
					t.Errorf("%v, %v", words(results), err)
				}
				sent.Add(1)
			}
		})
	}
	before := func() { n := sent.Load(); eventually(t, "more multicasts", func() bool { return sent.Load() > n+20 }) }
	before()
	n := k.nodes[alice.State().Addr]
	if err := n.Drain(testContext(t)); err != nil {
		t.Error(err)
	}
	n.stop()
	before()
	stop.Store(true)
	all.Wait()
}
