package docs

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"distmsg/loadtest/report"
	"distmsg/loadtest/result"
)

// update is given as: go test ./internal/docs -run TestFigures -update
var update = flag.Bool("update", false, "write the tables of benchmarks.md from docs/figures")

// measured returns what loadtest compare measured.
func measured(t *testing.T) *result.Standing {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "docs/figures/compare.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s result.Standing
	if err := json.Unmarshal(data, &s); err != nil || s.Schema != result.SchemaStanding {
		t.Fatalf("compare.json has the schema %q: %v", s.Schema, err)
	}
	return &s
}

// TestFigures compares the tables and the picture of benchmarks.md with what loadtest compare
// measured.
func TestFigures(t *testing.T) {
	s := measured(t)
	var tables, picture bytes.Buffer
	if err := s.WriteMarkdown(&tables); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteSVG(&picture, s); err != nil {
		t.Fatal(err)
	}
	compareFile(t, "docs/figures/compare.svg", func(string) string { return picture.String() })
	compareFile(t, "docs/benchmarks.md", func(page string) string {
		before, rest, found := strings.Cut(page, "<!-- compare: written by TestFigures -->\n")
		_, after, ended := strings.Cut(rest, "<!-- end of compare -->")
		if !found || !ended {
			t.Fatal("benchmarks.md has no place for the tables")
		}
		return before + "<!-- compare: written by TestFigures -->\n" + tables.String() + "<!-- end of compare -->" + after
	})
}

// compareFile compares a file with what it should be, or makes it so.
func compareFile(t *testing.T, name string, want func(is string) string) {
	t.Helper()
	path := filepath.Join(root, name)
	is, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	should := want(string(is))
	switch {
	case should == string(is):
	case *update:
		if err := os.WriteFile(path, []byte(should), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is not what compare.json says: go test ./internal/docs -run TestFigures -update", name)
	}
}
