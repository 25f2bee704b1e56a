package engine

import (
	"context"
	"encoding/json"
	"errors"

	"distmsg/engine/internal/query"
)

// Operator is what an operator may ask of a node and of its cluster, and order. Any goroutine may
// call its methods. Each returns at the latest when its context ends. If the context has no
// deadline, a question ends after two seconds.
//
// A question goes to all nodes. Nodes that do not answer are in Asked.Missing, and the error is
// only for a question that could not be asked at all.
type Operator struct{ eng *Engine }

// Operator returns what an operator may ask and order.
func (e *Engine) Operator() *Operator { return &Operator{e} }

// The verbs of questions. Nodes of other versions know them: append only.
const (
	askNodes    = "nodes"
	askSessions = "sessions"
	askConns    = "conns"
	askLinks    = "links"
	askIDs      = "ids"
	askBelieves = "believes"
	askTrace    = "trace"
	askArrive   = "arrive"
	askHistory  = "history"

	orderDrain     = "drain"
	orderUndrain   = "undrain"
	orderRebalance = "rebalance"

	askLogLevel   = "log_level"
	orderLogLevel = "set_log_level"
)

// limitArgs are the arguments of a question whose answer is bounded.
type limitArgs struct {
	Limit int `json:"limit"`
}

// idsArgs are the arguments of a question for the IDs of a session.
type idsArgs struct {
	Session string `json:"session"`
	Limit   int    `json:"limit"`
}

// believesArgs are the arguments of a question for what a node knows of IDs.
type believesArgs struct {
	IDs []string `json:"ids"`
}

// Bounds of one node's answer.
const (
	defaultAnswers = 100
	mostAnswers    = 10_000
)

// answers returns how many items an answer may have.
func answers(limit int) int {
	if limit <= 0 {
		return defaultAnswers
	}
	return min(limit, mostAnswers)
}

// Nodes asks all nodes about themselves.
func (o *Operator) Nodes(ctx context.Context) (Asked[NodeInfo], error) {
	return askAll[NodeInfo](ctx, o.eng, askNodes, struct{}{})
}

// Sessions asks all nodes for sessions.
func (o *Operator) Sessions(ctx context.Context, q SessionQuery) (Asked[SessionInfo], error) {
	return askAll[SessionInfo](ctx, o.eng, askSessions, q)
}

// Conns asks all nodes for the open connections of clients, up to limit of each node. The default
// is 100, and the most 10,000.
func (o *Operator) Conns(ctx context.Context, limit int) (Asked[ConnInfo], error) {
	return askAll[ConnInfo](ctx, o.eng, askConns, limitArgs{limit})
}

// Links asks all nodes about their links to the others.
func (o *Operator) Links(ctx context.Context) (Asked[LinkInfo], error) {
	return askAll[LinkInfo](ctx, o.eng, askLinks, struct{}{})
}

// IDs asks all nodes for the IDs that a session has bound, up to limit of each node, newest first.
// The default is 100, and the most 10,000. The session is named as in SessionInfo.
func (o *Operator) IDs(ctx context.Context, session string, limit int) (Asked[IDInfo], error) {
	return askAll[IDInfo](ctx, o.eng, askIDs, idsArgs{session, limit})
}

// History asks all nodes what they did in the last ten minutes: up to limit samples of each node,
// the oldest of them first. The default is all.
func (o *Operator) History(ctx context.Context, limit int) (Asked[HistorySample], error) {
	return askAll[HistorySample](ctx, o.eng, askHistory, limitArgs{limit})
}

// errNotRunning is the error of a question before Run or after it.
var errNotRunning = errors.New("engine: the node does not run")

// askAll asks nodes, or all of them if none is named.
func askAll[T any](ctx context.Context, e *Engine, verb string, args any, nodes ...string) (all Asked[T], err error) {
	all = Asked[T]{Answers: []T{}, Missing: []MissingNode{}}
	if !e.running.Load() {
		return all, errNotRunning
	}
	b, err := json.Marshal(args)
	if err != nil {
		return all, err
	}
	for _, r := range e.desk.Ask(ctx, query.Question{Verb: verb, Args: b}, nodes...) {
		if r.Why == "" {
			r.Why = take(&all, r.Items)
		}
		if r.Why != "" {
			all.Missing = append(all.Missing, MissingNode{r.Node, r.Why})
		}
	}
	return all, nil
}

// take adds the items of one node's answer. It returns why they are not an answer.
func take[T any](all *Asked[T], items []json.RawMessage) (why string) {
	before := len(all.Answers)
	for _, item := range items {
		var v T
		if err := json.Unmarshal(item, &v); err != nil {
			all.Answers = all.Answers[:before]
			return "the answer is not valid"
		}
		all.Answers = append(all.Answers, v)
	}
	return ""
}
