package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"distmsg/codec"
)

// manyIDs are n IDs of one length.
func manyIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("to-%05d", i)
	}
	return ids
}

// multicast is one on its way: done gives what it returned.
type multicast struct {
	results []Result
	err     error
}

func startMulticast(ctx context.Context, s *Session, m Message, to []string) (done <-chan multicast) {
	ch := make(chan multicast, 1)
	go func() {
		results, err := s.Multicast(ctx, m, to)
		ch <- multicast{results, err}
	}()
	return ch
}

// asked is a multicast frame as a node gets it.
type askedMany struct {
	codec.Multicast
	to []string
}

func (c *fakeConn) expectMulticast() askedMany {
	c.t.Helper()
	var f askedMany
	if err := codec.DecodeMulticast(c.expect(codec.KindMulticast), 100, &f.Multicast); err != nil {
		c.t.Fatal(err)
	}
	for v, ok := f.To.Next(); ok; v, ok = f.To.Next() {
		f.to = append(f.to, string(v.ID))
	}
	return f
}

// outcomes says several at once.
func (c *fakeConn) outcomes(all ...codec.Outcome) {
	c.t.Helper()
	var elements []byte
	for i := range all {
		elements = codec.AppendOneOutcome(elements, &all[i])
	}
	c.put(codec.AppendOutcomes(nil, len(all), elements))
}

// words are the outcomes of a multicast in order.
func words(results []Result) (w []string) {
	for _, r := range results {
		var e *Error
		switch {
		case r.Err == nil:
			w = append(w, r.ID+" acked")
		case errors.As(r.Err, &e):
			w = append(w, r.ID+" "+e.Code.String())
		}
	}
	return w
}

// TestMulticastOutcomes: one frame goes out, and outcomes come in either kind of frame, in any
// order, twice, late or forged. Each ID gets its own, once.
func TestMulticastOutcomes(t *testing.T) {
	n := newFakeNode(t).start()
	var mu sync.Mutex
	heard := make(map[Code]int)
	s, c := attachFake(t, n, Config{OnOutcome: func(o Outcome) {
		mu.Lock()
		defer mu.Unlock()
		if heard[o.Code]++; o.RoundTrip < 0 || o.RoundTrip > patience {
			t.Errorf("an outcome took %v", o.RoundTrip)
		}
	}})
	for range 3 { // the numbers go on
		bad := strings.Repeat("x", codec.MaxID+1)
		done := startMulticast(testContext(t), s, Message{From: "me", Payload: []byte("hi"), TTL: time.Second}, []string{"a", "", "b", "c", bad, "a"})
		f := c.expectMulticast()
		if !slices.Equal(f.to, []string{"a", "b", "c", "a"}) || string(f.From) != "me" || string(f.Payload) != "hi" || f.Flags != codec.FlagAck ||
			f.TTL == 0 || f.TTL > 1000 {
			t.Fatalf("the frame: %+v", f)
		}
		if used, _ := s.window.used(); used != 4 {
			t.Errorf("%d places in the window", used)
		}
		c.outcomes(
			codec.Outcome{Seq: f.Seq + 3, Code: codec.CodeNoRoute},
			codec.Outcome{Seq: f.Seq + 1, Code: codec.CodeRejected, Reason: []byte("no"), Reply: []byte("why")},
			// forged: no such copy
			codec.Outcome{Seq: f.Seq + 4, Code: codec.CodeAcked},
			// forged: a post was not delivered
			codec.Outcome{Seq: f.Seq | seqManyPost, Code: codec.CodeAcked},
			codec.Outcome{Seq: f.Seq + 3, Code: codec.CodeAcked}, // double
			// forged: an ordinary send
			codec.Outcome{Seq: f.Seq &^ seqMany, Code: codec.CodeAcked},
			// forged, or of the one before
			codec.Outcome{Seq: f.Seq - 1, Code: codec.CodeAcked},
			codec.Outcome{Seq: f.Seq, Code: codec.CodeAcked, Reply: []byte{1}}, // the first copy
		)
		c.outcome(f.Seq+2, codec.CodeUnreachable)
		got := receive(t, done, "the multicast")
		if got.err != nil || !slices.Equal(words(got.results),
			[]string{"a acked", " bad_id", "b rejected", "c unreachable", bad + " bad_id", "a no_route"}) {
			t.Fatalf("%v, %v", words(got.results), got.err)
		}
		var e *Error
		if r := got.results; string(r[0].Reply.Payload) != "\x01" || !errors.As(r[2].Err, &e) || e.Reason != "no" || string(e.Reply) != "why" {
			t.Errorf("%+v", got.results)
		}
	}
	st := s.Stats()
	if st.LateOutcomes != 3*5 || st.InFlight != 0 || st.InFlightBytes != 0 || st.Sent != 12 || st.Outcomes[codec.CodeAcked] != 3 ||
		st.Outcomes[codec.CodeBadID] != 6 || st.Outcomes[codec.CodeNoRoute] != 3 {
		t.Errorf("%+v", st)
	}
	receive(t, s.cb.group.Drained(), "the callbacks")
	mu.Lock()
	defer mu.Unlock()
	for code, n := range st.Outcomes {
		if heard[code] != int(n) {
			t.Errorf("OnOutcome heard %d times of %v, which came %d times", heard[code], code, n)
		}
	}
}

