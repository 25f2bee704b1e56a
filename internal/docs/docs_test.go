// Package docs tests what our documents say: their links lead somewhere, the README's Go code is
// code that runs, and the engine takes its locks in the order that its documentation gives.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

var (
	// a colon: another site
	link    = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)|src(?:set)?="([^":]+)"`)
	goBlock = regexp.MustCompile("(?s)```go\n(.*?)```")
)

// deadLinks returns the links of a document that lead to no file.
func deadLinks(dir, markdown string) []string {
	var dead []string
	for _, m := range link.FindAllStringSubmatch(markdown, -1) {
		target := m[1] + m[2]
		if _, err := os.Stat(filepath.Join(dir, target)); err != nil {
			dead = append(dead, target)
		}
	}
	return dead
}

// foreignCode returns the Go code blocks of a document that are in none of the programs,
// indentation aside.
func foreignCode(markdown string, programs ...string) []string {
	var foreign []string
	for _, m := range goBlock.FindAllStringSubmatch(markdown, -1) {
		if !slices.ContainsFunc(programs, func(p string) bool { return strings.Contains(flat(p), flat(m[1])) }) {
			foreign = append(foreign, m[1])
		}
	}
	return foreign
}

func flat(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinks(t *testing.T) {
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			for _, target := range deadLinks(filepath.Dir(path), read(t, path)) {
				t.Errorf("%s: no file %s", path, target)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The Go code of the README is that of the examples beside this test.
func TestReadmeCode(t *testing.T) {
	readme := read(t, filepath.Join(root, "README.md"))
	if !goBlock.MatchString(readme) {
		t.Error("the README has no Go code")
	}
	for _, code := range foreignCode(readme, read(t, "example_test.go")) {
		t.Errorf("not in example_test.go:\n%s", code)
	}
}

// The known-bad cases.
func TestFaultsAreFound(t *testing.T) {
	got := deadLinks(".", "[a](docs_test.go) [b](nowhere.md#top) [c](https://example.org/x) [d](#here) <img src=\"no.svg\">")
	if want := []string{"nowhere.md", "no.svg"}; !slices.Equal(got, want) {
		t.Errorf("dead links %q, want %q", got, want)
	}
	code := "```go\nf()\n\tg()\n```\n and ```go\nh()\n```\n"
	if got := foreignCode(code, "\tf()\n\t\tg()\n"); !slices.Equal(got, []string{"h()\n"}) {
		t.Errorf("foreign code %q, want h()", got)
	}
}
