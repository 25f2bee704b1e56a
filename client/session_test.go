package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
)

func TestSendOutcomes(t *testing.T) {
	n := startNode(t, engine.Config{MaxPayload: 1000})
	holder(t, Config{Handler: func(_ context.Context, d *Delivery) {
		switch string(d.Payload) {
		case "reply":
			if err := d.Reply([]byte("to " + d.From)); err != nil {
				t.Error(err)
			}
			if err := d.Reply(nil); err != ErrAnswered {
				t.Errorf("a second answer: %v", err)
			}
		case "large":
			if err := d.Reply(make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
				t.Errorf("a large reply: %v", err)
			}
			if err := d.ReplyValue(make([]byte, 1001)); !errors.Is(err, ErrTooLarge) {
				t.Errorf("a large reply: %v", err)
			}
		case "reject":
			_ = d.Reject("because " + strings.Repeat("ö", 200))
		case "panic":
			panic("at the disco")
		}
		if at, ok := d.Deadline(); !ok || time.Until(at) > 5*time.Second || !d.WantsAck() {
			t.Errorf("deadline %v, %v; wants ack %v", at, ok, d.WantsAck())
		}
	}}, n.addr, "bob")
	s := holder(t, Config{}, n.addr, "alice", "silent")
	ctx := testContext(t)
	for _, v := range []struct {
		m     Message
		reply string
		want  error
	}{
		{Message{To: "bob", From: "alice", Payload: []byte("accept")}, "", nil},
		{Message{To: "bob", From: "alice", Payload: []byte("reply"), TTL: time.Second}, "to alice", nil},
		{Message{To: "bob", From: "alice", Payload: []byte("large")}, "", nil},
		{Message{To: "bob", From: "alice", Payload: []byte("reject")}, "", ErrRejected},
		{Message{To: "bob", From: "alice", Payload: []byte("panic")}, "", ErrRejected},
		{Message{To: "silent", From: "alice"}, "", ErrRejected}, // has no handler
		{Message{To: "nobody", From: "alice"}, "", ErrNoRoute},
		{Message{To: "bob", From: "mallory"}, "", ErrDenied},
		{Message{To: "bob", From: "alice", Payload: make([]byte, 1001)}, "", ErrTooLarge},
		{Message{To: "bob", From: "alice", Value: make([]byte, 1001)}, "", ErrTooLarge},
		{Message{To: "", From: "alice"}, "", ErrBadID},
		{Message{To: strings.Repeat("x", 256), From: "alice"}, "", ErrBadID},
	} {
		v.m.TTL = max(v.m.TTL, 4*time.Second)
		reply, err := s.Send(ctx, v.m)
		if string(reply.Payload) != v.reply || !errors.Is(err, v.want) {
			t.Errorf("%.20q: %q, %v; want %q, %v", v.m.Payload, reply.Payload, err, v.reply, v.want)
		}
		async := make(chan error, 1)
		s.SendAsync(ctx, v.m, func(_ Reply, err error) { async <- err })
		if err := receive(t, async, "the callback"); !errors.Is(err, v.want) {
			t.Errorf("%.20q: %v, want %v", v.m.Payload, err, v.want)
		}
	}
	if _, err := s.Send(ctx, Message{To: "bob", From: "alice", Value: make(chan int)}); err == nil || errors.As(err, new(*Error)) {
		t.Errorf("a channel as a value: %v", err)
	}
	if st := s.Stats(); st.InFlight != 0 || st.InFlightBytes != 0 || st.LateOutcomes != 0 {
		t.Errorf("%+v", st)
	}
}

func TestSendEndsWithContext(t *testing.T) {
	n := startNode(t, engine.Config{})
	stuck := make(chan struct{})
	holder(t, Config{Handler: func(context.Context, *Delivery) { <-stuck }}, n.addr, "bob")
	s := holder(t, Config{MaxInFlight: 1}, n.addr, "alice")
	t.Cleanup(func() { close(stuck) })
	m := Message{To: "bob", From: "alice"}

	ctx, cancel := context.WithCancel(context.Background())
	given := make(chan error, 1)
	go func() {
		_, err := s.Send(ctx, m)
		given <- err
	}()
	eventually(t, "the send", func() bool { return s.Stats().Sent == 1 })

	// The window is full: another one waits, and is not written.
	if _, err := s.Send(newWaitedFor(), m); !errors.Is(err, ErrExpired) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a full window: %v", err)
	}
	cancel()
	if err := receive(t, given, "the cancelled send"); !errors.Is(err, ErrTimeout) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := s.Send(ctx, m); err == nil || s.Stats().Sent != 1 {
		t.Errorf("with an ended context: %v", err)
	}
}

