// Package loglevel gives a log one level for everything, and others for components. Both may change
// at any time.
//
// A record belongs to a component if its logger was made with the attribute "component". The
// handler drops that attribute, because the messages say what they are about.
package loglevel

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
)

// Key is the attribute that names the component of a logger.
const Key = "component"

// Components returns the components that a node has, sorted.
func Components() []string {
	return []string{"auth", "clients", "discovery", "links", "registry", "sessions", "tls"}
}

// Levels are the levels of a log. Any goroutine may call the methods, and none waits.
type Levels struct{ now atomic.Pointer[setting] }

type setting struct {
	text string
	all  slog.Level
	of   map[string]slog.Level // by component
}

// New returns the levels that a text says, such as "info" or "info,links=debug".
func New(text string) (*Levels, error) {
	l := new(Levels)
	return l, l.Set(text)
}

// Set replaces the levels. If the text is wrong, nothing changes.
func (l *Levels) Set(text string) error {
	s, err := parse(text)
	if err == nil {
		l.now.Store(s)
	}
	return err
}

// String returns the text of the present levels.
func (l *Levels) String() string { return l.now.Load().text }

// Check returns what is wrong with a text, or nil.
func Check(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (*setting, error) {
	s := &setting{text: text, of: make(map[string]slog.Level)}
	for i, part := range strings.Split(text, ",") {
		component, level, named := strings.Cut(strings.TrimSpace(part), "=")
		if !named {
			component, level = "", component
		}
		var parsed slog.Level
		switch {
		case parsed.UnmarshalText([]byte(level)) != nil:
			return nil, fmt.Errorf("%q is not debug, info, warn or error", level)
		case i == 0 && !named:
			s.all = parsed
		case i == 0 || !named:
			return nil, fmt.Errorf("%q does not begin with one level, as in info,links=debug", text)
		case !slices.Contains(Components(), component):
			return nil, fmt.Errorf("there is no component %q: they are %s", component, strings.Join(Components(), ", "))
		default:
			s.of[component] = parsed
		}
	}
	return s, nil
}

// Handler returns a handler that passes on what the levels let through. next must have all levels
// enabled.
func (l *Levels) Handler(next slog.Handler) slog.Handler { return &handler{levels: l, next: next} }

type handler struct {
	levels    *Levels
	next      slog.Handler
	component string
}

// Prompt says that Enabled never waits. Package asynclog then asks it each time.
func (h *handler) Prompt() {}

// Enabled implements [slog.Handler].
func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	s := h.levels.now.Load()
	least, ok := s.of[h.component]
	if !ok {
		least = s.all
	}
	return level >= least
}

// Handle implements [slog.Handler].
func (h *handler) Handle(ctx context.Context, r slog.Record) error { return h.next.Handle(ctx, r) }

// WithAttrs implements [slog.Handler].
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := *h
	var rest []slog.Attr
	for _, a := range attrs {
		if a.Key == Key {
			named.component = a.Value.String()
			continue
		}
		rest = append(rest, a)
	}
	if len(rest) > 0 {
		named.next = h.next.WithAttrs(rest)
	}
	return &named
}

// WithGroup implements [slog.Handler].
func (h *handler) WithGroup(name string) slog.Handler {
	grouped := *h
	grouped.next = h.next.WithGroup(name)
	return &grouped
}
