package ask

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"distmsg/engine"
)

// Clients choose IDs and names. None of them can make a terminal do something.
func TestTableIsHarmless(t *testing.T) {
	var out strings.Builder
	rows := []engine.IDInfo{{ID: "bob", Node: "n1", Epoch: 7}, {ID: "a\x1b[2Jb\tc\n\u202e", Node: "\xff"}, {}}
	if err := writeTable(&out, idColumns, rows); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.ContainsAny(text, "\x1b\t\u202e") || !utf8.ValidString(text) || strings.Count(text, "\n") != 4 {
		t.Errorf("the table is %q", text)
	}
	if !strings.Contains(text, "bob ") || !strings.Contains(text, `"a\x1b[2Jb\tc\n`) || !strings.Contains(text, "\n-  ") {
		t.Errorf("the table is\n%s", text)
	}
}

func TestTexts(t *testing.T) {
	for _, tc := range []struct{ got, want string }{
		{sizeText(0), "0 B"}, {sizeText(1023), "1023 B"}, {sizeText(1536), "1.5 KiB"}, {sizeText(uint64(5) << 40), "5.0 TiB"},
		{ageText(0), "0s"}, {ageText(0.0000123), "12µs"}, {ageText(0.00234), "2.34ms"}, {ageText(8.33), "8.3s"},
		{ageText(75), "1m15s"}, {ageText(3 * 3600), "3h0m"}, {ageText(50 * 3600), "2d2h"},
		{rateText(0), "0"}, {rateText(3.14159), "3.1"}, {rateText(312.2), "312"}, {rateText(12_345), "12.3k"}, {rateText(1_500_000), "1.5M"},
		{outcomesText(map[string]float64{"acked": 100, "timeout": 2, "lost": 2}), "acked 100, lost 2.0, timeout 2.0"},
	} {
		if tc.got != tc.want {
			t.Errorf("%q, want %q", tc.got, tc.want)
		}
	}
}

// sampleOf returns what two nodes said at a time.
func sampleOf(at time.Time, sends uint64, started time.Time) sample {
	node := func(name string) engine.NodeInfo {
		return engine.NodeInfo{Node: name, State: engine.NodeReady, StartedAt: started,
			Counters: engine.NodeCounters{Sends: sends, Outcomes: map[string]uint64{"acked": sends, "lost": 0}}}
	}
	return sample{At: at, Nodes: engine.Asked[engine.NodeInfo]{
		Answers: []engine.NodeInfo{node("n1"), node("n0")}, Missing: []engine.MissingNode{{Node: "n2", Why: "no link"}}}}
}

// Rates are differences over time. A node that has restarted has none at first.
func TestRates(t *testing.T) {
	began := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	before := sampleOf(began, 100, began)
	all := ratesOf(before, sampleOf(began.Add(2*time.Second), 300, began))
	if len(all) != 2 || all[0].node.Node != "n0" || !all[0].known || all[0].sends != 100 || all[0].outcomes["acked"] != 100 || len(all[0].outcomes) != 1 {
		t.Errorf("%+v", all)
	}
	if again := ratesOf(before, sampleOf(began.Add(2*time.Second), 3, began.Add(time.Second))); again[0].known || again[0].text(0) != "" {
		t.Errorf("after a restart: %+v", again[0])
	}
}

// Limits are told by identity, over all nodes, and only those that were reached since the last
// sample.
func TestLimitsReached(t *testing.T) {
	began := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	before, now := sampleOf(began, 1, began), sampleOf(began.Add(2*time.Second), 1, began)
	old := []engine.Limited{{Identity: "shop", Limit: "identity-messages", Times: 10}, {Identity: "chat", Limit: "lookups", Times: 3}}
	before.Nodes.Answers[0].Limits = old
	now.Nodes.Answers[0].Limits = []engine.Limited{{Identity: "shop", Limit: "identity-messages", Times: 50}, old[1], {Limit: "sessions", Times: 2}, {Other: true, Limit: "lookups", Times: 4}}
	now.Nodes.Answers[1].Limits = []engine.Limited{{Identity: "shop", Limit: "identity-messages", Times: 20}, {Identity: "a\x1b[2J", Limit: "bytes", Times: 6}}
	const want = "limits reached: shop identity-messages 30/s, \"a\\x1b[2J\" bytes 3.0/s, (others) lookups 2.0/s, (no name) sessions 1.0/s\n"
	if text := sampleText(before, now); !strings.Contains(text, want) {
		t.Errorf("%s\nwithout %s", text, want)
	}
	if text := sampleText(now, now); strings.Contains(text, "limits") {
		t.Errorf("nothing was reached:\n%s", text)
	}
	for i := range 7 {
		now.Nodes.Answers[1].Limits = append(now.Nodes.Answers[1].Limits, engine.Limited{Identity: "x", Limit: string(rune('a' + i)), Times: 100})
	}
	if text := sampleText(before, now); !strings.Contains(text, ", 6 more\n") {
		t.Errorf("%s", text)
	}
}

// The live screen fits its window, stops and ends when it is asked to, and says what is wrong.
func TestLive(t *testing.T) {
	began := time.Now()
	l := &live{take: func() (sample, error) { return sampleOf(began, 1, began), nil }, every: time.Second}
	l.Update(tea.WindowSizeMsg{Width: 40, Height: 6})
	l.Update(l.ask())
	l.Update(taken{sample: sampleOf(began.Add(time.Second), 51, began)})
	if text := l.text(); !strings.Contains(text, "\nn1    ready") || strings.Count(text, "\n") != 5 {
		t.Errorf("the screen is\n%s", text)
	}
	for line := range strings.Lines(l.text()) {
		if len([]rune(strings.TrimSuffix(line, "\n"))) > 40 {
			t.Errorf("%q is too wide", line)
		}
	}
	l.Update(tea.WindowSizeMsg{Width: 200, Height: 50})
	if text := l.text(); !strings.Contains(text, "acked 50") || !strings.Contains(text, "no answer from n2: no link") {
		t.Errorf("the screen is\n%s", text)
	}
	l.Update(tea.KeyPressMsg{Code: tea.KeySpace, Text: " "})
	l.Update(taken{sample: sampleOf(began.Add(2*time.Second), 1000, began)})
	if !strings.Contains(l.text(), "(paused)") || strings.Contains(l.text(), "acked 949") {
		t.Errorf("it is not paused:\n%s", l.text())
	}
	l.Update(taken{err: errors.New("no node listens")})
	if !strings.Contains(l.text(), "no node listens") {
		t.Errorf("it does not say what is wrong:\n%s", l.text())
	}
	if _, cmd := l.Update(tea.KeyPressMsg{Code: 'q', Text: "q"}); cmd == nil {
		t.Error("q does not end it")
	}
}
