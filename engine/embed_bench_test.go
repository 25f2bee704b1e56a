package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/engine"
)

// These benchmarks are about a program that embeds the engine: what a message costs from one of its
// users to another, and what a user costs who is there and says nothing. They print; they assert
// nothing about time. The CPU time is that of the whole process, so run one at a time:
//
//	go test ./engine -run '^$' -bench 'Embedded' -count 5
//	go test ./engine -run '^$' -bench 'EmbeddedUsers' -benchtime 1x -count 3

// embeddedUser is who holds one ID and sends from it.
type embeddedUser interface {
	send(ctx context.Context, to string, payload []byte) error
	sendAsync(ctx context.Context, to string, payload []byte, done func(error))
	post(ctx context.Context, to string, payload []byte) error
}

// wayIn is a way for an embedding program to hold users at its node. Each user accepts what comes.
type wayIn struct {
	name string
	open func(b *testing.B, node *engine.Engine, ids []string) []embeddedUser
}

var waysIn = []wayIn{{"session per user", openSDK}, {"one session", openShared}}

type sdkUser struct {
	*client.Session
	id string
}

func (u sdkUser) send(ctx context.Context, to string, payload []byte) error {
	_, err := u.Send(ctx, client.Message{From: u.id, To: to, Payload: payload})
	return err
}

func (u sdkUser) sendAsync(ctx context.Context, to string, payload []byte, done func(error)) {
	u.SendAsync(ctx, client.Message{From: u.id, To: to, Payload: payload}, func(_ client.Reply, err error) { done(err) })
}

func (u sdkUser) post(ctx context.Context, to string, payload []byte) error {
	_, err := u.Post(ctx, client.Message{From: u.id, To: to, Payload: payload})
	return err
}

func dialInProcess(b *testing.B, node *engine.Engine) *client.Session {
	s, err := client.Dial(b.Context(), client.Config{
		Nodes: []string{engine.InProcessAddr}, Dialer: node.Dialer(),
		Handler: func(context.Context, *client.Delivery) {},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return s
}

// openSDK gives each user a session.
func openSDK(b *testing.B, node *engine.Engine, ids []string) []embeddedUser {
	users := make([]embeddedUser, len(ids))
	for i, id := range ids {
		users[i] = sdkUser{dialInProcess(b, node), id}
		if err := users[i].(sdkUser).Bind(b.Context(), id); err != nil {
			b.Fatal(err)
		}
	}
	return users
}

// openShared has one session hold all users, as an app server does.
func openShared(b *testing.B, node *engine.Engine, ids []string) []embeddedUser {
	s := dialInProcess(b, node)
	users := make([]embeddedUser, len(ids))
	for i, id := range ids {
		if err := s.BindWith(b.Context(), client.BindOptions{Handler: func(context.Context, *client.Delivery) {}}, id); err != nil {
			b.Fatal(err)
		}
		users[i] = sdkUser{s, id}
	}
	return users
}

func embeddedIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("user-%08d", i)
	}
	return ids
}

// embeddedNode runs a node for a benchmark.
func embeddedNode(b *testing.B) *engine.Engine {
	node, stop := run(engine.Config{Addr: "none", Loops: 1, Logger: slog.New(slog.DiscardHandler)})
	b.Cleanup(func() {
		if err := stop(); err != nil {
			b.Error(err)
		}
	})
	return node
}

// processCPU is the CPU time that this process has used.
func processCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU runs a benchmark's body and reports the CPU time of an operation.
func reportCPU(b *testing.B, body func()) {
	b.ReportAllocs()
	before := processCPU()
	body()
	b.ReportMetric(float64(processCPU()-before)/float64(b.N), "cpu-ns/op")
}

// BenchmarkEmbedded is a message of 128 bytes from one user to another, both in the node's process.
func BenchmarkEmbedded(b *testing.B) {
	for _, way := range waysIn {
		b.Run(way.name, func(b *testing.B) {
			node := embeddedNode(b)
			ids := embeddedIDs(64)
			users := way.open(b, node, ids)
			benchmarkEmbedded(b, users, ids)
		})
	}
}

func benchmarkEmbedded(b *testing.B, users []embeddedUser, ids []string) {
	ctx, payload, n := context.Background(), make([]byte, 128), len(users)
	to := func(i int) string { return ids[(i+n/2)%n] }
	b.Run("send/one", func(b *testing.B) {
		reportCPU(b, func() {
			for b.Loop() {
				if err := users[0].send(ctx, to(0), payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("send/each", func(b *testing.B) { // each user has one under way
		reportCPU(b, func() {
			var all sync.WaitGroup
			for i, u := range users {
				all.Go(func() {
					for range b.N/n + 1 {
						if err := u.send(ctx, to(i), payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	})
	b.Run("sendAsync", func(b *testing.B) {
		reportCPU(b, func() {
			var all sync.WaitGroup
			done := func(err error) {
				if err != nil {
					b.Error(err)
				}
				all.Done()
			}
			all.Add(b.N)
			for i := range b.N {
				users[i%n].sendAsync(ctx, to(i), payload, done)
			}
			all.Wait()
		})
	})
	b.Run("post", func(b *testing.B) { // the send behind them comes last
		reportCPU(b, func() {
			for i := range b.N {
				if err := users[0].post(ctx, to(0), payload); err != nil {
					b.Fatal(err)
				}
				if i%256 == 255 || i == b.N-1 {
					if err := users[0].send(ctx, to(0), payload); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	})
}

// embeddedUsers is how many users a process holds to find out what one takes.
const embeddedUsers = 10_000

// BenchmarkEmbeddedUsers is what a user takes who has sent and received a message and is idle
// since: memory (heap and stacks), goroutines, and the CPU time of a second for all of them.
func BenchmarkEmbeddedUsers(b *testing.B) {
	for _, way := range waysIn {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				node := embeddedNode(b)
				before, routines := memoryInUse(), runtime.NumGoroutine()
				ids := embeddedIDs(embeddedUsers)
				began := processCPU()
				users := way.open(b, node, ids)
				for i := range users {
					if err := users[i].send(b.Context(), ids[embeddedUsers-1-i], []byte("hello")); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(processCPU()-began)/embeddedUsers, "login-cpu-ns/user")
				b.ReportMetric(float64(memoryInUse()-before)/embeddedUsers, "B/user")
				b.ReportMetric(float64(runtime.NumGoroutine()-routines)/embeddedUsers, "goroutines/user")
				began = processCPU()
				time.Sleep(time.Second)
				b.ReportMetric(float64(processCPU()-began)/float64(time.Millisecond), "idle-cpu-ms/s")
				runtime.KeepAlive(users)
			}
		})
	}
}

// memoryInUse is the least of a few looks, so that what waits to be freed does not count.
func memoryInUse() int64 {
	looks := make([]int64, 3)
	for i := range looks {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		looks[i] = int64(m.HeapAlloc + m.StackInuse)
	}
	return slices.Min(looks)
}
