package admin

import (
	"context"
	"net/http"

	"distmsg/internal/loglevel"
)

// LogLevelOrder is the body of a POST to log-level.
type LogLevelOrder struct {
	Node   string `json:"node"`   // empty: the node that is asked
	Levels string `json:"levels"` // as --log-level has them
}

// addLogLevel adds log-level, which is a question by GET and a change by POST.
func (a *API) addLogLevel() {
	const name = "log-level"
	ask := a.answering(func(*params) asking {
		return func(ctx context.Context) (any, error) { return answered(a.operator.LogLevels(ctx)) }
	})
	set := changing(a, name, func(ctx context.Context, c LogLevelOrder) (any, error) {
		if err := loglevel.Check(c.Levels); err != nil {
			return nil, refuse(http.StatusBadRequest, `send {"levels": "info,links=debug"}`, "levels: %v", err)
		}
		return done{true}, a.operator.SetLogLevels(ctx, c.Node, c.Levels)
	})
	a.mux.HandleFunc(apiPrefix+name, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			set(w, r)
			return
		}
		ask(w, r)
	})
}
