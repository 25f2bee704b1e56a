package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"distmsg/codec"
	"distmsg/engine"
)

// Rights are what an identity may do, as files, claims and answers say it. What is left out is
// allowed, or the node's default.
type Rights struct {
	IDs    Patterns `json:"ids,omitzero" yaml:"ids"`        // that it may bind and send from
	Lookup *bool    `json:"lookup,omitempty" yaml:"lookup"` // may it look up who holds an ID?
	Watch  *bool    `json:"watch,omitempty" yaml:"watch"`   // may it watch IDs?
	Limits Limits   `json:"limits,omitempty" yaml:"limits"`
}

// identity returns the identity that has these rights. It returns an error if the name or a right
// is wrong.
func (r Rights) identity(name string, expires time.Time) (engine.Identity, error) {
	if err := checkName(name); err != nil {
		return engine.Identity{}, err
	}
	if err := r.check(); err != nil {
		return engine.Identity{}, err
	}
	limits, err := r.Limits.engine()
	if err != nil {
		return engine.Identity{}, err
	}
	return engine.Identity{
		Name: name, IDs: r.IDs, NoLookup: r.Lookup != nil && !*r.Lookup, NoWatch: r.Watch != nil && !*r.Watch,
		Limits: limits, Expires: expires,
	}, nil
}

const maxName = 255 // bytes

// checkName refuses names that do not belong into a log.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name has %d bytes, and may have %d", len(name), maxName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the name has characters that cannot be printed")
	}
	return nil
}

// Patterns name IDs. A pattern is an ID, or a prefix followed by *. Nil means every ID. An empty
// list means none.
type Patterns []string

// MaxPatterns bounds the patterns of one identity.
const MaxPatterns = 256

func (r Rights) check() error {
	if len(r.IDs) > MaxPatterns {
		return fmt.Errorf("ids has %d patterns, and may have %d", len(r.IDs), MaxPatterns)
	}
	for _, p := range r.IDs {
		prefix, _ := strings.CutSuffix(p, "*")
		switch {
		case p == "":
			return errors.New("ids has an empty pattern")
		case strings.Contains(prefix, "*"):
			return fmt.Errorf("ids has the pattern %q: * may stand at the end only", p)
		case len(prefix) > codec.MaxID || !utf8.ValidString(p):
			return fmt.Errorf("ids has the pattern %.80q: it is not the beginning of an ID", p)
		}
	}
	return nil
}

// UnmarshalJSON refuses null: it could be meant as "none", and a nil list is every ID.
func (p *Patterns) UnmarshalJSON(text []byte) error {
	if bytes.Equal(text, []byte("null")) {
		return errors.New("ids is null: give a list, or leave it out for every ID")
	}
	list := []string{}
	if err := json.Unmarshal(text, &list); err != nil {
		return errors.New("ids is not a list of texts")
	}
	*p = list
	return nil
}

// decodeStrictly reads one JSON object into v. It refuses unknown fields, anything after the
// object, and null in place of the object or of a value in it: null could be meant as "no", and
// would be read as if the value was left out.
func decodeStrictly(text []byte, v any) error {
	switch {
	case !utf8.Valid(text):
		return errors.New("it is not UTF-8")
	case bytes.Equal(bytes.TrimSpace(text), []byte("null")):
		return errors.New("it is null, and no object")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return jsonError(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("there is something after the object")
	}
	return refuseNull(text)
}

// refuseNull refuses text, which is JSON, if there is a null in it.
func refuseNull(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.Token()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return jsonError(err)
		case token == nil:
			return fmt.Errorf("a value is null (at byte %d): give one, or leave it out", d.InputOffset())
		}
	}
}

// jsonError says what is wrong without quoting values.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	var typed *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("it is not JSON (at byte %d)", syntax.Offset)
	case errors.As(err, &typed):
		return fmt.Errorf("%s is a %s", typed.Field, typed.Value)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is not JSON: it ends too early")
	}
	return err
}
