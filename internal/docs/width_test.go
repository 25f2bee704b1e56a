package docs

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	// maxColumns is where comments and Markdown wrap.
	maxColumns = 100
	// tabColumns is the width of a tab, as in our editors.
	tabColumns = 4
)

// columns returns the width of a line.
func columns(line string) (n int) {
	for _, r := range line {
		if r == '\t' {
			n += tabColumns - n%tabColumns
		} else {
			n++
		}
	}
	return n
}

// directive matches comments that are for tools.
var directive = regexp.MustCompile(`^//[a-z]+:`)

// wideComments returns the lines of a Go file that a comment makes too wide. Preformatted lines of
// a comment, directives and lines with a URL may be wider.
func wideComments(source []byte) (wide []string) {
	lines := strings.Split(string(source), "\n")
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(source))
	var s scanner.Scanner
	s.Init(file, source, nil, scanner.ScanComments)
	for {
		pos, kind, text := s.Scan()
		switch line := ""; {
		case kind == token.EOF:
			return wide
		case kind != token.COMMENT, strings.HasPrefix(text, "/*"), strings.HasPrefix(text, "//\t"):
		case directive.MatchString(text), strings.Contains(text, "://"):
		default:
			line = lines[file.Line(pos)-1]
			if columns(line) > maxColumns {
				wide = append(wide, line)
			}
		}
	}
}

// wideMarkdown returns the lines of a document that are too wide. Tables, code and lines with a URL
// or one long link may be wider.
func wideMarkdown(markdown string) (wide []string) {
	fenced := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, "\n")
		text := strings.TrimLeft(line, " ")
		switch {
		case strings.HasPrefix(text, "```"):
			fenced = !fenced
		case fenced, strings.HasPrefix(line, "    "), strings.HasPrefix(text, "|"), strings.HasPrefix(text, "<"):
		case strings.Contains(line, "://"), strings.Contains(line, "]("):
		case columns(line) > maxColumns:
			wide = append(wide, line)
		}
	}
	return wide
}

// Comments and Markdown wrap at maxColumns.
func TestWidth(t *testing.T) {
	comments, documents := 0, 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		switch {
		case d.IsDir() && path != root && (d.Name() == "node_modules" || d.Name() == "testdata" ||
			strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case filepath.Ext(path) == ".md":
			documents++
			for _, line := range wideMarkdown(read(t, path)) {
				t.Errorf("%s: wrap at %d columns: %s", name, maxColumns, line)
			}
		case filepath.Ext(path) == ".go":
			comments++
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, line := range wideComments(source) {
				t.Errorf("%s: wrap the comment at %d columns: %s", name, maxColumns, line)
			}
		}
		return nil
	})
	if err != nil || comments == 0 || documents == 0 {
		t.Fatalf("%d Go files and %d documents were read, %v", comments, documents, err)
	}
}

// The known-bad cases of TestWidth, and what it must let pass.
func TestWidthIsFound(t *testing.T) {
	long := strings.Repeat("long ", 20) // 100 columns with the space at its end
	source := "package p\n\n// " + long + "x\n//\t" + long + "x\n//go:generate " + long + "\n" +
		"const s = \"// " + long + "\"\n\tvar v int // " + long + "\n// fits\n// https://a.org/" + long + "\n"
	if got := wideComments([]byte(source)); len(got) != 2 {
		t.Errorf("%d comments are too wide, want 2: %q", len(got), got)
	}
	markdown := long + "x\n| " + long + " |\n```\n" + long + "x\n```\n    " + long + "x\nsee [it](it.md)" + long + "\nfits\n"
	if got := wideMarkdown(markdown); len(got) != 1 || !strings.HasPrefix(got[0], "long") {
		t.Errorf("lines that are too wide: %q, want the first", got)
	}
}
