package engine

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"distmsg/engine/internal/query"
	"distmsg/routing"
)

// respondent answers the questions of operators about this node. Any goroutine may use it. It looks
// at connections only on their loops, in steps (see survey).
type respondent struct{ eng *Engine }

var _ query.Node = respondent{}

// Answer answers one question.
func (a respondent) Answer(ctx context.Context, q query.Question, add func(item any) error) error {
	switch q.Verb {
	case askNodes:
		return a.node(ctx, add)
	case askSessions:
		return answer(ctx, q, add, a.sessions)
	case askConns:
		return answer(ctx, q, add, a.conns)
	case askLinks:
		return a.links(ctx, add)
	case askHistory:
		return answer(ctx, q, add, a.samples)
	case askIDs:
		return answer(ctx, q, add, a.ids)
	case askBelieves:
		return answer(ctx, q, add, a.believes)
	case askTrace:
		return answer(ctx, q, add, a.trace)
	case askArrive:
		return answer(ctx, q, add, a.arrive)
	case orderDrain, orderUndrain, orderRebalance:
		return answer(ctx, q, add, func(ctx context.Context, args rebalanceArgs) ([]obeyed, error) {
			return a.obey(ctx, q.Verb, args)
		})
	case askLogLevel:
		return answer(ctx, q, add, a.logLevels)
	case orderLogLevel:
		return answer(ctx, q, add, a.setLogLevels)
	}
	return fmt.Errorf("the node does not know the question %.40q: it may be too old", q.Verb)
}

// answer reads the arguments of a question, and adds the items that f returns.
func answer[Args, Item any](ctx context.Context, q query.Question, add func(any) error, f func(context.Context, Args) ([]Item, error)) error {
	var args Args
	if err := json.Unmarshal(q.Args, &args); err != nil {
		return errors.New("the arguments of the question are not valid")
	}
	items, err := f(ctx, args)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := add(item); err != nil {
			return err
		}
	}
	return nil
}

var errNotReady = errors.New("the node is starting")

// ready returns an error if the loops do not run yet.
func (a respondent) ready() error {
	select {
	case <-a.eng.ready:
		return nil
	default:
		return errNotReady
	}
}

// unanswered is the error of a question that the loops have not answered in time.
func unanswered(ctx context.Context) error {
	if err := contextError(ctx); err != nil {
		return err
	}
	return ErrStopped
}

// conns returns some connections of clients.
func (a respondent) conns(ctx context.Context, args limitArgs) ([]ConnInfo, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	limit := answers(args.Limit)
	found := make([][]ConnInfo, len(a.eng.loops))
	s := survey{ctx, a.eng, func(c *conn) {
		if mine := &found[c.loop.idx]; c.kind != linkConn && len(*mine) < limit {
			*mine = append(*mine, connInfo(c))
		}
	}}
	if !s.everywhere() {
		return nil, unanswered(ctx)
	}
	all := slices.Concat(found...)
	return all[:min(limit, len(all))], nil
}

// connInfo describes an open connection of a client, on its loop.
func connInfo(c *conn) ConnInfo {
	h := c.handle()
	i := ConnInfo{
		Conn: fmt.Sprintf("%d.%d.%d", h.Loop, h.Slot, h.Gen), Node: c.loop.eng.cfg.NodeID, Loop: int(h.Loop),
		Session: c.session.ID().String(), Identity: c.session.Identity(),
		QueuedBytes: c.out.queued(), Pending: c.sender.inFlight.Used(),
		SilentSeconds: seconds(c.live.silentFor()), AgeSeconds: seconds(c.loop.now - c.opened),
		State: "open",
	}
	if c.remote != nil && c.kind == clientConn {
		i.Remote = c.remote.String()
	}
	if state := c.security(); state != nil {
		i.TLS = tls.VersionName(state.Version)
	}
	switch c.standing {
	case hasLeft:
		i.State = "left"
	case steppedBack:
		i.State = "doubted"
	case inSession:
	}
	return i
}

// seconds turns milliseconds into seconds.
func seconds(ms int64) float64 { return float64(ms) / 1e3 }

// sessions returns the sessions that a query selects.
func (a respondent) sessions(ctx context.Context, q SessionQuery) ([]SessionInfo, error) {
	if err := a.ready(); err != nil {
		return nil, err
	}
	if q.Slowest > 0 {
		slowest, err := a.slowest(ctx, &q)
		if err != nil {
			return nil, err
		}
		return a.describe(ctx, slowest)
	}
	all := a.eng.table.Sessions()
	if q.Identity != "" {
		all = slices.DeleteFunc(all, func(s *routing.Session) bool { return s.Identity() != q.Identity })
	}
	slices.SortFunc(all, func(s, t *routing.Session) int {
		return cmp.Or(strings.Compare(s.Identity(), t.Identity()), cmp.Compare(s.Short(), t.Short()))
	})
	return a.describe(ctx, all[:min(len(all), answers(q.Limit))])
}

