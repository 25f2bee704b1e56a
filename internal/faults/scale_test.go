package faults

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/client"
	"distmsg/internal/usage"
)

var manyIDs = flag.Int("faults.ids", 0, "measure two nodes with so many bound IDs, such as 1000000")

const (
	scaleSessions = 50              // at each node
	scalePortion  = 1000            // IDs of one bind or lookup
	scaleAskers   = 8               // sessions that look IDs up
	scaleRest     = 5 * time.Second // until memory is read again
)

// TestManyIDs measures what bound IDs cost two nodes and Redis, and how long IDs are away whose
// node dies:
//
//	go test ./internal/faults -v -timeout 20m -run TestManyIDs -faults.ids 1000000
//
// Half of the IDs are bound at each node. They have 23 bytes, as in docs/benchmarks.md.
func TestManyIDs(t *testing.T) {
	if *manyIDs == 0 {
		t.Skip("it measures: -faults.ids N")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	c, err := Start(ctx, Options{Nodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := &scale{T: t, ctx: ctx, c: c, each: *manyIDs / 2 / scaleSessions}
	defer s.close()
	for node := range c.Nodes {
		for i := range scaleSessions {
			s.join(node, fmt.Sprintf("%d-%02d", node, i))
		}
	}
	s.bind()
	s.die()
	if t.Failed() {
		t.Log(c.Logs())
	}
}

// scale is a cluster with many IDs.
type scale struct {
	*testing.T
	ctx  context.Context
	c    *Cluster
	each int // IDs of a session

	members []*member
	kicks   atomic.Int64
}

// member is a session with many IDs.
type member struct {
	session *client.Session
	name    string
	ids     []string
	moved   atomic.Int64 // when it was attached last, as Unix nanoseconds
	resumed atomic.Bool  // at its latest attach
}

func (s *scale) check(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// join opens a session at a node.
func (s *scale) join(node int, name string) *member {
	s.Helper()
	m := &member{name: name}
	session, err := client.Dial(s.ctx, client.Config{
		Nodes: []string{s.c.Nodes[node].Addr}, Logger: slog.New(slog.DiscardHandler),
		Handler: func(context.Context, *client.Delivery) {},
		OnKick:  func(client.Kick) { s.kicks.Add(1) },
		OnState: func(state client.State) {
			if state.Err == nil {
				m.moved.Store(time.Now().UnixNano())
				m.resumed.Store(state.Resumed)
			}
		},
	})
	s.check(err)
	m.session = session
	s.members = append(s.members, m)
	return m
}

func (s *scale) close() {
	for _, m := range s.members {
		ctx, cancel := context.WithCancel(s.ctx)
		cancel() // nobody waits for what is still open
		_ = m.session.Close(ctx)
	}
}

// all calls f for sessions at the same time.
func (s *scale) all(members []*member, f func(m *member) error) {
	s.Helper()
	var work sync.WaitGroup
	for _, m := range members {
		work.Go(func() {
			if err := f(m); err != nil {
				s.Errorf("session %s: %v", m.name, err)
			}
		})
	}
	work.Wait()
}

// bind binds all IDs, and prints what that costs.
func (s *scale) bind() {
	for _, m := range s.members {
		for i := range s.each {
			m.ids = append(m.ids, fmt.Sprintf("user-%s-%013d", m.name, i)) // 23 bytes
		}
	}
	n := s.each * len(s.members)
	before, began := s.look(), time.Now()
	var again atomic.Int64
	s.all(s.members, func(m *member) error {
		for ids := range slices.Chunk(m.ids, 16*scalePortion) {
			// it fails if Redis is too slow to answer
			for err := m.session.Bind(s.ctx, ids...); err != nil; err = m.session.Bind(s.ctx, ids...) {
				again.Add(1)
				if !Pause(s.ctx, tryPause) {
					return err
				}
			}
		}
		return nil
	})
	took, after := time.Since(began), s.look()
	s.Logf("%d IDs of %d sessions bound in %v: %.0f a second", n, len(s.members), took.Round(time.Millisecond), float64(n)/took.Seconds())
	if n := again.Load(); n > 0 {
		s.Logf("%d binds of %d IDs each had to be repeated: the machine is too busy to measure", n, min(s.each, 16*scalePortion))
	}
	s.Logf("CPU of a bind: nodes %.2f µs, Redis %.2f µs", micros(after.nodes-before.nodes, n), micros(after.redis-before.redis, n))
	s.costs("at once", before, after, n)
	Pause(s.ctx, scaleRest)
	s.costs(fmt.Sprintf("%v later", scaleRest), before, s.look(), n)
}

func micros(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(n) }

// costs prints the memory of a bound ID.
func (s *scale) costs(when string, before, after look, n int) {
	var each []string
	for i := range after.rss {
		each = append(each, fmt.Sprintf("%.0f", (after.rss[i]-before.rss[i])/float64(n/len(after.rss))))
	}
	s.Logf("bytes of a bound ID, %s: %s of RSS in the nodes, %.1f in Redis (used_memory), %.1f of its RSS",
		when, strings.Join(each, " and "), (after.used-before.used)/float64(n), (after.redisRSS-before.redisRSS)/float64(n))
}

// look is what the processes use.
type look struct {
	nodes, redis   time.Duration // CPU
	rss            []float64     // of each node
	used, redisRSS float64       // of Redis
}

func (s *scale) look() (l look) {
	s.Helper()
	for _, node := range s.c.Nodes {
		cpu, err := usage.CPU(node.PID())
		s.check(err)
		rss, err := usage.RSS(node.PID())
		s.check(err)
		l.nodes, l.rss = l.nodes+cpu, append(l.rss, float64(rss))
	}
	var err error
	l.redis, err = usage.CPU(s.c.Redis.PID())
	s.check(err)
	rss, err := usage.RSS(s.c.Redis.PID())
	s.check(err)
	l.redisRSS = float64(rss)
	text, err := s.c.Redis.Do(s.ctx, "INFO", "memory")
	s.check(err)
	_, text, _ = strings.Cut(text, "used_memory:")
	text, _, _ = strings.Cut(text, "\r\n")
	l.used, err = strconv.ParseFloat(text, 64)
	s.check(err)
	return l
}

// die kills the first node, and prints when its sessions are attached elsewhere, when each of them
// has acked a message, and when all their IDs are online for others.
func (s *scale) die() {
	lost := s.members[:scaleSessions]
	var askers []*member
	for i := range scaleAskers {
		askers = append(askers, s.join(1, fmt.Sprint("asker-", i)))
	}
	s.check(askers[0].session.Bind(s.ctx, "asker"))
	died := time.Now()
	s.c.Nodes[0].Kill()
	var acked atomic.Int64 // the latest first ack
	s.all(lost, func(m *member) error {
		for {
			_, err := askers[0].session.Send(s.ctx, client.Message{From: "asker", To: m.ids[len(m.ids)/2], TTL: tryTTL})
			if err == nil {
				acked.Store(max(acked.Load(), int64(time.Since(died))))
				return nil
			}
			if !Pause(s.ctx, tryPause) {
				return err
			}
		}
	})
	attached, resumed := died, 0
	for _, m := range lost {
		if at := time.Unix(0, m.moved.Load()); at.After(attached) {
			attached = at
		}
		if m.resumed.Load() {
			resumed++
		}
	}
	var ids []string
	for _, m := range lost {
		ids = append(ids, m.ids...)
	}
	tries := s.online(askers, ids)
	s.Logf("after the death of a node with %d IDs: the last of its %d sessions is attached again after %v (%d resumed), an ID of each has acked after %v, all are online after %v",
		len(ids), len(lost), attached.Sub(died).Round(time.Millisecond), resumed, time.Duration(acked.Load()).Round(time.Millisecond), time.Since(died).Round(time.Millisecond))
	s.Logf("%d lookups, %d kicks", tries, s.kicks.Load())
}

// online looks IDs up until all of them are online, and returns how many lookups that took.
func (s *scale) online(askers []*member, ids []string) int {
	var tries atomic.Int64
	next := make(chan []string, len(ids)/scalePortion+1)
	for portion := range slices.Chunk(ids, scalePortion) {
		next <- portion
	}
	close(next)
	s.all(askers, func(m *member) error {
		for portion := range next {
			for len(portion) > 0 {
				found, err := m.session.Lookup(s.ctx, portion...)
				if err != nil {
					return err
				}
				tries.Add(int64(len(portion)))
				portion = nil
				for _, p := range found {
					if !p.Online() {
						portion = append(portion, p.ID)
					}
				}
				if len(portion) > 0 && !Pause(s.ctx, tryPause) {
					return s.ctx.Err()
				}
			}
		}
		return nil
	})
	return int(tries.Load())
}
