// Package arrows holds one test: that our packages import each other only along the arrows which
// docs/architecture.md draws. The table there is what the test reads, so the document cannot say
// anything else than what holds.
package arrows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// room is one line of the table: a package of this module, with all those below it that have no
// line of their own.
type room struct {
	name    string   // path below the module, "cmd" for all of cmd/…
	imports []string // rooms that it may import; anyRoom: all
	never   []string // what it may not depend on, not even through others: parts of import paths
}

const anyRoom = "any"

// readRooms finds the table whose header has these columns:
//
//	| room | … | may import | never reaches |
func readRooms(markdown string) ([]room, error) {
	var columns map[string]int
	var rooms []room
	for line := range strings.Lines(markdown) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case slices.Contains(cells, "room") && slices.Contains(cells, "may import") && slices.Contains(cells, "never reaches"):
			columns = make(map[string]int)
			for i, c := range cells {
				columns[c] = i
			}
		case columns == nil || strings.HasPrefix(cells[0], "---"):
		case len(cells) != len(columns):
			return rooms, nil
		default:
			rooms = append(rooms, room{
				name:    strings.TrimSuffix(strings.Trim(cells[columns["room"]], "`"), "/…"),
				imports: words(cells[columns["may import"]]),
				never:   words(cells[columns["never reaches"]]),
			})
		}
	}
	if len(rooms) == 0 {
		return nil, errors.New("no table of rooms")
	}
	return rooms, nil
}

func words(cell string) []string {
	if cell == "–" {
		return nil
	}
	all := strings.Split(cell, ",")
	for i := range all {
		all[i] = strings.Trim(all[i], " `")
	}
	return all
}

// listed is what go list says of a package.
type listed struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func list(dir string) ([]listed, error) {
	if err := touch(dir); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off") // the known-bad module is in no workspace
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.Bytes())
	}
	var pkgs []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		switch err := d.Decode(&p); {
		case err == io.EOF:
			return pkgs, nil
		case err != nil:
			return nil, err
		}
		pkgs = append(pkgs, p)
	}
}

// touch reads the directories below dir, so that go test does not answer from its cache when a file
// in them has changed: it sees what a test opens, not what a go list that was started by it opens.
func touch(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != dir && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")) {
			return filepath.SkipDir
		}
		return err
	})
}

// violations checks the module in dir, whose packages are seen from the module that is named, tests
// left aside: they may import what they like.
func violations(dir, module string, rooms []room) ([]string, error) {
	pkgs, err := list(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, p := range pkgs {
		path, _ := below(module, p.ImportPath)
		from := roomOf(rooms, path)
		if from == nil {
			found = append(found, path+" is in no room")
			continue
		}
		for _, imported := range p.Imports {
			path, ours := below(module, imported)
			if !ours {
				continue
			}
			to := roomOf(rooms, path)
			if to != nil && to != from && !slices.Contains(from.imports, to.name) && !slices.Contains(from.imports, anyRoom) {
				found = append(found, fmt.Sprintf("%s imports %s", from.name, path))
			}
		}
		for _, dep := range p.Deps {
			for _, never := range from.never {
				if strings.Contains(dep, never) {
					found = append(found, fmt.Sprintf("%s reaches %s", from.name, dep))
				}
			}
		}
	}
	return found, nil
}

// below returns path without module in front; ours is false for other modules' packages.
func below(module, path string) (rest string, ours bool) {
	return strings.CutPrefix(path, module+"/")
}

// roomOf finds the room with the longest name that path is in.
func roomOf(rooms []room, path string) *room {
	var best *room
	for i := range rooms {
		r := &rooms[i]
		if (path == r.name || strings.HasPrefix(path, r.name+"/")) && (best == nil || len(r.name) > len(best.name)) {
			best = r
		}
	}
	return best
}

func TestArrows(t *testing.T) {
	root := filepath.Join("..", "..")
	markdown, err := os.ReadFile(filepath.Join(root, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	rooms, err := readRooms(string(markdown))
	if err != nil {
		t.Fatal(err)
	}
	for name, never := range map[string][]string{"engine": {"go-redis", "go-zookeeper"}, "client": {"go-redis", "go-zookeeper", "gnet"}} {
		r := roomOf(rooms, name)
		if r == nil || r.name != name || !slices.Equal(r.never, never) {
			t.Errorf("the table does not say that %s never reaches %v: %+v", name, never, r)
		}
	}
	for _, dir := range []string{root, filepath.Join(root, "examples")} {
		found, err := violations(dir, "distmsg", rooms)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			t.Error(v)
		}
	}
}

// The known-bad case: a module that breaks each rule once.
func TestViolationsAreFound(t *testing.T) {
	rooms, err := readRooms("| room | asks | may import | never reaches |\n" +
		"| --- | --- | --- | --- |\n" +
		"| `codec` | what? | – | – |\n" +
		"| `engine` | when? | codec | `go-redis` |\n" +
		"| `client` | who? | codec | – |\n" +
		"\n| `stray` | not of | this | table |\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := violations(filepath.Join("testdata", "bad"), "bad", rooms)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"client imports engine",
		"codec imports client/inner",
		"engine reaches example.org/go-redis",
		"stray is in no room",
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	if rooms, err := readRooms("no table"); err == nil {
		t.Errorf("read %v out of no table", rooms)
	}
}
