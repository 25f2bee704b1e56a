package client

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"distmsg/codec"
)

func (c *fakeConn) deliverMany(flags uint8, payload string, to ...codec.Recipient) {
	c.t.Helper()
	for i := range to {
		to[i].Token = []byte("token-" + string(to[i].To))
	}
	f := codec.DeliverMany{From: []byte("x"), TTL: 1000, Flags: flags, Payload: []byte(payload)}
	c.put(codec.AppendDeliverMany(nil, codec.KindDeliverMany, &f, to))
}

func (c *fakeConn) expectNotHereMany() (ids []string, f codec.DeliverMany) {
	c.t.Helper()
	if err := codec.DecodeDeliverMany(c.expect(codec.KindNotHereMany), codec.KindNotHereMany, 100, &f); err != nil {
		c.t.Fatal(err)
	}
	for v, ok := f.To.Next(); ok; v, ok = f.To.Next() {
		ids = append(ids, fmt.Sprintf("%s %s %d", v.To, v.Token, v.Epoch))
	}
	return ids, f
}

// TestDeliverMany: each ID has its own delivery of the one payload, in order with others to it, and
// answers for itself; those that are not held go back together.
func TestDeliverMany(t *testing.T) {
	n := newFakeNode(t).start()
	var mu sync.Mutex
	got := make(map[string][]string)
	s, c := attachFake(t, n, Config{Handler: func(_ context.Context, d *Delivery) {
		mu.Lock()
		got[d.To] = append(got[d.To], d.From+" "+string(d.Payload))
		mu.Unlock()
		if _, ok := d.Deadline(); !ok {
			t.Error("no deadline")
		}
		if d.To == "b" {
			_ = d.Reject("no")
		}
	}})
	bindFake(t, s, c, "a", "b", "c")
	c.deliverMany(codec.FlagAck, "one", codec.Recipient{To: []byte("a"), Epoch: 100}, codec.Recipient{To: []byte("z"), Epoch: 109},
		codec.Recipient{To: []byte("b"), Epoch: 50}, codec.Recipient{To: []byte("c"), Epoch: 103}, codec.Recipient{To: []byte("a"), Epoch: 100})
	c.deliver("a", 100, codec.FlagAck)
	acks, back := make(map[string]int), 0
	for range 5 {
		body, err := c.frame()
		if err != nil {
			t.Fatal(err)
		}
		var ack codec.Ack
		var f codec.DeliverMany
		if codec.DecodeAck(body, &ack) == nil {
			acks[string(ack.Token)+" "+ack.Code.String()]++
			continue
		}
		if err := codec.DecodeDeliverMany(body, codec.KindNotHereMany, 100, &f); err != nil {
			t.Fatal(err)
		}
		back++
		first, _ := f.To.Next()
		second, _ := f.To.Next()
		if f.To.Len() != 0 || string(first.To) != "z" || string(first.Token) != "token-z" || first.Epoch != 109 || string(second.To) != "c" ||
			string(f.From) != "x" || f.Flags != codec.FlagAck || f.TTL == 0 || f.TTL > 1000 || string(f.Payload) != "one" {
			t.Errorf("not_here_many: %+v, %+v, %+v", f, first, second)
		}
	}
	if back != 1 || acks["token-a acked"] != 3 || acks["token-b rejected"] != 1 {
		t.Errorf("%d came back, acks %v", back, acks)
	}
	mu.Lock()
	if !slices.Equal(got["a"], []string{"x one", "x one", "x hello"}) || !slices.Equal(got["b"], []string{"x one"}) || len(got) != 2 {
		t.Errorf("delivered: %v", got)
	}
	mu.Unlock()
	if st := s.Stats(); st.Received != 6 || st.NotHere != 2 {
		t.Errorf("%+v", st)
	}

	c.deliverMany(0, "posted", codec.Recipient{To: []byte("z")})
	if ids, f := c.expectNotHereMany(); !slices.Equal(ids, []string{"z token-z 0"}) || len(f.Payload) != 0 || len(f.From) != 0 || f.TTL != 0 {
		t.Errorf("%v came back, %+v", ids, f)
	}
}

// TestDeliverManyQueues: in an ID's queue a message counts in full, in all of them together once;
// what has no room is rejected for that ID only.
func TestDeliverManyQueues(t *testing.T) {
	n := newFakeNode(t).start()
	release := make(chan struct{})
	running := make(chan struct{}, 100)
	s, c := attachFake(t, n, Config{QueueBytes: 2 * (jobSize + 1000), QueueTotal: 4*jobSize + 1500, Handler: func(context.Context, *Delivery) {
		running <- struct{}{}
		<-release
	}})
	bindFake(t, s, c, "a", "b", "c")
	c.deliverMany(codec.FlagAck, "go", codec.Recipient{To: []byte("a")})
	receive(t, running, "the handler of a")
	large := strings.Repeat("x", 900)
	// Of a both fit (it runs one already), of b and c the first runs and the second waits: 4 wait,
	// 2 bodies.
	c.deliverMany(codec.FlagAck, large, codec.Recipient{To: []byte("a")}, codec.Recipient{To: []byte("b")}, codec.Recipient{To: []byte("c")})
	receive(t, running, "the handler of b or c")
	receive(t, running, "the other one's")
	waits := func() int { s.inbox.mu.Lock(); defer s.inbox.mu.Unlock(); return s.inbox.bytes }
	if got := waits(); got < jobSize+900 || got > jobSize+1100 {
		t.Errorf("%d bytes wait, want those of one message", got)
	}
	c.deliverMany(codec.FlagAck, strings.Repeat("y", 400), codec.Recipient{To: []byte("b")}, codec.Recipient{To: []byte("c")})
	eventually(t, "the second message", func() bool { return s.Stats().Received == 6 })
	if got := waits(); got < 3*jobSize+1300 || got > 3*jobSize+1600 {
		t.Errorf("%d bytes wait, want those of three jobs and two messages", got)
	}
	c.deliverMany(codec.FlagAck, large, codec.Recipient{To: []byte("a")}, codec.Recipient{To: []byte("b")})
	for _, token := range []string{"token-a", "token-b"} { // over the total
		if ack := c.expectAck(); ack.Code != codec.CodeRejected || string(ack.Token) != token || string(ack.Reason) != "receiver busy" {
			t.Errorf("%+v", ack)
		}
	}
	close(release)
	for range 6 {
		if ack := c.expectAck(); ack.Code != codec.CodeAcked {
			t.Errorf("%+v", ack)
		}
	}
	eventually(t, "empty queues", func() bool { return waits() == 0 && s.Stats().Queued == 0 })
}
