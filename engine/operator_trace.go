package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/routing"
)

// traceArgs are the arguments of a dry run.
type traceArgs struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// arriveArgs are those of its part on the receiver's node. They are what a forward names.
type arriveArgs struct {
	From    string `json:"from"`
	To      string `json:"to"`
	Session string `json:"session"`
	Epoch   uint64 `json:"epoch"`
}

// The steps of a dry run.
const (
	stepSender     = "sender"
	stepLookup     = "lookup"
	stepRegistry   = "registry"
	stepLink       = "link"
	stepReceiver   = "receiver"
	stepQueue      = "queue"
	stepConnection = "connection"
)

// Trace is a dry run of a message with ack: it goes the way of the message, from the node of the
// sender to the connection of the receiver, and asks that connection for a pong. The application of
// the receiver hears nothing, and no hook is asked. As a message would, the dry run fills the
// caches of nodes, and corrects them. If from is empty, it begins at this node.
func (o *Operator) Trace(ctx context.Context, from, to string) (TraceInfo, error) {
	e := o.eng
	t := TraceInfo{From: from, To: to, Hops: []TraceHop{}, Missing: []MissingNode{}}
	ids := []string{to}
	if from != "" {
		ids = append(ids, from)
	}
	if err := checkIDs(ids); err != nil {
		return t, err
	}
	if !e.running.Load() {
		return t, errNotRunning
	}
	ctx, cancel := inTime(ctx)
	defer cancel()
	began := time.Now()
	run := tracing{eng: e, ctx: ctx, began: began}
	node := e.cfg.NodeID
	if from != "" {
		node = run.findSender(from)
	}
	hops, err := askAll[TraceHop](ctx, e, askTrace, traceArgs{from, to}, node)
	if err != nil {
		return t, err
	}
	run.adopt(hops.Answers, time.Since(began)-spanOf(hops.Answers))
	t.Hops, t.Missing, t.TotalSeconds = run.hops, hops.Missing, time.Since(began).Seconds()
	t.Code = codec.CodeTimeout.String()
	if n := len(t.Hops); n > 0 && len(t.Missing) == 0 {
		t.Code = t.Hops[n-1].Code
	}
	return t, nil
}

// spanOf returns how long hops took that one node has measured.
func spanOf(hops []TraceHop) time.Duration {
	if len(hops) == 0 {
		return 0
	}
	last := &hops[len(hops)-1]
	return time.Duration((last.AtSeconds + last.TookSeconds) * float64(time.Second))
}

// findSender returns the node that a message of an ID would begin at: this one, unless the registry
// says that the sender is attached elsewhere.
func (t *tracing) findSender(from string) (node string) {
	e, began := t.eng, time.Now()
	held, err := directory.NewInquiry(e.dir).Holdings(t.ctx, []string{from})
	switch {
	case err != nil || held[0].Found.Unknown:
		t.hop(stepSender, began, "the registry does not say who holds the sender's ID; the trace begins at this node")
	case held[0].Found.Binding == routing.Binding{}:
		t.hop(stepSender, began, "nobody holds the sender's ID, so a message from it would be refused; the trace begins at this node")
	default:
		at := held[0].At.Nodes
		here := slices.ContainsFunc(at, func(p routing.Presence) bool { return p.Node == e.cfg.NodeID })
		if !here && len(at) > 0 {
			return at[0].Node
		}
	}
	return e.cfg.NodeID
}

// tracing is a dry run, or the part of it on one node. One goroutine owns it.
type tracing struct {
	eng      *Engine
	ctx      context.Context
	began    time.Time
	from, to string
	hops     []TraceHop
}

// hop notes a step that ends now.
func (t *tracing) hop(step string, began time.Time, format string, args ...any) *TraceHop {
	t.hops = append(t.hops, TraceHop{
		Node: t.eng.cfg.NodeID, Step: step, Decision: fmt.Sprintf(format, args...),
		AtSeconds: began.Sub(t.began).Seconds(), TookSeconds: time.Since(began).Seconds(),
	})
	return &t.hops[len(t.hops)-1]
}

// end is hop for the last step of a message, which ends with that code.
func (t *tracing) end(code codec.Code, step string, began time.Time, format string, args ...any) {
	t.hop(step, began, format, args...).Code = code.String()
}

// adopt takes hops that another node has measured. Its clock began when ours was at.
func (t *tracing) adopt(hops []TraceHop, at time.Duration) {
	for _, h := range hops {
		h.AtSeconds += max(0, at).Seconds()
		t.hops = append(t.hops, h)
	}
}

// trace answers a dry run at the node of the sender.
func (a respondent) trace(ctx context.Context, args traceArgs) ([]TraceHop, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	if err := checkIDs([]string{args.To}); err != nil {
		return nil, err
	}
	t := &tracing{eng: a.eng, ctx: ctx, began: time.Now(), from: args.From, to: args.To}
	if t.sender() {
		t.lookup()
	}
	return t.hops, nil
}

// arrive answers a dry run that has come over a link, as handleForward does for a message.
func (a respondent) arrive(ctx context.Context, args arriveArgs) ([]TraceHop, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	id, err := routing.ParseSessionID(args.Session)
	if err != nil {
		return nil, err
	}
	t := &tracing{eng: a.eng, ctx: ctx, began: time.Now(), from: args.From, to: args.To}
	began := time.Now()
	var s *routing.Session
	var h routing.Handle
	var back codec.Kind
	if !t.onLoop(0, func(l *loop) { s, h, back = l.links.receiver([]byte(args.To), id, args.Epoch) }) {
		return nil, unanswered(ctx)
	}
	if s == nil {
		t.hop(stepReceiver, began, "the message comes back: %s", backText(back)).Returned = back.String()
		return t.hops, nil
	}
	t.hop(stepReceiver, began, "the session is attached here, on event loop %d", h.Loop)
	t.connection(h)
	return t.hops, nil
}

func backText(back codec.Kind) string {
	if back == codec.KindNotMine {
		return "its session does not hold the ID under that epoch any more"
	}
	return "its session is not attached to this node"
}

// onLoop calls f on a loop and waits for it. It returns false if ctx or the engine ends first. Then
// the loop may still call f.
func (t *tracing) onLoop(which uint16, f func(*loop)) bool {
	done := make(chan struct{})
	l := t.eng.loops[which]
	l.post(func() { f(l); close(done) })
	select {
	case <-done:
		return true
	case <-t.ctx.Done():
	case <-t.eng.ctx.Done():
	}
	return false
}
