// Package arrows holds the tests of how the packages of this module are cut. They import each other
// only along the arrows that docs/architecture.md draws. Each package stands in the tables of rooms
// there and in CONTRIBUTING.md. The tests read these tables, so the documents say what holds.
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
	"regexp"
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
	row     string   // of the table
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
				row:     line,
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
	found := openWalls(rooms)
	for _, p := range pkgs {
		path, _ := below(module, p.ImportPath)
		from := roomOf(rooms, path)
		switch _, inner := ownerOf(path); {
		case from == nil:
			found = append(found, path+" is in no room")
			continue
		case inner && !names(from.row, from.name, path):
			found = append(found, path+" has no row")
			continue
		}
		for _, imported := range p.Imports {
			path, ours := below(module, imported)
			if !ours {
				continue
			}
			to := roomOf(rooms, path)
			if to != nil && to != from && !mayImport(from, to) {
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

// mayImport returns whether an arrow leads from one room to another. A room that may import any
// other still needs an arrow of its own to an inner room.
func mayImport(from, to *room) bool {
	_, inner := ownerOf(to.name)
	return slices.Contains(from.imports, to.name) || !inner && slices.Contains(from.imports, anyRoom)
}

// ownerOf returns whose inner room path is: engine/internal/token is that of engine. inner is false
// for a package that is nobody's inner room.
func ownerOf(path string) (owner string, inner bool) {
	owner, _, inner = strings.Cut(path+"/", "/internal/")
	return owner, inner
}

// openWalls returns the arrows that no table may draw: from an inner room to its owner, and to the
// inner room of somebody else.
func openWalls(rooms []room) (found []string) {
	for _, from := range rooms {
		owner, inner := ownerOf(from.name)
		for _, to := range from.imports {
			theirs, wall := ownerOf(to)
			if inner && (to == owner || to == anyRoom) || wall && from.name != theirs && !strings.HasPrefix(from.name, theirs+"/") {
				found = append(found, fmt.Sprintf("%s may not have an arrow to %s", from.name, to))
			}
		}
	}
	return found
}

// names returns whether a row of a table names the package at path: in full, or below what the row
// is about.
func names(row, about, path string) bool {
	rest, below := strings.CutPrefix(path, about+"/")
	return strings.Contains(row, "`"+path+"`") || below && strings.Contains(row, "`"+rest+"`")
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

// unnamed returns the packages that no row of a table names.
func unnamed(rows map[string][]string, pkgs []string) (found []string) {
	for _, p := range pkgs {
		named := false
		for about, list := range rows {
			for _, row := range list {
				named = named || names(row, about, p)
			}
		}
		if !named {
			found = append(found, p)
		}
	}
	return found
}

// absent returns what rows are about although no package is there, or below it.
func absent(rows map[string][]string, pkgs []string) (found []string) {
	for about := range rows {
		if !slices.ContainsFunc(pkgs, func(p string) bool { return p == about || strings.HasPrefix(p, about+"/") }) {
			found = append(found, about)
		}
	}
	slices.Sort(found)
	return found
}

var quoted = regexp.MustCompile("`([^`]+)`")

// readPlaces finds the table whose header has the column "it belongs in". It returns its rows by
// the packages and directories that this column names.
func readPlaces(markdown string) map[string][]string {
	rows := make(map[string][]string)
	inside := false
	for line := range strings.Lines(markdown) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case strings.Contains(line, "| it belongs in |"):
			inside = true
		case len(cells) != 2:
			inside = false
		case inside:
			within := "" // names behind `cmd/…` are those of packages there
			for _, m := range quoted.FindAllStringSubmatch(cells[1], -1) {
				about, dir := strings.CutSuffix(m[1], "/…")
				if dir {
					within = about
				}
				if dir || within == "" && !strings.Contains(about, ".") {
					rows[about] = append(rows[about], line)
				}
			}
		}
	}
	return rows
}

// The tables of rooms name every package that there is, and none that there is not.
func TestTablesNameAll(t *testing.T) {
	root := filepath.Join("..", "..")
	var pkgs []string
	for _, dir := range []string{root, filepath.Join(root, "examples")} {
		all, err := list(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range all {
			path, _ := below("distmsg", p.ImportPath)
			pkgs = append(pkgs, path)
		}
	}
	for _, c := range []struct {
		document string
		rows     func(markdown string) map[string][]string
	}{
		{"docs/architecture.md", func(markdown string) map[string][]string {
			rooms, err := readRooms(markdown)
			if err != nil {
				t.Fatal(err)
			}
			rows := make(map[string][]string)
			for _, r := range rooms {
				rows[r.name] = append(rows[r.name], r.row)
			}
			return rows
		}},
		{"CONTRIBUTING.md", readPlaces},
	} {
		markdown, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(c.document)))
		if err != nil {
			t.Fatal(err)
		}
		rows := c.rows(string(markdown))
		for _, p := range unnamed(rows, pkgs) {
			t.Errorf("%s: its table of rooms does not name %s", c.document, p)
		}
		for _, about := range absent(rows, pkgs) {
			t.Errorf("%s: its table of rooms names %s, and no package is there", c.document, about)
		}
	}
}

// The known-bad case: a table that leaves two packages out, and names one that there is not.
func TestMissingNamesAreFound(t *testing.T) {
	rows := readPlaces("| the line is about | it belongs in |\n" +
		"| --- | --- |\n" +
		"| bytes | `codec`, and in `docs/x.md` first |\n" +
		"| flags | `cmd/…`: `relay` |\n" +
		"| dreams | `astrology` |\n" +
		"\n| `stray` | `stray` |\n")
	pkgs := []string{"codec", "codec/inner", "cmd/relay", "cmd/cluster", "stray"}
	if got, want := unnamed(rows, pkgs), []string{"codec/inner", "cmd/cluster", "stray"}; !slices.Equal(got, want) {
		t.Errorf("not named: %q, want %q", got, want)
	}
	if got, want := absent(rows, pkgs), []string{"astrology"}; !slices.Equal(got, want) {
		t.Errorf("not there: %q, want %q", got, want)
	}
}

// The known-bad case: a module that breaks each rule once.
func TestViolationsAreFound(t *testing.T) {
	rooms, err := readRooms("| room | asks | may import | never reaches |\n" +
		"| --- | --- | --- | --- |\n" +
		"| `codec` | what? | – | – |\n" +
		"| `engine` | when? | codec | `go-redis` |\n" +
		"| `engine/tool` | how? | any | – |\n" +
		"| `engine/internal/…` | what else? (`small`) | – | – |\n" +
		"| `engine/internal/keys` | whose? | codec | – |\n" +
		"| `engine/internal/locks` | where? | engine | – |\n" +
		"| `client` | who? | codec, engine/internal/keys | – |\n" +
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
		"client may not have an arrow to engine/internal/keys",
		"codec imports client/inner",
		"engine imports engine/internal/keys",
		"engine reaches example.org/go-redis",
		"engine/internal/keys imports engine/internal/locks",
		"engine/internal/locks may not have an arrow to engine",
		"engine/internal/stray has no row",
		"engine/tool imports engine/internal/keys",
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