// TestOrder: what one goroutine sends to one ID arrives in order, however it is sent (S20).
func TestOrder(t *testing.T) {
	const senders, receivers, messages = 4, 5, 400
	n := startNode(t, engine.Config{Loops: 2})
	var mu sync.Mutex
	last := make(map[string]int)
	got := 0
	var ids, froms []string
	for i := range receivers {
		ids = append(ids, fmt.Sprint("r", i))
	}
	for i := range senders {
		froms = append(froms, fmt.Sprint("s", i))
	}
	holder(t, Config{Handler: HandleValue(func(_ context.Context, d *Delivery, seq int) {
		mu.Lock()
		defer mu.Unlock()
		got++
		if pair := d.From + d.To; last[pair]+1 != seq {
			t.Errorf("%s: %d after %d", pair, seq, last[pair])
		}
		last[d.From+d.To] = seq
	})}, n.addr, ids...)
	s := holder(t, Config{MaxInFlight: 50}, n.addr, froms...)
	ctx := testContext(t)
	var all sync.WaitGroup
	for _, from := range froms {
		all.Go(func() {
			for seq := 1; seq <= messages; seq++ {
				for _, to := range ids {
					m := Message{To: to, From: from, Value: seq}
					switch rand.IntN(3) {
					case 0:
						if _, err := s.Post(ctx, m); err != nil {
							t.Error(err)
						}
					case 1:
						if _, err := s.Send(ctx, m); err != nil {
							t.Error(err)
						}
					case 2:
						all.Add(1)
						s.SendAsync(ctx, m, func(_ Reply, err error) {
							if err != nil {
								t.Error(err)
							}
							all.Done()
						})
					}
				}
			}
		})
	}
	all.Wait()
	eventually(t, "all messages", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return got == senders*receivers*messages
	})
	if st := s.Stats(); st.Sent != st.Outcomes[codec.CodeAcked] || st.Sent+st.Posted != senders*receivers*messages {
		t.Errorf("%+v", st)
	}
}

// TestSlowHandler: it delays only its own ID. When that queue is full, senders hear so.
func TestSlowHandler(t *testing.T) {
	n := startNode(t, engine.Config{})
	stuck, entered := make(chan struct{}), make(chan struct{}, 3)
	s := dial(t, Config{QueueMessages: 2, Workers: 2, Handler: accept}, n.addr)
	ctx := testContext(t)
	if err := s.BindWith(ctx, BindOptions{Handler: func(context.Context, *Delivery) {
		entered <- struct{}{}
		<-stuck
	}}, "slow"); err != nil {
		t.Fatal(err)
	}
	if err := s.Bind(ctx, "quick", "me"); err != nil {
		t.Fatal(err)
	}
	outcomes := make(chan error, 4)
	send := func() {
		s.SendAsync(ctx, Message{To: "slow", From: "me", TTL: patience}, func(_ Reply, err error) { outcomes <- err })
	}
	send()
	receive(t, entered, "the slow handler")
	for range 3 { // two wait, the third is too many
		send()
	}
	if err := receive(t, outcomes, "the refusal"); !errors.Is(err, ErrRejected) || !strings.Contains(err.Error(), "busy") {
		t.Errorf("beyond the queue: %v", err)
	}
	for range 10 {
		if _, err := s.Send(ctx, Message{To: "quick", From: "me"}); err != nil {
			t.Error(err)
		}
	}
	close(stuck)
	for range 3 {
		if err := receive(t, outcomes, "the slow ones"); err != nil {
			t.Error(err)
		}
	}
	if st := s.Stats(); st.Busy != 1 {
		t.Errorf("%+v", st)
	}
}

func TestDefer(t *testing.T) {
	n := startNode(t, engine.Config{})
	deferred := make(chan *Responder, 1)
	s := holder(t, Config{Handler: func(_ context.Context, d *Delivery) {
		deferred <- d.Defer()
		if err := d.Accept(); err != ErrAnswered {
			t.Errorf("answered beside the responder: %v", err)
		}
	}}, n.addr, "me")
	go func() {
		r := <-deferred
		if err := errors.Join(r.Reply([]byte("later")), r.Reject("much later")); !errors.Is(err, ErrAnswered) {
			t.Error(err)
		}
	}()
	if reply, err := s.Send(testContext(t), Message{To: "me", From: "me"}); err != nil || string(reply.Payload) != "later" {
		t.Errorf("%q, %v", reply.Payload, err)
	}
}