// TestMulticastRefused: what cannot be sent at all is an error that says why, and nothing is sent.
func TestMulticastRefused(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	ctx := testContext(t)
	over, cancel := context.WithCancel(ctx)
	cancel()
	for _, v := range []struct {
		m    Message
		to   []string
		says string
		is   error
	}{
		{Message{To: "x"}, manyIDs(1), `Message.To of a multicast is "x"`, nil},
		{Message{}, manyIDs(21), "too_large: 21 IDs in one multicast, the node allows 20", ErrTooLarge},
		{Message{Payload: make([]byte, 1001)}, manyIDs(2), "too_large: 1001 bytes, the node allows 1000", ErrTooLarge},
		{Message{Payload: make([]byte, 1000)}, slices.Repeat([]string{strings.Repeat("z", 100)}, 20),
			"too_large: a multicast of 1000 bytes to 20 IDs counts as 5304 bytes, the node allows frames of 4000", ErrTooLarge},
		{Message{Value: strings.Repeat("x", 1001)}, manyIDs(2), "too_large: 1004 bytes, the node allows 1000", ErrTooLarge},
		{Message{Value: make(chan int)}, manyIDs(2), "chan int", nil},
		{Message{From: strings.Repeat("f", 256)}, manyIDs(2), "bad_id", ErrBadID},
	} {
		results, err := s.Multicast(ctx, v.m, v.to)
		if results != nil || err == nil || !strings.Contains(err.Error(), v.says) || v.is != nil && !errors.Is(err, v.is) {
			t.Errorf("%d IDs: %v; want %q", len(v.to), err, v.says)
		}
		if _, err := s.PostMulticast(ctx, v.m, v.to); err == nil || !strings.Contains(err.Error(), v.says) {
			t.Errorf("%d IDs, posted: %v; want %q", len(v.to), err, v.says)
		}
	}
	if _, err := s.PostMulticast(ctx, Message{}, []string{"a", ""}); !errors.Is(err, ErrBadID) || !strings.Contains(err.Error(), "to[1]") {
		t.Errorf("a post to a bad ID: %v", err)
	}
	if results, err := s.Multicast(ctx, Message{}, nil); len(results) != 0 || err != nil {
		t.Errorf("to nobody: %v, %v", results, err)
	}
	if results, err := s.Multicast(ctx, Message{}, []string{""}); !slices.Equal(words(results), []string{" bad_id"}) || err != nil {
		t.Errorf("to nobody that there could be: %v, %v", results, err)
	}
	if _, err := s.PostMulticast(ctx, Message{}, nil); err != nil {
		t.Errorf("posted to nobody: %v", err)
	}
	if st := s.Stats(); st.Sent != 0 || st.Posted != 0 || st.InFlight != 0 || st.InFlightBytes != 0 {
		t.Errorf("something was sent: %+v", st)
	}
	go s.Post(ctx, Message{To: "you"})
	c.expectSend() // and no multicast before it
	if err := s.Close(over); err == nil {
		t.Log("closed in time")
	}
	if _, err := s.Multicast(ctx, Message{}, manyIDs(1)); err != ErrClosed {
		t.Errorf("after Close: %v", err)
	}
}