// describe describes sessions, in their order.
func (a respondent) describe(ctx context.Context, chosen []*routing.Session) ([]SessionInfo, error) {
	var handles []routing.Handle
	for _, s := range chosen {
		handles = append(handles, s.Handles()...)
	}
	found := make([][]ConnInfo, len(a.eng.loops))
	s := survey{ctx, a.eng, func(c *conn) { found[c.loop.idx] = append(found[c.loop.idx], connInfo(c)) }}
	if !s.some(handles) {
		return nil, unanswered(ctx)
	}
	conns := make(map[string][]ConnInfo)
	for _, c := range slices.Concat(found...) {
		conns[c.Session] = append(conns[c.Session], c)
	}
	all := make([]SessionInfo, 0, len(chosen))
	for _, s := range chosen {
		all = append(all, a.session(s, conns[s.ID().String()]))
	}
	return all, nil
}

// session describes a session with its connections.
func (a respondent) session(s *routing.Session, conns []ConnInfo) SessionInfo {
	i := SessionInfo{
		Session: s.ID().String(), Identity: s.Identity(), Node: a.eng.cfg.NodeID, Attached: len(conns) > 0,
		Conns: len(conns), Remotes: make([]string, 0, len(conns)), IDs: s.Len(), SilentSeconds: math.MaxFloat64,
	}
	for _, c := range conns {
		i.Remotes = append(i.Remotes, c.Remote)
		i.QueuedBytes += c.QueuedBytes
		i.Pending += c.Pending
		i.SilentSeconds = min(i.SilentSeconds, c.SilentSeconds)
		i.AgeSeconds = max(i.AgeSeconds, c.AgeSeconds)
		i.TLS = cmp.Or(i.TLS, c.TLS)
	}
	if len(conns) == 0 {
		i.SilentSeconds = 0
	}
	return i
}

// slow is a connection that is among the slowest so far.
type slow struct {
	session *routing.Session
	queued  int
	silent  int64
}

func (s *slow) compare(t *slow) int {
	return cmp.Or(cmp.Compare(s.queued, t.queued), cmp.Compare(s.silent, t.silent))
}

// slowHeap has the least slow one first.
type slowHeap []slow

func (h slowHeap) Len() int           { return len(h) }
func (h slowHeap) Less(i, j int) bool { return h[i].compare(&h[j]) < 0 }
func (h slowHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *slowHeap) Push(x any)        { *h = append(*h, x.(slow)) }
func (h *slowHeap) Pop() any {
	last := len(*h) - 1
	v := (*h)[last]
	*h = (*h)[:last]
	return v
}

// consider keeps a connection if it is among the slowest.
func (h *slowHeap) consider(v slow, most int) {
	switch {
	case len(*h) < most:
		heap.Push(h, v)
	case v.compare(&(*h)[0]) > 0:
		(*h)[0] = v
		heap.Fix(h, 0)
	}
}

// slowest returns the slowest sessions, the slowest first. Each loop remembers only as many
// connections as are asked for.
func (a respondent) slowest(ctx context.Context, q *SessionQuery) ([]*routing.Session, error) {
	most := answers(q.Slowest)
	found := make([]slowHeap, len(a.eng.loops))
	s := survey{ctx, a.eng, func(c *conn) {
		if c.kind == linkConn || q.Identity != "" && c.session.Identity() != q.Identity {
			return
		}
		found[c.loop.idx].consider(slow{c.session, c.out.queued(), c.live.silentFor()}, most)
	}}
	if !s.everywhere() {
		return nil, unanswered(ctx)
	}
	all := slices.Concat(found...)
	slices.SortFunc(all, func(s, t slow) int { return t.compare(&s) })
	var sessions []*routing.Session
	seen := make(map[*routing.Session]bool)
	for _, v := range all {
		if !seen[v.session] && len(sessions) < most {
			seen[v.session] = true
			sessions = append(sessions, v.session)
		}
	}
	return sessions, nil
}

// ids returns some IDs of a session.
func (a respondent) ids(_ context.Context, args idsArgs) ([]IDInfo, error) {
	id, err := routing.ParseSessionID(args.Session)
	if err != nil {
		return nil, err
	}
	s := a.eng.table.Session(id)
	if s == nil {
		return nil, nil
	}
	var all []IDInfo
	for _, b := range s.NewestBound(nil, answers(args.Limit)) {
		all = append(all, IDInfo{ID: b.ID, Session: args.Session, Node: a.eng.cfg.NodeID, Epoch: b.Epoch})
	}
	return all, nil
}
