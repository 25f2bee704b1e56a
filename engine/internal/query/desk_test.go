package query

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// wires carries frames between desks, as links do.
type wires struct {
	t     *testing.T
	peers []Peer
	sent  func(link routing.Handle, frame []byte) error
}

func (w *wires) Peers() []Peer { return w.peers }

func (w *wires) Send(ctx context.Context, link routing.Handle, frames []byte) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return w.sent(link, frames)
}

// nodeFunc answers as a function does.
type nodeFunc func(ctx context.Context, q Question, add func(any) error) error

func (f nodeFunc) Answer(ctx context.Context, q Question, add func(any) error) error {
	return f(ctx, q, add)
}

var link = routing.Handle{Slot: 7}

// pair makes a desk that is alone with another, whose node answers as f does.
func pair(t *testing.T, f nodeFunc) *Desk {
	other := &wires{t: t}
	there := New("b", f, other)
	mine := &wires{t: t, peers: []Peer{{Node: "b", Link: link}, {Node: "c", Why: WhyOld}}}
	here := New("a", nodeFunc(func(context.Context, Question, func(any) error) error { return nil }), mine)
	mine.sent = func(_ routing.Handle, b []byte) error {
		var q codec.Query
		if err := codec.DecodeQuery(b[codec.PrefixLen:], &q); err != nil {
			t.Error(err)
		}
		if refusal := there.HeardQuery(link, &q); len(refusal) > 0 {
			return other.sent(link, refusal)
		}
		return nil
	}
	other.sent = func(_ routing.Handle, b []byte) error {
		var p codec.QueryPart
		if err := codec.DecodeQueryPart(b[codec.PrefixLen:], &p); err != nil {
			t.Error(err)
		}
		here.HeardPart(link, &p)
		return nil
	}
	t.Cleanup(here.Close)
	t.Cleanup(there.Close)
	return here
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// An answer crosses a link in parts, whatever its items are.
func TestParts(t *testing.T) {
	for _, items := range [][]int{nil, {0}, {1, 2, 3}, {partSize - 3}, {3 * partSize}, {partSize, partSize, 5}} {
		here := pair(t, func(_ context.Context, q Question, add func(any) error) error {
			if q.Verb != "v" || string(q.Args) != "{}" {
				t.Errorf("%+v", q)
			}
			for _, n := range items {
				if err := add(strings.Repeat("x", n)); err != nil {
					return err
				}
			}
			return nil
		})
		r := here.Ask(limited(t), Question{"v", []byte("{}")}, "b")[0]
		if r.Why != "" || len(r.Items) != len(items) {
			t.Fatalf("%v: %d items, %q", items, len(r.Items), r.Why)
		}
		for i, n := range items {
			if len(r.Items[i]) != n+2 {
				t.Errorf("%v: item %d has %d bytes", items, i, len(r.Items[i]))
			}
		}
	}
}

// Each node that should answer and does not is named, with the reason.
func TestWhy(t *testing.T) {
	q := Question{Verb: "v"}
	here := pair(t, func(context.Context, Question, func(any) error) error { return errors.New("not today") })
	all := here.Ask(limited(t), q)
	if len(all) != 3 || all[0].Node != "a" || all[0].Why != "" || all[1].Why != "not today" || all[2].Why != WhyOld {
		t.Errorf("%+v", all)
	}
	if r := here.Ask(limited(t), q, "nobody")[0]; r.Why == "" {
		t.Errorf("%+v", r)
	}
	if r := here.Ask(limited(t), Question{Verb: "v", Args: make([]byte, MaxArgs+1)}, "b")[0]; r.Why == "" {
		t.Errorf("%+v", r)
	}
	here = pair(t, func(_ context.Context, _ Question, add func(any) error) error {
		for {
			if err := add(strings.Repeat("x", 1<<20)); err != nil {
				return err
			}
		}
	})
	if r := here.Ask(limited(t), q, "b")[0]; r.Why != whyLong {
		t.Errorf("%q", r.Why)
	}
	here = pair(t, func(ctx context.Context, _ Question, _ func(any) error) error {
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if r := here.Ask(ctx, q, "b")[0]; r.Why != whyLate {
		t.Errorf("%q", r.Why)
	}
}

// A node answers few questions at once. One that asks too many hears so, and the others do not
// wait.
func TestBusy(t *testing.T) {
	release, began := make(chan struct{}), make(chan struct{}, maxServed)
	here := pair(t, func(context.Context, Question, func(any) error) error {
		began <- struct{}{}
		<-release
		return nil
	})
	replies := make(chan Reply, maxServedOf)
	for range maxServedOf {
		go func() { replies <- here.Ask(limited(t), Question{Verb: "v"}, "b")[0] }()
	}
	for range maxServedOf {
		<-began
	}
	if r := here.Ask(limited(t), Question{Verb: "v"}, "b")[0]; r.Why != whyBusy {
		t.Errorf("%q", r.Why)
	}
	close(release)
	for range maxServedOf {
		if r := <-replies; r.Why != "" {
			t.Errorf("%q", r.Why)
		}
	}
}

// Only the node that was asked can answer, and the end of its link ends the question.
func TestWhoAnswers(t *testing.T) {
	asked := make(chan uint64, 1)
	w := &wires{t: t, peers: []Peer{{Node: "b", Link: link}}}
	w.sent = func(_ routing.Handle, b []byte) error {
		var q codec.Query
		if err := codec.DecodeQuery(b[codec.PrefixLen:], &q); err != nil {
			t.Error(err)
		}
		asked <- q.Number
		return nil
	}
	d := New("a", nil, w)
	defer d.Close()
	replies := make(chan Reply, 1)
	go func() { replies <- d.Ask(limited(t), Question{Verb: "v"}, "b")[0] }()
	number := <-asked
	other := routing.Handle{Slot: 8}
	d.HeardPart(other, &codec.QueryPart{Number: number, Flags: codec.QueryLast})
	d.HeardPart(link, &codec.QueryPart{Number: number + 1, Flags: codec.QueryLast})
	d.LinkClosed(other)
	d.HeardPart(link, &codec.QueryPart{Number: number, Items: []byte("1\n")})
	d.LinkClosed(link)
	if r := <-replies; r.Why != whyClosed || len(r.Items) != 0 {
		t.Errorf("%+v", r)
	}
	d.HeardPart(link, &codec.QueryPart{Number: number, Flags: codec.QueryLast}) // nobody waits
}

// FuzzAnswer: whatever another node answers, it is items or a reason.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte("{}\n{\"a\":1}\n"))
	f.Add([]byte("1"))
	f.Add([]byte("\n"))
	f.Add([]byte("{\"a\":\n1}"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		items, why := split(answer)
		if why != "" && len(items) > 0 {
			t.Fatalf("%d items and %q", len(items), why)
		}
		var again bytes.Buffer
		for _, item := range items {
			fmt.Fprintf(&again, "%s\n", item)
		}
		if why == "" && len(answer) > 0 && !bytes.Equal(bytes.TrimSuffix(again.Bytes(), []byte("\n")), bytes.TrimSuffix(answer, []byte("\n"))) {
			t.Fatalf("%q became %q", answer, again.Bytes())
		}
	})
}