// TestMulticastNotSupported: an older node announces no limit, or does not grant the feature.
func TestMulticastNotSupported(t *testing.T) {
	for what, greet := range map[string]func(*codec.Hello, *codec.Welcome) *codec.ErrorFrame{
		"no limit":   func(_ *codec.Hello, w *codec.Welcome) *codec.ErrorFrame { w.Limits.MaxMulticast = 0; return nil },
		"no feature": func(_ *codec.Hello, w *codec.Welcome) *codec.ErrorFrame { w.Features = 0; return nil },
	} {
		n := newFakeNode(t)
		n.greet = greet
		s, c := attachFake(t, n.start(), Config{})
		if c.hello.Features != codec.FeatureMulticast|codec.FeatureShortNotHere {
			t.Errorf("hello has features %#x", c.hello.Features)
		}
		if _, err := s.Multicast(testContext(t), Message{}, manyIDs(2)); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := s.PostMulticast(testContext(t), Message{}, manyIDs(2)); !errors.Is(err, ErrNotSupported) {
			t.Errorf("%s, posted: %v", what, err)
		}
	}
}

// TestMulticastCutFromNode: the connection dies after each byte of the outcomes. Those that came in
// whole frames count, the other copies are lost.
func TestMulticastCutFromNode(t *testing.T) {
	size := -1
	for cut := 0; size < 0 || cut <= size; cut++ {
		n := newFakeNode(t).start()
		s, c := attachFake(t, n, Config{})
		done := startMulticast(testContext(t), s, Message{From: "me"}, manyIDs(4))
		f := c.expectMulticast()
		var two []byte
		for i := range uint64(2) {
			two = codec.AppendOneOutcome(two, &codec.Outcome{Seq: f.Seq + 2*i, Code: codec.CodeAcked})
		}
		answers := codec.AppendOutcomes(nil, 2, two)
		first := len(answers)
		answers = codec.AppendOutcome(answers, &codec.Outcome{Seq: f.Seq + 1, Code: codec.CodeNoRoute})
		size = len(answers)
		c.put(answers[:cut])
		_ = c.Conn.(*net.TCPConn).CloseWrite() // no reset, which could overtake the answers
		got := receive(t, done, "the multicast")
		want := []string{"lost", "lost", "lost", "lost"}
		if cut >= first {
			want[0], want[2] = "acked", "acked"
		}
		if cut == size {
			want[1] = "no_route"
		}
		for i, w := range words(got.results) {
			if !strings.HasSuffix(w, want[i]) {
				t.Fatalf("cut after %d of %d bytes: %v", cut, size, words(got.results))
			}
		}
		if st := s.Stats(); got.err != nil || st.InFlight != 0 || st.InFlightBytes != 0 || st.LateOutcomes != 0 {
			t.Fatalf("cut after %d bytes: %v, %+v", cut, got.err, st)
		}
		n.ln.Close()
	}
}

// TestMulticastCutToNode: the kernel takes a part of the frames. Of the one it took bytes of, all
// copies are lost, of the other unreachable; the copies of a post that was not written are
// reported.
func TestMulticastCutToNode(t *testing.T) {
	n := newFakeNode(t).start()
	const ids = 3
	size := len(codec.AppendMulticast(nil, &codec.Multicast{Seq: seqMany, From: []byte("me"), TTL: 29_999}, manyIDs(ids)))
	for _, cut := range []int{0, 1, size - 1, size, size + 1, 2*size - 1} {
		failures := make(chan uint64, 2*ids)
		s, _, kernel := attachBroken(t, n, Config{OnPostFailed: func(id uint64, err *Error) {
			if !errors.Is(err, ErrUnreachable) {
				t.Error(err)
			}
			failures <- id
		}}, false)
		kernel.mu.Lock() // all shall be in the buffer before any is written
		first := startMulticast(testContext(t), s, Message{From: "me"}, manyIDs(ids))
		eventually(t, "the first frame", func() bool { return s.Stats().Sent == ids })
		second := startMulticast(testContext(t), s, Message{From: "me"}, manyIDs(ids))
		eventually(t, "the second frame", func() bool { return s.Stats().Sent == 2*ids })
		id, err := s.PostMulticast(testContext(t), Message{From: "me"}, manyIDs(ids))
		if err != nil {
			t.Fatal(err)
		}
		kernel.left = cut
		kernel.mu.Unlock()
		for i, done := range []<-chan multicast{first, second} {
			want := ErrUnreachable
			if cut > i*size {
				want = ErrLost
			}
			for _, r := range receive(t, done, "a multicast").results {
				if !errors.Is(r.Err, want) || !errors.Is(r.Err, errBroken) {
					t.Errorf("cut after %d of 2 × %d bytes: multicast %d: %v, want %v", cut, size, i, r.Err, want)
				}
			}
		}
		for i := range uint64(ids) {
			if got := receive(t, failures, "the report"); got != id+i {
				t.Errorf("post %d is reported, not %d", got, id+i)
			}
		}
	}
}

