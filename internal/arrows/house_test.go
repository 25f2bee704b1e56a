package arrows

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// house says how large a type and a file may become (CONTRIBUTING.md, What a change has to keep).
// What is larger has several subjects and is cut.
type house struct {
	methods int // of a type, without those in tests
	lines   int // of a file, tests included
}

// tooLarge returns which types and files below dir are larger than that.
func (h house) tooLarge(dir string) (found []string, err error) {
	methods := make(map[string]int) // by directory and type
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != dir && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case filepath.Ext(path) != ".go":
			return nil
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			return err
		}
		if n := files.File(file.Pos()).LineCount(); n > h.lines {
			found = append(found, fmt.Sprintf("%s has %d lines, and may have %d", filepath.ToSlash(name), n, h.lines))
		}
		for _, d := range file.Decls {
			if strings.HasSuffix(name, "_test.go") {
				break
			}
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv != nil {
				methods[filepath.ToSlash(filepath.Dir(name))+"."+baseName(f.Recv.List[0].Type)]++
			}
		}
		return nil
	})
	for name, n := range methods {
		if n > h.methods {
			found = append(found, fmt.Sprintf("%s has %d methods, and may have %d", name, n, h.methods))
		}
	}
	slices.Sort(found)
	return found, err
}

// baseName returns the name of the type of a receiver.
func baseName(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return baseName(t.X)
	case *ast.IndexExpr: // of a generic type
		return baseName(t.X)
	case *ast.IndexListExpr:
		return baseName(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

func TestHouseRules(t *testing.T) {
	found, err := house{methods: 60, lines: 600}.tooLarge(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error(f)
	}
}

// The known-bad case: a type and a file that are larger than a small house allows.
func TestLargeThingsAreFound(t *testing.T) {
	dir := filepath.Join("testdata", "house")
	got, err := house{methods: 2, lines: 22}.tooLarge(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"large.go has 23 lines, and may have 22", "rooms.many has 3 methods, and may have 2"}
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if got, err := (house{methods: 3, lines: 23}).tooLarge(dir); err != nil || len(got) > 0 {
		t.Errorf("found %q, %v where nothing is too large", got, err)
	}
}
