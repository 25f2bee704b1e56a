package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logging are the directories whose lines a node logs, with those below them.
func logging() []string {
	return []string{
		"engine", "discovery", "routing", "cmd/relay", "internal/admin", "internal/identity", "internal/certs", "internal/asynclog", "internal/callback",
	}
}

// logLines returns the messages of records at the levels info, warn and error, and all texts of the
// code, as far as they stand in string literals.
func logLines(t *testing.T, root string) (messages map[string]string, texts []string) {
	t.Helper()
	messages = make(map[string]string)
	for _, dir := range logging() {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "test/") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					texts = append(texts, text(n))
				case *ast.CallExpr:
					if m := message(n); m != "" {
						messages[m] = path
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return messages, texts
}

// message returns the message of a call that logs it, or "".
func message(call *ast.CallExpr) string {
	f, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !slices.Contains([]string{"Info", "Warn", "Error", "Complain", "complain", "warn"}, f.Sel.Name) {
		return ""
	}
	if x, ok := f.X.(*ast.Ident); ok && x.Name == "http" {
		return ""
	}
	for _, at := range []int{0, 2} { // asynclog.Seldom has a logger and the time before the message
		if at < len(call.Args) {
			if lit, ok := call.Args[at].(*ast.BasicLit); ok {
				return text(lit)
			}
		}
	}
	return ""
}

func text(lit *ast.BasicLit) string {
	if lit.Kind != token.STRING {
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

// loggedRows returns the lines that the table of the log in a document names, with what to do.
func loggedRows(markdown string) map[string]string {
	rows := make(map[string]string)
	_, part, _ := strings.Cut(markdown, "\n## The log\n")
	part, _, _ = strings.Cut(part, "\n## ")
	for line := range strings.Lines(part) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if name, ok := strings.CutPrefix(cells[0], "| `"); ok && len(cells) == 3 {
			rows[strings.TrimSuffix(name, "`")] = cells[2]
		}
	}
	return rows
}

// The table of the log names each line that a node logs at the levels info, warn and error, and
// none that there is not.
func TestLogLines(t *testing.T) {
	root := filepath.Join("..", "..")
	messages, texts := logLines(t, root)
	markdown, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := loggedRows(string(markdown))
	if len(messages) < 30 || len(rows) < 30 {
		t.Errorf("%d lines in the code, %d in the table: the test reads them wrongly", len(messages), len(rows))
	}
	for _, m := range slices.Sorted(maps.Keys(messages)) {
		if _, ok := rows[m]; !ok {
			t.Errorf("%s logs %q, and docs/operations.md does not say what to do", messages[m], m)
		}
	}
	for row, do := range rows {
		if !slices.ContainsFunc(texts, func(s string) bool { return strings.HasPrefix(s, row) }) {
			t.Errorf("docs/operations.md has the line %q, which nothing logs", row)
		}
		if strings.Trim(do, " |") == "" {
			t.Errorf("docs/operations.md does not say what to do about %q", row)
		}
	}
}
