package admin

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"distmsg/engine"
	"distmsg/routing"
)

// params are the parameters of a question. The first that is wrong is kept for check.
type params struct {
	values url.Values
	known  []string
	wrong  error
}

func readParams(r *http.Request) *params {
	values, err := url.ParseQuery(r.URL.RawQuery)
	p := &params{values: values, known: []string{"timeout"}}
	if err != nil {
		p.refuse("the parameters cannot be read: %v", err)
	}
	return p
}

func (p *params) refuse(format string, args ...any) {
	if p.wrong == nil {
		p.wrong = refuse(http.StatusBadRequest, "docs/admin-api.md lists the parameters", format, args...)
	}
}

// texts returns all values of a parameter.
func (p *params) texts(name string) []string {
	p.known = append(p.known, name)
	return p.values[name]
}

// text returns the value of a parameter, which may be empty.
func (p *params) text(name string) string {
	all := p.texts(name)
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	p.refuse("%s is given %d times: give it once", name, len(all))
	return ""
}

// needed returns the value of a parameter, which must not be empty.
func (p *params) needed(name string) string {
	text := p.text(name)
	if text == "" {
		p.refuse("%s is missing", name)
	}
	return text
}

// number returns a number of 0 to most. It is 0 if the parameter is missing.
func (p *params) number(name string, most int) int {
	text := p.text(name)
	if text == "" {
		return 0
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > most {
		p.refuse("%s is %q: want a number of 0 to %d", name, text, most)
	}
	return n
}

// limit returns how many items each node may answer. Zero is its default.
func (p *params) limit() int { return p.number("limit", maxListed) }

// session returns the session of a question.
func (p *params) session() string {
	text := p.needed("session")
	if _, err := routing.ParseSessionID(text); err != nil {
		p.refuse("%q is not the ID of a session, which has 32 hexadecimal digits", text)
	}
	return text
}

// ids returns the IDs of a question.
func (p *params) ids() []string {
	ids := p.texts("id")
	switch {
	case len(ids) == 0:
		p.refuse("id is missing: give it once for each ID")
	case len(ids) > engine.MaxAskedIDs:
		p.refuse("%d IDs are asked for: at most %d are allowed", len(ids), engine.MaxAskedIDs)
	case slices.Contains(ids, ""):
		p.refuse("an id is empty")
	}
	return ids
}

// timeout returns how long the answer may take.
func (p *params) timeout() time.Duration {
	text := p.text("timeout")
	if text == "" {
		return defaultTimeout
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > maxTimeout {
		p.refuse("timeout is %q: want a time over 0 and up to %v, as in 2s", text, maxTimeout)
		return defaultTimeout
	}
	return d
}

// check refuses parameters that are wrong, and those that nobody has read.
func (p *params) check() error {
	for name := range p.values {
		if !slices.Contains(p.known, name) {
			p.refuse("there is no parameter %q here", name)
		}
	}
	return p.wrong
}

// readBody reads the JSON object that a change consists of.
func readBody(r *http.Request, into any) error {
	in := json.NewDecoder(r.Body)
	in.DisallowUnknownFields()
	err := in.Decode(into)
	if err == nil {
		if _, err = in.Token(); err == io.EOF {
			return nil
		} else if err == nil {
			err = errors.New("there is more behind the object")
		}
	}
	if err == io.EOF {
		err = errors.New("it is empty")
	}
	if err = tooLarge(err); isRefusal(err) {
		return err
	}
	return refuse(http.StatusBadRequest, "docs/admin-api.md shows what to send", "the body is not what this wants: %s", strings.TrimPrefix(err.Error(), "json: "))
}

func isRefusal(err error) bool {
	known := (*refusal)(nil)
	return errors.As(err, &known)
}
