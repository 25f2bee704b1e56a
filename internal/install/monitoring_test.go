package install

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	alertsFile    = "deploy/prometheus/alerts.yaml"
	scenariosFile = "deploy/prometheus/alerts_test.yaml"
	dashboardFile = "deploy/grafana/dashboard.json"
	operations    = "docs/operations.md"
)

// promtool accepts the alerts, and its tests of them pass.
func TestAlerts(t *testing.T) {
	run(t, "promtool", "check", "rules", alertsFile)
	run(t, "promtool", "test", "rules", scenariosFile)
}

// rule is one alert.
type rule struct {
	Alert, Expr, For string
	Labels           struct{ Severity string }
	Annotations      struct{ Summary, Description string }
}

func alerts(t *testing.T) []rule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []rule } }
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(root, alertsFile))), &file); err != nil || len(file.Groups) != 1 {
		t.Fatalf("%d groups, %v", len(file.Groups), err)
	}
	return file.Groups[0].Rules
}

// alertRow is the row of an alert in the document: name and severity.
var alertRow = regexp.MustCompile("(?m)^\\| `(Distmsg[A-Za-z]+)` \\| ([a-z]+) \\| [^|]+ \\| [^|]+ \\|$")

// Each alert has a scenario in which it fires, and a row in the document that says what to do.
func TestAlertsAreDocumented(t *testing.T) {
	said := make(map[string]string)
	for _, m := range alertRow.FindAllStringSubmatch(read(t, filepath.Join(root, operations)), -1) {
		said[m[1]] = m[2]
	}
	scenarios := read(t, filepath.Join(root, scenariosFile))
	for _, r := range alerts(t) {
		if said[r.Alert] != r.Labels.Severity {
			t.Errorf("%s is %s; %s says %q", r.Alert, r.Labels.Severity, operations, said[r.Alert])
		}
		delete(said, r.Alert)
		if r.Annotations.Summary == "" || r.Annotations.Description == "" {
			t.Errorf("%s says nothing to people", r.Alert)
		}
		if !strings.Contains(scenarios, `alertname="`+r.Alert+`", alertstate="firing"`) {
			t.Errorf("%s fires in no scenario of %s", r.Alert, scenariosFile)
		}
	}
	for name := range said {
		t.Errorf("%s has %s, which is no alert", operations, name)
	}
}

var (
	metricRow  = regexp.MustCompile("(?m)^\\| `(distmsg_[a-z_]+)` \\| ([a-z]+) \\|")
	metricName = regexp.MustCompile(`distmsg_[a-z_]+`)
	histogram  = regexp.MustCompile(`^(.*)_(bucket|sum|count)$`)
)

// unknownMetrics returns the metrics in an expression that the document does not have, or not as a
// histogram. A test in internal/admin compares the document with what a node exports.
func unknownMetrics(document, expr string) (unknown []string) {
	kinds := make(map[string]string)
	for _, m := range metricRow.FindAllStringSubmatch(document, -1) {
		kinds[m[1]] = m[2]
	}
	for _, name := range metricName.FindAllString(expr, -1) {
		m := histogram.FindStringSubmatch(name)
		if kind := kinds[name]; kind == "" && (m == nil || kinds[m[1]] != "histogram") || kind == "histogram" {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// Alerts and dashboard ask for metrics that a node has, of our job.
func TestMetricsExist(t *testing.T) {
	document := read(t, filepath.Join(root, operations))
	for _, r := range alerts(t) {
		if unknown := unknownMetrics(document, r.Expr); unknown != nil {
			t.Errorf("%s asks for %q, which %s does not have", r.Alert, unknown, operations)
		}
	}
	for _, p := range dashboard(t) {
		for _, target := range p.Targets {
			if unknown := unknownMetrics(document, target.Expr); unknown != nil {
				t.Errorf("the panel %q asks for %q, which %s does not have", p.Title, unknown, operations)
			}
			if !strings.Contains(target.Expr, `job="distmsg"`) {
				t.Errorf("the panel %q asks for all jobs: %s", p.Title, target.Expr)
			}
		}
	}
}

// The known-bad cases of unknownMetrics.
func TestUnknownMetricsAreFound(t *testing.T) {
	const document = "| `distmsg_ids` | gauge | – |\n| `distmsg_wait_seconds` | histogram | – |\n"
	got := unknownMetrics(document, "distmsg_ids + distmsg_idz + distmsg_ids_count + distmsg_wait_seconds + distmsg_wait_seconds_sum")
	if want := []string{"distmsg_idz", "distmsg_ids_count", "distmsg_wait_seconds"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// panel is a part of the dashboard.
type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr string }
}

func dashboard(t *testing.T) []panel {
	t.Helper()
	var file struct{ Panels []panel }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(root, dashboardFile))), &file); err != nil || len(file.Panels) == 0 {
		t.Fatalf("%d panels, %v", len(file.Panels), err)
	}
	return file.Panels
}

// No panel of the dashboard hides another, and each says what it shows. promtool can read what they
// ask for, with the variables of Grafana filled in.
func TestDashboard(t *testing.T) {
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	var exprs []string
	for _, p := range dashboard(t) {
		if ids[p.ID] || p.Title == "" || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
			t.Errorf("panel %d, %q: its number is not its own, or it does not say what it shows", p.ID, p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("the panel %q covers %q, or is too wide", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			exprs = append(exprs, strings.NewReplacer("$__rate_interval", "1m", "$instance", ".*").Replace(target.Expr))
		}
	}
	// promtool reads rules, not expressions: so a rule that records each of them.
	var rules []map[string]string
	for i, expr := range exprs {
		rules = append(rules, map[string]string{"record": fmt.Sprintf("panel:expr:%d", i), "expr": expr})
	}
	text, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "rules.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "promtool", "check", "rules", file)
}
