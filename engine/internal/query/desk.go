package query

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// Question is what a node is asked.
type Question struct {
	Verb string
	Args []byte // JSON
}

// Node answers for this node.
type Node interface {
	// Answer calls add with each item of the answer. It returns at the latest when ctx ends. If add
	// returns an error, it returns that. Any goroutine may call it.
	Answer(ctx context.Context, q Question, add func(item any) error) error
}

// Links reaches the other nodes. Any goroutine calls the methods.
type Links interface {
	// Peers returns the other nodes that an answer is expected from.
	Peers() []Peer
	// Send queues frames for a link, when there is room. It returns an error if the link has
	// closed, or if ctx ends first.
	Send(ctx context.Context, link routing.Handle, frames []byte) error
}

// Peer is another node.
type Peer struct {
	Node string
	Link routing.Handle // if Why is empty
	Why  string         // why the node cannot be asked; "" if it can
}

// Reply is what came of a question to one node.
type Reply struct {
	Node  string
	Items []json.RawMessage
	Why   string // why there is no answer; "" if there is one
}

const (
	// MaxArgs bounds the bytes of a question's arguments.
	MaxArgs = 32 << 10
	// partSize is how many bytes of an answer go into a frame.
	partSize = 16 << 10
	// maxAnswer bounds the bytes of an answer.
	maxAnswer = 4 << 20
	// AskTime is how long a node waits for answers if the context of the question has no deadline.
	AskTime = 2 * time.Second
	// longestAsk bounds the time that a node gives to a question of another node.
	longestAsk = time.Minute
	// maxServed bounds the questions of other nodes that this node answers at once. maxServedOf
	// bounds those of one of them.
	maxServed, maxServedOf = 32, 8
)

// Why there is no answer.
const (
	whyLate   = "no answer within the deadline"
	whyClosed = "the link closed before the answer was complete"
	whyBusy   = "the node already answers as many questions as it may: ask again later"
	whyLong   = "the answer is too long: ask for less"
	// WhyOld is for nodes that do not know the frames.
	WhyOld = "the node is too old to be asked"
	// WhyNoLink is for nodes that this one has no link to.
	WhyNoLink = "there is no link to the node"
)

var errLong = errors.New(whyLong)

// Desk asks and answers for one node. It lives as long as the node, and any goroutine may use it.
type Desk struct {
	// static
	name   string
	node   Node
	links  Links           // nil if there are no other nodes
	ctx    context.Context // ends when the desk is closed
	cancel context.CancelFunc

	running sync.WaitGroup // answers to other nodes

	mu     sync.Mutex
	closed bool                   // guarded by mu
	next   uint64                 // guarded by mu; the number of the next inquiry
	open   map[uint64]*inquiry    // guarded by mu; by number
	served map[routing.Handle]int // guarded by mu; questions under way, by link
	all    int                    // guarded by mu; the sum of served
}

// inquiry is a question that one other node has been asked.
type inquiry struct {
	link routing.Handle // static
	done chan string    // static; of capacity 1: why there is no answer, or ""

	answer []byte // guarded by Desk.mu
}

// New makes the desk of a node. Links is nil if there are no other nodes.
func New(name string, node Node, links Links) *Desk {
	d := &Desk{name: name, node: node, links: links, open: make(map[uint64]*inquiry), served: make(map[routing.Handle]int)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Close ends all questions, and waits until nobody answers any more.
func (d *Desk) Close() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.running.Wait()
}

// Ask asks nodes, this one among them. If it names none, it asks all. It returns one reply for each
// node, this node's first, at the latest when ctx ends or after AskTime.
func (d *Desk) Ask(ctx context.Context, q Question, nodes ...string) []Reply {
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, AskTime)
		defer cancel()
	}
	asks := d.addressees(nodes)
	replies := make([]Reply, len(asks))
	var asking sync.WaitGroup
	for i, p := range asks {
		asking.Go(func() { replies[i] = d.askOne(ctx, q, p) })
	}
	asking.Wait()
	return replies
}

// addressees returns the nodes to ask.
func (d *Desk) addressees(nodes []string) (asks []Peer) {
	all := []Peer{{Node: d.name}}
	if d.links != nil {
		all = append(all, d.links.Peers()...)
	}
	if len(nodes) == 0 {
		return all
	}
	for _, name := range nodes {
		found := Peer{Node: name, Why: "no node of this name is known"}
		for _, p := range all {
			if p.Node == name {
				found = p
			}
		}
		asks = append(asks, found)
	}
	return asks
}

func (d *Desk) askOne(ctx context.Context, q Question, p Peer) Reply {
	r := Reply{Node: p.Node, Why: p.Why}
	if r.Why != "" {
		return r
	}
	var answer []byte
	if p.Node == d.name {
		answer, r.Why = d.askHere(ctx, q)
	} else {
		answer, r.Why = d.askThere(ctx, q, p.Link)
	}
	if r.Why == "" {
		r.Items, r.Why = split(answer)
	}
	return r
}

// askHere asks this node. A node whose loops do not run cannot answer, like any other.
func (d *Desk) askHere(ctx context.Context, q Question) (answer []byte, why string) {
	var b bytes.Buffer
	err := d.node.Answer(ctx, q, func(item any) error { return appendItem(&b, item) })
	if err != nil {
		return nil, reason(ctx, err)
	}
	return b.Bytes(), ""
}

// reason says why there is no answer.
func reason(ctx context.Context, err error) string {
	if ctx.Err() != nil {
		return whyLate
	}
	return err.Error()
}

// askThere asks the node at the other end of a link.
func (d *Desk) askThere(ctx context.Context, q Question, link routing.Handle) (answer []byte, why string) {
	if len(q.Args) > MaxArgs {
		return nil, fmt.Sprintf("the question has %d bytes, and may have %d: ask for less", len(q.Args), MaxArgs)
	}
	in := &inquiry{link: link, done: make(chan string, 1)}
	d.mu.Lock()
	d.next++
	number := d.next
	d.open[number] = in
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		delete(d.open, number)
		d.mu.Unlock()
	}()
	deadline, _ := ctx.Deadline()
	within := max(time.Until(deadline), time.Millisecond)
	frame := codec.AppendQuery(nil, &codec.Query{Number: number, Within: uint64(within.Milliseconds()), Verb: []byte(q.Verb), Args: q.Args})
	if err := d.links.Send(ctx, link, frame); err != nil {
		return nil, reason(ctx, err)
	}
	select {
	case why = <-in.done:
		return in.answer, why // nobody appends to it any more
	case <-ctx.Done():
		return nil, whyLate
	case <-d.ctx.Done():
		return nil, "this node is stopping"
	}
}

// HeardPart takes a part of an answer that has come over a link. It may be called on a loop. A part
// that nobody waits for is ignored.
func (d *Desk) HeardPart(link routing.Handle, f *codec.QueryPart) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.open[f.Number]
	if in == nil || in.link != link {
		return
	}
	why := string(f.Why)
	switch {
	case len(in.answer)+len(f.Items) > maxAnswer:
		why = whyLong
	case f.Flags&codec.QueryLast == 0:
		in.answer = append(in.answer, f.Items...)
		return
	default:
		in.answer = append(in.answer, f.Items...)
	}
	delete(d.open, f.Number)
	in.done <- why
}

// LinkClosed ends the questions to the node at the other end of a link. It may be called on a loop.
func (d *Desk) LinkClosed(link routing.Handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for number, in := range d.open {
		if in.link == link {
			delete(d.open, number)
			in.done <- whyClosed
		}
	}
}
