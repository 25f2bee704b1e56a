package conformance

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestSections: each section that a verdict can name is a heading of the page that it points to.
func TestSections(t *testing.T) {
	source := readFile(t, "play.go")
	found := regexp.MustCompile(`(?m)^\t(?:sec\w+|contractSection) += "([^"]+)"`).FindAllStringSubmatch(source, -1)
	if len(found) < 20 {
		t.Fatalf("play.go has %d sections", len(found))
	}
	for _, m := range found {
		page, _, _ := strings.Cut(anchor(m[1]), "#")
		if !regexp.MustCompile(`(?m)^#+ ` + regexp.QuoteMeta(m[1]) + `$`).MatchString(readFile(t, "../../"+page)) {
			t.Errorf("%s has no heading %q", page, m[1])
		}
	}
}

// TestDocument: the page lists each scenario with the words of --list, each instruction and each
// report.
func TestDocument(t *testing.T) {
	page := readFile(t, "../../docs/conformance.md")
	for _, s := range Scenarios() {
		if !strings.Contains(page, "| `"+s.Name+"` | "+s.About+" |") {
			t.Errorf("the page does not say: | `%s` | %s |", s.Name, s.About)
		}
	}
	for _, word := range []string{doSend, doPost, doMulticast, doBind, doBindNew, doUnbind, doWatch, doBye,
		saysOutcome, saysBound, saysUnbound, saysKicked, saysPresence, saysCannot} {
		if !regexp.MustCompile("(?m)^\\| `" + word + "\\b").MatchString(page) {
			t.Errorf("the page has no row for %s", word)
		}
	}
	for _, name := range []string{NodeVariable, ScenarioVariable} {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("the page does not name %s", name)
		}
	}
}
