package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"distmsg/engine"
)

// refusal is an error that says which status an answer has, and what to do.
type refusal struct {
	status      int
	wrong, hint string
}

func (r *refusal) Error() string { return r.wrong }

func refuse(status int, hint, format string, args ...any) error {
	return &refusal{status: status, wrong: fmt.Sprintf(format, args...), hint: hint}
}

// Problem is the answer to a request that was refused or has failed.
type Problem struct {
	Error string `json:"error"`          // what was wrong
	Hint  string `json:"hint,omitempty"` // what to do
}

// failed gives the error of an operator a status, unless it says more.
func failed(status int, err error) error {
	text := strings.TrimPrefix(err.Error(), "engine: ")
	switch {
	case isRefusal(err), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, engine.ErrNotBound):
		return refuse(http.StatusNotFound, "relay where says what the registry and the nodes know of it", "%s", text)
	}
	return refuse(status, "", "%s", text)
}

// writeError answers with err, as JSON below apiPrefix and as text elsewhere.
func writeError(w http.ResponseWriter, r *http.Request, err error) {
	why := explain(err)
	if !strings.HasPrefix(r.URL.Path, apiPrefix) {
		text := why.wrong
		if why.hint != "" {
			text += ": " + why.hint
		}
		http.Error(w, text, why.status)
		return
	}
	writeJSON(w, why.status, Problem{Error: why.wrong, Hint: why.hint})
}

// explain finds the status for an error.
func explain(err error) *refusal {
	known := (*refusal)(nil)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, context.DeadlineExceeded):
		return &refusal{http.StatusGatewayTimeout, "the answer took too long", "ask again, or with a longer timeout (at most " + maxTimeout.String() + ")"}
	case errors.Is(err, context.Canceled): // nobody reads it
		return &refusal{http.StatusServiceUnavailable, "the node stops", "ask another node"}
	}
	return &refusal{http.StatusInternalServerError, err.Error(), ""}
}

// writeJSON writes an answer.
func writeJSON(w http.ResponseWriter, status int, answer any) {
	text, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error": "the answer cannot be written as JSON"}`)
	}
	w.Header().Set("Content-Type", jsonType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

const jsonType = "application/json"