func TestPost(t *testing.T) {
	const posts = 600
	n := startNode(t, engine.Config{MaxPayload: 1000, MaxIDs: 16, Credit: 150_000})
	got := make(chan string, 1000)
	holder(t, Config{Handler: func(_ context.Context, d *Delivery) {
		if err := d.Reply([]byte("nobody hears this")); err != nil || d.WantsAck() {
			t.Error(err, d.WantsAck())
		}
		got <- string(d.Payload[:4])
	}}, n.addr, "bob")
	failed := make(chan uint64, 10)
	s := holder(t, Config{OnPostFailed: func(id uint64, err *Error) {
		if !errors.Is(err, ErrNoRoute) {
			t.Error(err)
		}
		failed <- id
	}}, n.addr, "alice")
	ctx := testContext(t)
	for i := range posts { // several times the credit
		if _, err := s.Post(ctx, Message{To: "bob", From: "alice", Payload: fmt.Appendf(nil, "%04d%0996d", i, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range posts {
		if v := receive(t, got, "a post"); v != fmt.Sprintf("%04d", i) {
			t.Errorf("%s at place %d", v, i)
		}
	}
	id, err := s.Post(ctx, Message{To: "nobody", From: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	if v := receive(t, failed, "the report"); v != id {
		t.Errorf("%d failed, not %d", v, id)
	}
}

func TestBindKickLookup(t *testing.T) {
	n := startNode(t, engine.Config{MaxIDs: 3})
	kicks := make(chan Kick, 10)
	ids := []string{"a", "b", "c", "d", "e", "f", "g"}
	first := holder(t, Config{OnKick: func(k Kick) { kicks <- k }}, n.addr, ids...)
	second := dial(t, Config{}, n.addr)
	ctx := testContext(t)

	var e *IDError
	err := second.BindWith(ctx, BindOptions{RejectNew: true}, "a", "new")
	if !errors.As(err, &e) || !errors.Is(err, ErrTaken) || len(e.Failed) != 1 || e.Failed[0].ID != "a" {
		t.Errorf("reject new: %v", err)
	}
	if err := second.Bind(ctx, "a", "b"); err != nil {
		t.Fatal(err)
	}
	lost := []string{receive(t, kicks, "a kick").ID, receive(t, kicks, "a kick").ID}
	if slices.Sort(lost); !slices.Equal(lost, []string{"a", "b"}) {
		t.Errorf("kicked: %v", lost)
	}
	if err := first.Unbind(ctx, "c", "nobody", "a"); err != nil {
		t.Error(err)
	}
	found, err := second.Lookup(ctx, "a", "c", "d", "", "nobody")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []Code{codec.CodeOK, codec.CodeNoRoute, codec.CodeOK, codec.CodeBadID, codec.CodeNoRoute} {
		if p := found[i]; p.Code != want || p.Online() != (want == codec.CodeOK) || p.Online() != (p.Epoch != 0) {
			t.Errorf("%+v, want %v", p, want)
		}
	}
	if epoch, ok := second.Epoch("a"); !ok || epoch != found[0].Epoch {
		t.Errorf("held under %d, found under %d", epoch, found[0].Epoch)
	}
}

// TestConcurrentBindUnbind: whatever the interleaving, SDK and node agree in the end.
func TestConcurrentBindUnbind(t *testing.T) {
	n := startNode(t, engine.Config{Loops: 2})
	s := dial(t, Config{Handler: accept}, n.addr)
	ctx := testContext(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				ids := []string{"a", "b", "c"}[rand.IntN(3):]
				op := s.Bind
				if rand.IntN(2) == 0 {
					op = s.Unbind
				}
				if err := op(ctx, ids...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	found, err := s.Lookup(ctx, "a", "b", "c")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		if epoch, ok := s.Epoch(p.ID); ok != p.Online() || epoch != p.Epoch {
			t.Errorf("%s: held %v under %d; at the node: %v under %d", p.ID, ok, epoch, p.Online(), p.Epoch)
		}
	}
}

func TestValues(t *testing.T) {
	type order struct {
		Item string
		N    int
	}
	n := startNode(t, engine.Config{})
	s := holder(t, Config{Handler: HandleValue(func(_ context.Context, d *Delivery, o order) {
		o.N *= 2
		_ = d.ReplyValue(o)
	})}, n.addr, "shop")
	ctx := testContext(t)
	m := Message{To: "shop", From: "shop"}
	if got, err := SendValue[order](ctx, s, m, order{"tea", 21}); err != nil || got != (order{"tea", 42}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := SendValue[order](ctx, s, m, "not an order"); !errors.Is(err, ErrRejected) {
		t.Error(err)
	}
	if _, err := SendValue[order](ctx, s, m, nil); err != nil { // nil is a value too
		t.Error(err)
	}
	if _, err := SendValue[int](ctx, s, m, order{}); err == nil || errors.As(err, new(*Error)) {
		t.Errorf("a reply of another type: %v", err)
	}
}

// TestWindow: the number of sends in flight never exceeds the window, and blocked senders all get
// their turn.
func TestWindow(t *testing.T) {
	const window, sends = 5, 200
	n := startNode(t, engine.Config{})
	var running, most atomic.Int32
	var ids []string
	for i := range 20 {
		ids = append(ids, fmt.Sprint("r", i))
	}
	holder(t, Config{Handler: func(context.Context, *Delivery) {
		if v := running.Add(1); v > most.Load() {
			most.Store(v)
		}
		running.Add(-1)
	}}, n.addr, ids...)
	s := holder(t, Config{MaxInFlight: window, MaxInFlightBytes: 1000}, n.addr, "alice")
	var all sync.WaitGroup
	for i := range sends {
		all.Go(func() {
			// Some messages are larger than the whole window: they pass alone.
			m := Message{To: ids[i%len(ids)], From: "alice", Payload: make([]byte, i%7*200)}
			if i%2 == 0 {
				m.Payload, m.Value = nil, m.Payload
			}
			if _, err := s.Send(testContext(t), m); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most.Load() > window {
		t.Errorf("%d messages were under way", most.Load())
	}
	if m, b := s.window.used(); m != 0 || b != 0 {
		t.Errorf("%d messages and %d bytes stay in the window", m, b)
	}
}

// TestCallbackPanics: an application's panic takes nothing else down.
func TestCallbackPanics(t *testing.T) {
	n := startNode(t, engine.Config{})
	s := holder(t, Config{Handler: accept, OnState: func(State) { panic("in OnState") }}, n.addr, "me")
	called := make(chan struct{})
	s.SendAsync(testContext(t), Message{To: "me", From: "me"}, func(Reply, error) {
		close(called)
		panic("in a callback")
	})
	receive(t, called, "the callback")
	if _, err := s.Send(testContext(t), Message{To: "me", From: "me"}); err != nil {
		t.Error(err)
	}
	eventually(t, "both panics", func() bool { return s.Stats().Panics == 2 })
}

// TestAllocations: sending and receiving take no memory per message. The node in this process
// counts too.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	n := startNode(t, engine.Config{Loops: 1})
	s := holder(t, Config{Handler: accept}, n.addr, "alice", "bob")
	const batch = 1000
	var all sync.WaitGroup
	done := func(_ Reply, err error) {
		if err != nil {
			t.Error(err)
		}
		all.Done()
	}
	m := Message{To: "bob", From: "alice", Payload: make([]byte, 128)}
	run := func() {
		all.Add(batch)
		for range batch {
			s.SendAsync(context.Background(), m, done)
		}
		all.Wait()
	}
	run()
	perMessage := testing.AllocsPerRun(20, run) / batch
	t.Logf("%.4f allocations per message", perMessage)
	if perMessage > 0.5 {
		t.Errorf("%.2f allocations per message", perMessage)
	}
}

// TestDrainingNode: a real node drains, and the session continues at the other one with its IDs.
func TestDrainingNode(t *testing.T) {
	a, b := startNode(t, engine.Config{DrainSpread: time.Millisecond}), startNode(t, engine.Config{DrainSpread: time.Millisecond})
	nodes := map[string]*node{a.addr: a, b.addr: b}
	s := dial(t, Config{Handler: accept}, a.addr, b.addr)
	ctx := testContext(t)
	if err := s.Bind(ctx, "alice", "bob"); err != nil {
		t.Fatal(err)
	}
	first := s.State().Addr
	if err := nodes[first].Drain(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the move", func() bool { v := s.State(); return v.Attached && v.Addr != first })
	if _, err := s.Send(ctx, Message{To: "bob", From: "alice"}); err != nil {
		t.Error(err)
	}
}

// TestLargeMessages: frames much larger than the buffers come through whole, and small ones after
// them.
func TestLargeMessages(t *testing.T) {
	n := startNode(t, engine.Config{})
	s := holder(t, Config{Handler: func(_ context.Context, d *Delivery) { _ = d.Reply(d.Payload) }}, n.addr, "me")
	for _, size := range []int{1 << 20, 0, 1, readBuffer, readBuffer - 50, 1 << 20, 100_000} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i * 7)
		}
		reply, err := s.Send(testContext(t), Message{To: "me", From: "me", Payload: payload})
		if err != nil || !slices.Equal(reply.Payload, payload) {
			t.Errorf("%d bytes: %d came back, %v", size, len(reply.Payload), err)
		}
	}
}