// TestMulticastWindow: each copy has a place in the window; more of them than it has go when it is
// empty, and nothing passes them.
func TestMulticastWindow(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{MaxInFlight: 4})
	ctx := testContext(t)
	before := startMulticast(ctx, s, Message{}, manyIDs(3))
	f := c.expectMulticast()
	large := startMulticast(ctx, s, Message{}, manyIDs(10))
	waitListed(&s.window, 1)
	sent := make(chan error, 1)
	go func() {
		_, err := s.Send(ctx, Message{To: "you"})
		sent <- err
	}()
	waitListed(&s.window, 2)
	hurried, cancel := context.WithCancel(ctx)
	third := startMulticast(hurried, s, Message{}, manyIDs(5))
	waitListed(&s.window, 3)
	cancel()
	if got := receive(t, third, "the cancelled multicast"); !errors.Is(got.err, ErrExpired) || !errors.Is(got.err, context.Canceled) || got.results != nil {
		t.Errorf("a multicast that did not get room: %v, %v", got.results, got.err)
	}
	for i := range uint64(3) {
		c.outcome(f.Seq+i, codec.CodeAcked)
	}
	receive(t, before, "the first multicast")
	f = c.expectMulticast()
	if used, _ := s.window.used(); used != 10 {
		t.Errorf("%d in flight", used)
	}
	for i := range uint64(6) {
		c.outcome(f.Seq+i, codec.CodeAcked)
	}
	eventually(t, "room", func() bool { used, _ := s.window.used(); return used == 4 })
	waitListed(&s.window, 1) // still
	c.outcome(f.Seq+6, codec.CodeAcked)
	c.outcome(c.expectSend().Seq, codec.CodeAcked)
	if err := receive(t, sent, "the send"); err != nil {
		t.Error(err)
	}
	c.outcomes(codec.Outcome{Seq: f.Seq + 7, Code: codec.CodeAcked}, codec.Outcome{Seq: f.Seq + 8, Code: codec.CodeAcked},
		codec.Outcome{Seq: f.Seq + 9, Code: codec.CodeAcked})
	if got := receive(t, large, "the large multicast"); got.err != nil || len(got.results) != 10 {
		t.Errorf("%+v", got)
	}
	if msgs, bytes := s.window.used(); msgs != 0 || bytes != 0 {
		t.Errorf("%d messages, %d bytes are in flight", msgs, bytes)
	}
}

// TestMulticastGivesUp: when the context ends, what is open ends timeout, and keeps its place until
// the node's outcome, or until the deadline is long over.
func TestMulticastGivesUp(t *testing.T) {
	long(t)
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	ctx, cancel := context.WithCancel(testContext(t))
	done := startMulticast(ctx, s, Message{TTL: 50 * time.Millisecond}, manyIDs(4))
	f := c.expectMulticast()
	c.outcome(f.Seq+1, codec.CodeAcked)
	eventually(t, "the outcome", func() bool { return s.Stats().InFlight == 3 })
	cancel()
	got := receive(t, done, "the multicast")
	for i, r := range got.results {
		if i == 1 && r.Err != nil || i != 1 && (!errors.Is(r.Err, ErrTimeout) || !errors.Is(r.Err, context.Canceled)) {
			t.Errorf("%s: %v", r.ID, r.Err)
		}
	}
	c.outcome(f.Seq, codec.CodeNoRoute)
	eventually(t, "the late outcome", func() bool { return s.Stats().LateOutcomes == 1 && s.Stats().InFlight == 2 })
	if got.results[0].Err == nil || !errors.Is(got.results[0].Err, ErrTimeout) {
		t.Error("a late outcome has changed the results")
	}
	eventually(t, "the end of what the node forgot", func() bool { return s.Stats().InFlight == 0 })

	done = startMulticast(testContext(t), s, Message{TTL: 50 * time.Millisecond}, manyIDs(2))
	c.expectMulticast()
	for _, r := range receive(t, done, "the multicast").results {
		if !errors.Is(r.Err, ErrTimeout) {
			t.Errorf("the node never answered: %v", r.Err)
		}
	}
}

