package admin

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// metricRow is a row of the table in docs/operations.md: name, type, labels, what it says, and when
// it is bad.
var metricRow = regexp.MustCompile("(?m)^\\| `(distmsg_[a-z_]+)` \\| ([a-z]+) \\| ([a-z`, –]+) \\| [^|]+ \\| [^|]+ \\|$")

// documented returns the metrics of the table, each with its type and labels.
func documented(page string) map[string]string {
	all := make(map[string]string)
	for _, m := range metricRow.FindAllStringSubmatch(page, -1) {
		all[m[1]] = strings.NewReplacer("`", "", "–", "").Replace(m[2] + " " + m[3])
	}
	return all
}

// exported returns the metrics of a node, each with its type and labels.
func exported(t *testing.T) map[string]string {
	all := make(map[string]string)
	for name, f := range scrapeProtobuf(t, &fakeNode{stats: allStats()}) {
		if !strings.HasPrefix(name, "distmsg_") {
			continue // of the Go runtime or the process
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		all[name] = strings.ToLower(f.GetType().String()) + " " + strings.Join(labels, ", ")
	}
	return all
}

// The table of metrics has what a node exports, and nothing else.
func TestMetricsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	there, said := exported(t), documented(string(page))
	for _, name := range slices.Sorted(maps.Keys(there)) {
		if got, ok := said[name]; !ok || got != there[name] {
			t.Errorf("%s is %q; docs/operations.md says %q", name, there[name], got)
		}
		delete(said, name)
	}
	for name := range said {
		t.Errorf("docs/operations.md has %s, and a node does not export it", name)
	}
}

// A known-bad case: rows of another form do not count.
func TestRowsOfMetrics(t *testing.T) {
	got := documented("| `distmsg_a` | counter | `x`, `y` | says | bad |\n| `distmsg_b` | gauge | – | a thing | – |\n| `distmsg_c` | says | bad |\n")
	if want := map[string]string{"distmsg_a": "counter x, y", "distmsg_b": "gauge "}; !maps.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
