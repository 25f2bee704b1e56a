package admin

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"time"

	"distmsg/engine"
	"distmsg/internal/asynclog"
	"distmsg/internal/dashboard"
)

const (
	apiPrefix = "/api/v1/"

	// How long an answer may take, if the question does not say, and at most. The server closes
	// connections whose answers take longer than writeTimeout.
	defaultTimeout = 3 * time.Second
	maxTimeout     = 8 * time.Second

	maxBody      = 64 << 10 // bytes of a request
	maxQuestions = 8        // that are answered at a time, and as many changes
	maxStreams   = 16
	maxListed    = 10_000 // sessions, connections or IDs of one node's answer
)

// Operator is the part of an *engine.Operator that the API uses. Any goroutine may call it. Every
// call ends with its ctx.
type Operator interface {
	Nodes(ctx context.Context) (engine.Asked[engine.NodeInfo], error)
	Sessions(ctx context.Context, q engine.SessionQuery) (engine.Asked[engine.SessionInfo], error)
	Conns(ctx context.Context, limit int) (engine.Asked[engine.ConnInfo], error)
	Links(ctx context.Context) (engine.Asked[engine.LinkInfo], error)
	IDs(ctx context.Context, session string, limit int) (engine.Asked[engine.IDInfo], error)
	Where(ctx context.Context, ids []string) (engine.Asked[engine.WhereInfo], error)
	History(ctx context.Context, limit int) (engine.Asked[engine.HistorySample], error)
	Trace(ctx context.Context, from, to string) (engine.TraceInfo, error)
	Watch(ctx context.Context, ids []string, heard func(engine.WatchEvent)) error

	Kick(ctx context.Context, id string) error
	Drain(ctx context.Context, node string) error
	Undrain(ctx context.Context, node string) error
	Rebalance(ctx context.Context, node string, share float64, over time.Duration) (moved int, err error)

	LogLevels(ctx context.Context) (engine.Asked[engine.LogLevelInfo], error)
	SetLogLevels(ctx context.Context, node, levels string) error
}

var _ Operator = (*engine.Operator)(nil)

// API answers the questions of operators with JSON, and does what they order. docs/admin-api.md
// describes it.
type API struct {
	operator Operator
	feed     *dashboard.Feed
	access   Access
	logger   *slog.Logger
	mux      *http.ServeMux
	began    time.Time
	seldom   asynclog.Seldom // for lines about those who are refused

	questions, changes, streams places
}

// NewAPI returns an API over operator. The logger hears of each change, and who ordered it.
func NewAPI(operator Operator, access Access, logger *slog.Logger) *API {
	a := &API{
		operator: operator, feed: dashboard.NewFeed(operator), access: access, logger: logger, mux: http.NewServeMux(), began: time.Now(),
		questions: newPlaces(maxQuestions), changes: newPlaces(maxQuestions), streams: newPlaces(maxStreams),
	}
	a.addQuestions()
	a.addChanges()
	a.addLogLevel()
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeError(w, r, refuse(http.StatusNotFound, "docs/admin-api.md lists what there is", "there is no %s", r.URL.Path))
	})
	return a
}

// whoKey is the key of the Caller, in the context of a request.
type whoKey struct{}

// callerOf returns who has sent a request that was admitted.
func callerOf(r *http.Request) Caller {
	who, _ := r.Context().Value(whoKey{}).(Caller)
	return who
}