// TestPostMulticast: the copies are numbered, and those that fail are reported, all of them even if
// they are more than may wait.
func TestPostMulticast(t *testing.T) {
	n := newFakeNode(t).start()
	failures := make(chan string, 100)
	s, c := attachFake(t, n, Config{QueueMessages: 1, OnPostFailed: func(id uint64, err *Error) {
		failures <- fmt.Sprint(id, " ", err.Code)
		if id == 3 {
			panic("on purpose")
		}
	}})
	if id, err := s.Post(testContext(t), Message{To: "you"}); id != 1 || err != nil {
		t.Fatal(id, err)
	}
	c.expectSend()
	id, err := s.PostMulticast(testContext(t), Message{}, manyIDs(3))
	if id != 2 || err != nil {
		t.Fatal(id, err)
	}
	f := c.expectMulticast()
	if f.Flags != codec.FlagReport {
		t.Errorf("flags %#x", f.Flags)
	}
	if used := s.Stats(); used.InFlight != 0 || used.Posted != 4 {
		t.Errorf("%+v", used)
	}
	c.outcomes(codec.Outcome{Seq: f.Seq, Code: codec.CodeNoRoute}, codec.Outcome{Seq: f.Seq + 1, Code: codec.CodeOverflow},
		codec.Outcome{Seq: f.Seq + 2, Code: codec.CodeExpired})
	for _, want := range []string{"2 no_route", "3 overflow", "4 expired"} {
		if got := receive(t, failures, want); got != want {
			t.Errorf("%s is reported, want %s", got, want)
		}
	}
	if id, err := s.Post(testContext(t), Message{To: "you"}); id != 5 || err != nil {
		t.Error(id, err)
	}
	if _, err := s.PostMulticast(testContext(t), Message{Payload: make([]byte, 600)}, manyIDs(1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a post over the whole credit: %v", err)
	}
}

// TestGroupsModel compares the table of multicasts with a map.
func TestGroupsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type copyOf struct{ g, i int }
		var tab calls
		open := make(map[uint64]copyOf)
		var groups []*group
		costs := make(map[int]int)
		check := func(t *rapid.T, seq uint64) {
			g, i, cost := tab.endCopy(seq)
			want, known := open[seq]
			if known != (g != nil) || known && (groups[want.g] != g || want.i != i) {
				t.Fatalf("%#x is copy %d of %v, want %+v, %v", seq, i, g, want, known)
			}
			if known {
				costs[want.g] -= cost
				delete(open, seq)
				if g.left == 0 && costs[want.g] != 0 {
					t.Fatalf("%d of the window are not given back", costs[want.g])
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				alive := make(map[int]bool)
				for _, v := range open {
					alive[v.g] = true
				}
				if tab.len() != len(alive) || len(tab.overdue(1<<62, nil)) != len(open) {
					t.Fatalf("%d multicasts with %v, want %d with %d", tab.len(), tab.overdue(1<<62, nil), len(alive), len(open))
				}
			},
			"add": func(t *rapid.T) {
				g := &group{open: make([]bool, rapid.IntRange(1, 5).Draw(t, "IDs"))}
				cost := rapid.IntRange(1, 100).Draw(t, "cost")
				seq := tab.addGroup(g, 0, cost)
				costs[len(groups)] = cost
				for i := range g.open {
					open[seq+uint64(i)] = copyOf{len(groups), i}
				}
				groups = append(groups, g)
			},
			"undone": func(t *rapid.T) {
				tab.addGroup(&group{open: make([]bool, rapid.IntRange(1, 5).Draw(t, "IDs"))}, 0, 1)
				tab.dropLast()
			},
			"end":    func(t *rapid.T) { check(t, seqMany|rapid.Uint64Range(0, tab.next+1).Draw(t, "seq")) },
			"forged": func(t *rapid.T) { check(t, seqMany|rapid.Uint64().Draw(t, "seq")) },
		})
	})
}

