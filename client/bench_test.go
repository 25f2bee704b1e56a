package client

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"distmsg/engine"
)

func accept(context.Context, *Delivery) {}

// BenchmarkSend is the acked round trip through a node in this process: sender, node and receiver
// all count, in time and in allocations.
func BenchmarkSend(b *testing.B) {
	n := startNode(b, engine.Config{Loops: 1})
	holder(b, Config{Handler: accept}, n.addr, "bob")
	alice := holder(b, Config{}, n.addr, "alice")
	m := Message{To: "bob", From: "alice", Payload: make([]byte, 128)}
	ctx := context.Background()

	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := alice.Send(ctx, m); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("goroutines=50", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(25)
		before := alice.Stats()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := alice.Send(ctx, m); err != nil {
					b.Error(err)
				}
			}
		})
		reportWrites(b, alice, before)
	})
	b.Run("async", func(b *testing.B) {
		b.ReportAllocs()
		before := alice.Stats()
		var all sync.WaitGroup
		done := func(_ Reply, err error) {
			if err != nil {
				b.Error(err)
			}
			all.Done()
		}
		for b.Loop() {
			all.Add(1)
			alice.SendAsync(ctx, m, done)
		}
		all.Wait()
		reportWrites(b, alice, before)
	})
}

func reportWrites(b *testing.B, s *Session, before Stats) {
	now := s.Stats()
	b.ReportMetric(float64(now.Writes-before.Writes)/float64(b.N), "writes/op")
}

// BenchmarkPost is a message without an outcome, up to the sender's credit.
func BenchmarkPost(b *testing.B) {
	n := startNode(b, engine.Config{Loops: 1})
	holder(b, Config{Handler: accept, QueueMessages: 1 << 20, QueueBytes: 1 << 30, QueueTotal: 1 << 30}, n.addr, "bob")
	alice := holder(b, Config{}, n.addr, "alice")
	m := Message{To: "bob", From: "alice", Payload: make([]byte, 128)}
	b.ReportAllocs()
	before := alice.Stats()
	for b.Loop() {
		if _, err := alice.Post(context.Background(), m); err != nil {
			b.Fatal(err)
		}
	}
	reportWrites(b, alice, before)
}

func BenchmarkSendValue(b *testing.B) {
	type point struct{ X, Y int }
	n := startNode(b, engine.Config{Loops: 1})
	echo := HandleValue(func(_ context.Context, d *Delivery, p point) { _ = d.ReplyValue(p) })
	holder(b, Config{Handler: echo}, n.addr, "bob")
	alice := holder(b, Config{}, n.addr, "alice")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := SendValue[point](context.Background(), alice, Message{To: "bob", From: "alice"}, point{1, 2}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBind prints how many IDs a second one session binds, and unbinds, in calls of 10,000.
func BenchmarkBind(b *testing.B) {
	n := startNode(b, engine.Config{Loops: 1})
	s := dial(b, Config{}, n.addr)
	ids := make([]string, 10_000)
	for i := range ids {
		ids[i] = fmt.Sprintf("user-%018d", i)
	}
	for b.Loop() {
		if err := s.Bind(context.Background(), ids...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(ids))/b.Elapsed().Seconds(), "IDs/s")
}
