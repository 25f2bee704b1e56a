package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"distmsg/client"
)

// maxRequest is the maximum size of a URL or a form in bytes: 1 MiB of text takes 3 MiB if every
// byte is escaped.
const maxRequest = 4 << 20

// outcome is how a message ended.
type outcome struct {
	To        string `json:"to"`
	Outcome   string `json:"outcome"`
	Reason    string `json:"reason,omitempty"`
	Delivered string `json:"delivered"` // yes, no or unknown
	Safe      bool   `json:"safe"`      // a second copy cannot arrive, so a retry is safe
	// the cause may pass by itself within seconds, so a retry may help
	Temporary bool `json:"temporary"`
	status    int  // its HTTP code
}

// outcomeOf returns what the error of a send means.
func outcomeOf(to string, err error) outcome {
	code, reason := codeOf(err, client.CodeAcked)
	return outcome{to, code.String(), reason, code.Delivered().String(), code.SafeToRetry(), code.Temporary(), httpStatus(code)}
}

// codeOf returns what an error of the SDK means. good is the code if there is no error. An error
// without a code means that nothing was done, because no time was left or this gateway is closing.
func codeOf(err error, good client.Code) (code client.Code, reason string) {
	if err == nil {
		return good, ""
	}
	if e := (*client.Error)(nil); errors.As(err, &e) {
		return e.Code, e.Reason
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return client.CodeExpired, err.Error()
	}
	return client.CodeDraining, err.Error()
}

// httpStatus returns the HTTP code of an outcome. 502 and 504 mean that nobody knows whether the
// message was delivered. With every other error, the receiver has not accepted the message. 503 and
// 429 mean that a retry is safe and may help.
func httpStatus(code client.Code) int {
	switch code {
	case client.CodeOK, client.CodeAcked:
		return http.StatusOK
	case client.CodeBadID:
		return http.StatusBadRequest
	case client.CodeDenied:
		return http.StatusForbidden
	case client.CodeNoRoute:
		return http.StatusNotFound
	case client.CodeSuperseded, client.CodeTaken:
		return http.StatusConflict
	case client.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case client.CodeRejected:
		return http.StatusUnprocessableEntity
	case client.CodeOverflow:
		return http.StatusTooManyRequests
	case client.CodeUnreachable, client.CodeExpired, client.CodeDraining, client.CodeRegistryUnavailable:
		return http.StatusServiceUnavailable
	case client.CodeTimeout:
		return http.StatusGatewayTimeout
	default: // lost, and new codes of a newer relay
		return http.StatusBadGateway
	}
}

// answer writes v as JSON.
func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // an error means that the client has gone
}

// answerSend answers a message to one ID, with the time from here to the receiver's gateway and
// back.
func answerSend(w http.ResponseWriter, o outcome, took time.Duration) {
	answer(w, o.status, struct {
		outcome
		Millis float64 `json:"ms"`
	}{o, millis(took)})
}

// answerMulticast answers a message to several IDs, with the time after which all outcomes were
// known, and the HTTP code that they share: 207 if they do not.
func answerMulticast(w http.ResponseWriter, outcomes []outcome, took time.Duration) {
	status := outcomes[0].status
	if slices.ContainsFunc(outcomes, func(o outcome) bool { return o.status != status }) {
		status = http.StatusMultiStatus
	}
	answer(w, status, struct {
		Outcomes []outcome `json:"outcomes"`
		Millis   float64   `json:"ms"`
	}{outcomes, millis(took)})
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// answerRequest answers a login or a logout.
func answerRequest(w http.ResponseWriter, id string, err error) {
	code, reason := codeOf(err, client.CodeOK)
	body := map[string]string{"clientId": id, "outcome": code.String()}
	if reason != "" {
		body["reason"] = reason
	}
	answer(w, httpStatus(code), body)
}

// refuse answers an invalid request with one line that says what to change.
func refuse(w http.ResponseWriter, status int, format string, args ...any) {
	answer(w, status, map[string]string{"error": fmt.Sprintf(format, args...)})
}

// parameters returns the parameters of a request, from its query and from the posted form. A name
// that ends with "?" is an optional parameter with any text, a name that ends with "," is a list of
// IDs, and any other name is one ID. If a parameter is wrong, parameters answers with its name, and
// ok is false.
func parameters(w http.ResponseWriter, r *http.Request, names ...string) (p url.Values, ok bool) {
	status, err := parseForm(w, r)
	if err == nil {
		status, err = http.StatusBadRequest, check(r.Form, names)
	}
	if err != nil {
		refuse(w, status, "%s: %v", r.URL.Path, err)
		return nil, false
	}
	return r.Form, true
}

// parseForm fills r.Form. If it returns an error, it also returns the HTTP code.
func parseForm(w http.ResponseWriter, r *http.Request) (status int, err error) {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		w.Header().Set("Allow", "GET, POST")
		return http.StatusMethodNotAllowed, fmt.Errorf("takes GET, or POST with a form, not %s", r.Method)
	}
	const form = "application/x-www-form-urlencoded"
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); r.Method == http.MethodPost && r.ContentLength != 0 && media != form {
		return http.StatusUnsupportedMediaType, fmt.Errorf("takes a form (%s), not %.80q", form, media)
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
	if err := r.ParseForm(); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return http.StatusRequestEntityTooLarge, fmt.Errorf("the form has more than %d bytes", tooLarge.Limit)
		}
		return http.StatusBadRequest, err
	}
	return 0, nil
}

// check compares parameters with the names given to parameters, and splits lists.
func check(p url.Values, names []string) error {
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.TrimRight(n, "?,") == name }) {
			return fmt.Errorf("unknown parameter %.80q", name)
		}
		if len(p[name]) > 1 {
			return fmt.Errorf("parameter %q was given twice", name)
		}
		if !utf8.ValidString(p.Get(name)) {
			return fmt.Errorf("parameter %q is not UTF-8", name)
		}
	}
	for _, spec := range names {
		name := strings.TrimRight(spec, "?,")
		switch value := p.Get(name); {
		case strings.HasSuffix(spec, "?"):
		case !p.Has(name):
			return fmt.Errorf("missing parameter %q", name)
		case strings.HasSuffix(spec, ","):
			p[name] = strings.Split(value, ",")
		case strings.Contains(value, ","):
			return fmt.Errorf("parameter %q is one ID, without commas", name)
		}
		for _, id := range p[name] {
			if !strings.HasSuffix(spec, "?") && (id == "" || len(id) > client.MaxID) {
				return fmt.Errorf("parameter %q: an ID has 1 to %d bytes, not %d", name, client.MaxID, len(id))
			}
		}
	}
	return nil
}
