package report

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"distmsg/loadtest/result"
)

// exampleStanding is a comparison with an aim of which nobody can tell, one that is missed, and no
// aim.
func exampleStanding() *result.Standing {
	const µs = 1e-6
	shape := func(name, title string, floor, node, redis, aim float64) result.Shape {
		s := result.Shape{Name: name, Title: title, Flags: "--window 50", Metric: result.ServerCPU}
		for i, v := range []float64{floor, node, redis} {
			cpu := result.Seconds(v * µs)
			s.Entries = append(s.Entries, result.Entry{Server: []string{"floor", "node", "redis"}[i], Rate: new(1 / v), ServerCPU: &cpu, All: []result.Seconds{cpu}})
		}
		verdict := map[bool]result.Outcome{true: result.Missed, false: result.Unclear}[node > aim*floor]
		s.Ratios = []result.Ratio{{Of: "node", To: "floor", Value: node / floor, Low: node / floor, High: node/floor + 0.2, Aim: aim, Verdict: verdict}}
		return s
	}
	s := &result.Standing{Schema: result.SchemaStanding, Begun: time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC), Machine: example().Machine,
		Pinning: "servers on CPU 0, driver on CPU 1", Rounds: 5, Seconds: 5, Servers: []result.Server{{Name: "floor"}, {Name: "redis", Version: "7.0"}},
		Shapes: []result.Shape{shape("a", "acked & <1> in flight", 9, 9.9, 13, 1.2), shape("b", "send", 0.3, 0.5, 40, 1.4), shape("c", "no aim", 1, 2, 3, 0)}}
	s.Shapes[2].Entries[0].ServerCPU = nil
	return s
}

// TestSVG checks what a picture promises: it is always the same, and no text breaks it.
func TestSVG(t *testing.T) {
	var a, b bytes.Buffer
	s := exampleStanding()
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := WriteSVG(w, s); err != nil {
			t.Fatal(err)
		}
	}
	if a.String() != b.String() {
		t.Error("two pictures of one standing differ")
	}
	for _, want := range []string{"acked &amp; &lt;1&gt; in flight", ">1.10</text>", ">1.67</text>", "(floor: 9.00 µs)"} {
		if !strings.Contains(a.String(), want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
	if n := strings.Count(a.String(), `class="aim"`); n != 2 {
		t.Errorf("%d aims are drawn, want 2", n)
	}
}

// The verdict of every page is a sentence.
func TestVerdictsAreSentences(t *testing.T) {
	for name, v := range map[string]Verdict{"compare": standingMood(exampleStanding()), "no loads": standingMood(new(result.Standing)), "run": verdictOf(example())} {
		if first := v.Text[:1]; first != strings.ToUpper(first) || !strings.HasSuffix(v.Text, ".") {
			t.Errorf("%s: %q is no sentence", name, v.Text)
		}
	}
}