// at returns the handler for a server that listens there.
func (a *API) at(listens net.Addr) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cross-Origin-Resource-Policy", "same-origin")
		who, err := a.admit(listens, r)
		if err != nil {
			if explain(err).status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Bearer realm="distmsg"`)
				a.seldom.Warn(a.logger, time.Since(a.began), "refused an operator", "reason", err, "from", r.RemoteAddr)
			}
			writeError(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		a.mux.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), whoKey{}, who)))
	})
}

// admit returns who asks, or why they may not.
func (a *API) admit(listens net.Addr, r *http.Request) (who Caller, err error) {
	if a.access.closed(listens) {
		return who, refuse(http.StatusForbidden, Enable, "this API is closed, because other machines can reach %s and nobody would have to show credentials", listens)
	}
	if err := checkOrigin(r); err != nil {
		return who, err
	}
	return a.access.who(r)
}

// asking asks the operator what a request wants to know.
type asking func(ctx context.Context) (answer any, err error)

// question adds a question. read reads its parameters.
func (a *API) question(name string, read func(p *params) asking) {
	a.mux.HandleFunc(apiPrefix+name, a.answering(read))
}

// answering returns the handler of a question.
func (a *API) answering(read func(p *params) asking) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ask, timeout, err := readQuestion(r, read)
		if err == nil {
			err = a.questions.enter()
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		defer a.questions.leave()
		ctx, cancel := context.WithTimeout(r.Context(), timeout)
		defer cancel()
		answer, err := ask(ctx)
		if err != nil {
			writeError(w, r, failed(http.StatusServiceUnavailable, err))
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// readQuestion returns what a request asks, and how long the answer may take.
func readQuestion(r *http.Request, read func(p *params) asking) (ask asking, timeout time.Duration, err error) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return nil, 0, refuse(http.StatusMethodNotAllowed, "use GET", "%s is a question", r.URL.Path)
	}
	p := readParams(r)
	ask, timeout = read(p), p.timeout()
	return ask, timeout, p.check()
}

// answered makes the answer of any type out of one of a type.
func answered[T any](answer T, err error) (any, error) { return answer, err }

func (a *API) addQuestions() {
	o := a.operator
	a.question("nodes", func(*params) asking {
		return func(ctx context.Context) (any, error) { return answered(o.Nodes(ctx)) }
	})
	a.question("sessions", func(p *params) asking {
		q := engine.SessionQuery{Slowest: p.number("slowest", maxListed), Identity: p.text("identity"), Limit: p.limit()}
		return func(ctx context.Context) (any, error) { return answered(o.Sessions(ctx, q)) }
	})
	a.question("conns", func(p *params) asking {
		limit := p.limit()
		return func(ctx context.Context) (any, error) { return answered(o.Conns(ctx, limit)) }
	})
	a.question("links", func(*params) asking {
		return func(ctx context.Context) (any, error) { return answered(o.Links(ctx)) }
	})
	a.question("history", func(p *params) asking {
		limit := p.limit()
		return func(ctx context.Context) (any, error) { return answered(o.History(ctx, limit)) }
	})
	a.question("ids", func(p *params) asking {
		session, limit := p.session(), p.limit()
		return func(ctx context.Context) (any, error) { return answered(o.IDs(ctx, session, limit)) }
	})
	a.question("where", func(p *params) asking {
		ids := p.ids()
		return func(ctx context.Context) (any, error) { return answered(o.Where(ctx, ids)) }
	})
	a.question("trace", func(p *params) asking {
		from, to := p.needed("from"), p.needed("to")
		return func(ctx context.Context) (any, error) { return answered(o.Trace(ctx, from, to)) }
	})
	a.mux.HandleFunc(apiPrefix+"watch", a.watch)
	a.mux.HandleFunc(apiPrefix+"live", a.live)
}

// places are how many requests may be answered at a time.
type places chan struct{}

func newPlaces(n int) places { return make(places, n) }

// enter takes a place. leave returns it.
func (p places) enter() error {
	select {
	case p <- struct{}{}:
		return nil
	default:
		return refuse(http.StatusServiceUnavailable, "ask again in a second", "the node answers %d such requests already", cap(p))
	}
}

func (p places) leave() { <-p }

// KickOrder is the body of kick.
type KickOrder struct {
	ID string `json:"id"`
}

// NodeOrder is the body of drain and undrain.
type NodeOrder struct {
	Node string `json:"node"` // empty: the node that is asked
}

// RebalanceOrder is the body of rebalance.
type RebalanceOrder struct {
	Node  string   `json:"node"`
	Share *float64 `json:"share"`        // of the clients, 0 to 1; 0 ends a move
	Over  float64  `json:"over_seconds"` // how long it takes
}

// Rebalanced is the answer to rebalance.
type Rebalanced struct {
	Moved int `json:"moved"` // sessions that are chosen to move
}

// done is the answer to a change that has none.
type done struct {
	OK bool `json:"ok"`
}

const longestRebalance = 3600 // seconds

func (a *API) addChanges() {
	o := a.operator
	addChange(a, "kick", func(ctx context.Context, c KickOrder) (any, error) {
		if c.ID == "" {
			return nil, refuse(http.StatusBadRequest, `send {"id": "alice"}`, "id is missing")
		}
		return done{true}, o.Kick(ctx, c.ID)
	})
	addChange(a, "drain", func(ctx context.Context, c NodeOrder) (any, error) { return done{true}, o.Drain(ctx, c.Node) })
	addChange(a, "undrain", func(ctx context.Context, c NodeOrder) (any, error) { return done{true}, o.Undrain(ctx, c.Node) })
	addChange(a, "rebalance", func(ctx context.Context, c RebalanceOrder) (any, error) {
		if err := c.check(); err != nil {
			return nil, err
		}
		moved, err := o.Rebalance(ctx, c.Node, *c.Share, time.Duration(c.Over*float64(time.Second)))
		return Rebalanced{moved}, err
	})
}

func (c RebalanceOrder) check() error {
	const example = `send {"node": "n1", "share": 0.2, "over_seconds": 60}`
	switch {
	case c.Share == nil:
		return refuse(http.StatusBadRequest, example, "share is missing")
	case !(*c.Share >= 0 && *c.Share <= 1):
		return refuse(http.StatusBadRequest, example, "share is %v: want 0 to 1", *c.Share)
	case !(c.Over >= 0 && c.Over <= longestRebalance):
		return refuse(http.StatusBadRequest, example, "over_seconds is %v: want 0 to %d", c.Over, longestRebalance)
	}
	return nil
}

// addChange adds a change.
func addChange[T any](a *API, name string, do func(ctx context.Context, order T) (any, error)) {
	a.mux.HandleFunc(apiPrefix+name, changing(a, name, do))
}

// changing returns the handler of a change.
func changing[T any](a *API, name string, do func(ctx context.Context, order T) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var order T
		err := a.readChange(r, name, &order)
		if err == nil {
			err = a.changes.enter()
		}
		if err != nil {
			writeError(w, r, err)
			return
		}
		defer a.changes.leave()
		ctx, cancel := context.WithTimeout(r.Context(), maxTimeout)
		defer cancel()
		answer, err := do(ctx, order)
		a.record(r, name, order, err)
		if err != nil {
			writeError(w, r, failed(http.StatusConflict, err))
			return
		}
		writeJSON(w, http.StatusOK, answer)
	}
}

// readChange reads what a request orders, if its sender has the right to order that.
func (a *API) readChange(r *http.Request, name string, order any) error {
	if r.Method != http.MethodPost {
		return refuse(http.StatusMethodNotAllowed, "use POST", "%s is a change", r.URL.Path)
	}
	who := callerOf(r)
	if err := who.checkRight(r); err != nil {
		a.seldom.Warn(a.logger, time.Since(a.began), "refused an order of an operator who may only ask", "order", name, "who", who.Name, "from", r.RemoteAddr)
		return err
	}
	if err := checkChange(r); err != nil {
		return err
	}
	return readBody(r, order)
}

// record logs who has ordered what.
func (a *API) record(r *http.Request, name string, order any, err error) {
	with, _ := json.Marshal(order) // it was read from JSON
	fields := []any{"order", name, "with", string(with), "who", callerOf(r).Name, "from", r.RemoteAddr}
	if err != nil {
		a.logger.Warn("an operator's order has failed", append(fields, "error", err)...)
		return
	}
	a.logger.Info("an operator has given an order", fields...)
}
