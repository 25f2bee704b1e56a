package main

import (
	"bytes"
	"strings"
	"testing"

	tea "charm.land/bubbletea/v2"

	"distmsg/loadtest/result"
)

// TestScreen shows a run on a terminal that it does not need: the picture is a function of the
// samples.
func TestScreen(t *testing.T) {
	s := &screen{rounds: 3, length: 10, total: make(map[string]uint64)}
	if text := s.View().Content; !strings.Contains(text, "connecting") {
		t.Errorf("before the first sample: %q", text)
	}
	for i := range 100 {
		s.Update(moment{result.Point{At: result.Seconds(i), Length: 1, Phase: result.Measuring, Completed: uint64(1000 + i),
			Outcomes: map[string]uint64{"acked": 1}, Latency: &result.Latency{P50: 0.001, P99: 0.002}}, 1 + i/50})
	}
	text := s.View().Content
	for _, want := range []string{"round     2 of 3", "measuring 100s of 10.0s", "1099/s", "p50 1.00ms", "acked 50", "no fault so far"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := len([]rune(line)); n > 81 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
}

// TestNarrowScreen has a terminal of 40 columns. All of the figures are there, and the newest
// values of the curves.
func TestNarrowScreen(t *testing.T) {
	s := &screen{rounds: 1, length: 10, total: make(map[string]uint64)}
	s.Update(tea.WindowSizeMsg{Width: 40, Height: 24})
	for i := range 30 {
		s.Update(moment{result.Point{At: result.Seconds(i), Length: 1, Phase: result.Measuring, Completed: uint64(1 + i), DownConnections: 17,
			Outcomes: map[string]uint64{"acked": 12345, "no_route": 1234, "registry_unavailable": 12},
			Latency:  &result.Latency{P50: 0.001, P90: 0.002, P99: 0.01, P999: 0.1, Max: 0.5}}, 1})
	}
	text := s.View().Content
	for _, want := range []string{"connections down 17", "max 500ms", "registry_unavailable 360", "█\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for line := range strings.Lines(text) {
		if n := len([]rune(strings.TrimRight(line, " \n"))); n > 40 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
}

// What is not a terminal gets lines.
func TestNoTerminal(t *testing.T) {
	var out bytes.Buffer
	v := newView(&out, 1, 0)
	defer v.close()
	say(v.lines, "a line\n")
	v.note("a note")
	if out.String() != "a line\na note\n" || v.moments != nil {
		t.Errorf("%q", out.String())
	}
}
