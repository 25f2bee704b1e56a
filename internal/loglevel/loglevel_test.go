package loglevel

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"distmsg/internal/asynclog"
)

// Each component has its level, which changes at once, also behind a queue.
func TestLevels(t *testing.T) {
	levels, err := New("warn,links=debug")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	all := asynclog.Wrap(slog.New(levels.Handler(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	links, auth := all.With(Key, "links", "node", "n1"), all.With(Key, "auth")
	say := func() string {
		out.Reset()
		for _, l := range []*slog.Logger{all.Logger, links.WithGroup("g"), auth} {
			l.Debug("debug")
			l.Info("info")
			l.Warn("warn", "a", 1)
		}
		if !all.Flush(time.Minute) {
			t.Error("the log is not written")
		}
		return out.String()
	}
	if got := say(); strings.Count(got, "msg=debug") != 1 || strings.Count(got, "msg=info") != 1 || strings.Count(got, "msg=warn") != 3 ||
		!strings.Contains(got, "msg=warn node=n1 g.a=1") || strings.Contains(got, Key) {
		t.Errorf("%s:\n%s", levels, got)
	}
	if err := levels.Set("error, auth=info"); err != nil || levels.String() != "error, auth=info" {
		t.Errorf("%v, %s", err, levels)
	}
	if got := say(); strings.Count(got, "\n") != 2 {
		t.Errorf("%s:\n%s", levels, got)
	}
	for text, want := range map[string]string{
		"":                  `"" is not debug, info, warn or error`,
		"loud":              `"loud" is not debug`,
		"links=debug":       "does not begin with one level",
		"info,warn":         "does not begin with one level",
		"info,link=debug":   `there is no component "link": they are auth, clients,`,
		"info,links=louder": `"louder" is not debug`,
	} {
		if err := levels.Set(text); err == nil || !strings.Contains(err.Error(), want) || Check(text) == nil {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
	if levels.String() != "error, auth=info" {
		t.Errorf("what is wrong has changed the levels to %s", levels)
	}
}