// TestMulticastCloses: Close waits for the outcomes of a multicast, and cuts it off when its time
// is over.
func TestMulticastCloses(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	done := startMulticast(testContext(t), s, Message{}, manyIDs(2))
	f := c.expectMulticast()
	closed := make(chan error, 1)
	go func() { closed <- s.Close(testContext(t)) }()
	<-s.life.Done()
	c.outcome(f.Seq, codec.CodeAcked)
	c.outcome(f.Seq+1, codec.CodeNoRoute)
	if got := receive(t, done, "the multicast"); !slices.Equal(words(got.results), []string{"to-00000 acked", "to-00001 no_route"}) {
		t.Errorf("%+v", got)
	}
	c.expect(codec.KindBye)
	c.Close()
	if err := receive(t, closed, "Close"); err != nil {
		t.Error(err)
	}

	s, c = attachFake(t, n, Config{})
	done = startMulticast(testContext(t), s, Message{}, manyIDs(2))
	c.expectMulticast()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Close(over); err == nil || !strings.Contains(err.Error(), "2 sends") {
		t.Errorf("Close cut off: %v", err)
	}
	if got := receive(t, done, "the multicast"); !slices.Equal(words(got.results), []string{"to-00000 lost", "to-00001 lost"}) {
		t.Errorf("%+v", got)
	}
}

// TestMulticastAsync: the callback comes once, with all outcomes, also when nothing could be sent;
// and it may panic.
func TestMulticastAsync(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	done := make(chan multicast, 10)
	call := func(m Message, to []string) {
		s.MulticastAsync(testContext(t), m, to, func(results []Result, err error) {
			done <- multicast{results, err}
			panic("on purpose")
		})
	}
	call(Message{}, []string{"a", "", "b"})
	f := c.expectMulticast()
	c.outcome(f.Seq, codec.CodeAcked)
	eventually(t, "the first outcome", func() bool { return s.Stats().InFlight == 1 })
	if len(done) > 0 {
		t.Error("called before all outcomes are known")
	}
	c.outcome(f.Seq+1, codec.CodeNoRoute)
	if got := receive(t, done, "the callback"); got.err != nil || !slices.Equal(words(got.results), []string{"a acked", " bad_id", "b no_route"}) {
		t.Errorf("%+v", got)
	}
	call(Message{}, []string{""})
	if got := receive(t, done, "the callback"); got.err != nil || !slices.Equal(words(got.results), []string{" bad_id"}) {
		t.Errorf("%+v", got)
	}
	for _, to := range []string{"", "x"} {
		call(Message{To: to}, manyIDs(21))
		if got := receive(t, done, "the callback"); got.err == nil || got.results != nil {
			t.Errorf("%+v", got)
		}
	}
	call(Message{}, manyIDs(2))
	c.expectMulticast()
	c.Close()
	if got := receive(t, done, "the callback"); got.err != nil || !slices.Equal(words(got.results), []string{"to-00000 lost", "to-00001 lost"}) {
		t.Errorf("%+v", got)
	}
	eventually(t, "all panics", func() bool { return s.Stats().Panics == 5 })
	if st := s.Stats(); st.InFlight != 0 || st.LateOutcomes != 0 {
		t.Errorf("%+v", st)
	}
}

// TestMulticastValue: the payload is encoded once, for all.
func TestMulticastValue(t *testing.T) {
	n := newFakeNode(t).start()
	s, c := attachFake(t, n, Config{})
	done := startMulticast(testContext(t), s, Message{Value: []int{1, 2}}, manyIDs(2))
	f := c.expectMulticast()
	var v []int
	if err := codec.DecodeValue(f.Payload, &v); err != nil || !slices.Equal(v, []int{1, 2}) {
		t.Errorf("%v, %v", v, err)
	}
	c.outcomes(codec.Outcome{Seq: f.Seq, Code: codec.CodeAcked, Reply: []byte{3}}, codec.Outcome{Seq: f.Seq + 1, Code: codec.CodeAcked})
	var reply int
	if got := receive(t, done, "the multicast"); got.results[0].Reply.Decode(&reply) != nil || reply != 3 {
		t.Errorf("%+v", got)
	}
}
