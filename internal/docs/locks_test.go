package docs

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The order of locks that the engine's documentation gives is the one that its code keeps.
//
// The test reads the code, and does not run it. It knows a lock by its field, as inbox.mu, and not
// by its value. It follows calls of functions and methods, and calls through an interface to all
// types of the engine that have its methods. A function literal counts as called where it stands,
// unless it stands behind go, or is given to a function that does not call it itself. Other calls
// through function values the test does not see.

// lockReader finds which locks are taken under which.
type lockReader struct {
	fset  *token.FileSet
	info  *types.Info
	home  string // the package whose locks are named without it
	funcs map[string]*lockFunc
	types map[string]map[string]bool // the methods of each named type, by its full name
	locks map[*types.Var]string      // the names of all
	runs  map[string]map[int]bool    // which of its arguments a function calls
}

// lockFunc is one function: what it takes itself, and what it calls.
type lockFunc struct {
	takes map[string]bool
	calls []lockCall
	under map[[2]string]token.Pos // the second was taken while the first was held
	all   map[string]bool         // what it takes by itself and by what it calls
}

// lockCall is one call, with the locks that are held meanwhile.
type lockCall struct {
	names []string // of the functions that it may be
	held  []string
	at    token.Pos
}

// lockOrder returns the pairs of locks (outer, inner) of the packages that match the patterns, seen
// from dir, with a place for each pair, and all locks that there are.
func lockOrder(dir, home string, patterns ...string) (pairs map[[2]string]string, locks []string, err error) {
	exports, pkgs, err := listExports(dir, patterns...)
	if err != nil {
		return nil, nil, err
	}
	r := &lockReader{fset: token.NewFileSet(), home: home, funcs: make(map[string]*lockFunc),
		types: make(map[string]map[string]bool), locks: make(map[*types.Var]string),
		runs: make(map[string]map[int]bool)}
	imports := importer.ForCompiler(r.fset, "gc", func(path string) (io.ReadCloser, error) {
		return os.Open(exports[path])
	})
	for _, p := range pkgs {
		if err := r.read(p, imports); err != nil {
			return nil, nil, err
		}
	}
	return r.pairs(), slices.Collect(maps.Values(r.locks)), nil
}

// exported is what go list says of a package.
type exported struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

func listExports(dir string, patterns ...string) (exports map[string]string, own []exported, err error) {
	const fields = "-json=ImportPath,Dir,Export,GoFiles,DepOnly"
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", fields}, patterns...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off") // the known-bad module is in no workspace
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, nil, fmt.Errorf("go list: %w: %s", err, stderr.Bytes())
	}
	exports = make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p exported
		switch err := d.Decode(&p); {
		case err == io.EOF:
			return exports, own, nil
		case err != nil:
			return nil, nil, err
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			own = append(own, p)
		}
	}
}

// read takes in the functions and types of one package.
func (r *lockReader) read(p exported, imports types.Importer) error {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(r.fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	r.info = &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object),
		Selections: make(map[*ast.SelectorExpr]*types.Selection), Types: make(map[ast.Expr]types.TypeAndValue)}
	pkg, err := (&types.Config{Importer: imports}).Check(p.ImportPath, r.fset, files, r.info)
	if err != nil {
		return err
	}
	for _, name := range pkg.Scope().Names() {
		r.readType(pkg.Scope().Lookup(name))
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				r.readRuns(d)
			}
		}
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if d, ok := d.(*ast.FuncDecl); ok && d.Body != nil {
				r.newFunc(r.info.Defs[d.Name].(*types.Func).FullName()).block(d.Body.List, nil)
			}
		}
	}
	return nil
}

// newFunc begins to read the function of that name.
func (r *lockReader) newFunc(name string) *lockWalk {
	fn := &lockFunc{takes: make(map[string]bool), under: make(map[[2]string]token.Pos)}
	r.funcs[name] = fn
	return &lockWalk{reader: r, fn: fn, later: make(map[*ast.FuncLit]bool)}
}

// readRuns notes which of its arguments a function calls before it returns.
func (r *lockReader) readRuns(d *ast.FuncDecl) {
	fn := r.info.Defs[d.Name].(*types.Func)
	runs := make(map[int]bool)
	ast.Inspect(d.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit, *ast.GoStmt:
			return false
		case *ast.CallExpr:
			if id, ok := n.Fun.(*ast.Ident); ok {
				for i := range fn.Signature().Params().Len() {
					runs[i] = runs[i] || r.info.Uses[id] == fn.Signature().Params().At(i)
				}
			}
		}
		return true
	})
	r.runs[fn.FullName()] = runs
}

// runsArg returns whether the function that a call calls itself calls its argument i.
func (r *lockReader) runsArg(call *ast.CallExpr, i int) bool {
	names := r.callees(call)
	if len(names) == 0 {
		return false
	}
	for _, p := range []string{"slices.", "maps.", "sort.", "(*sync.Once)."} {
		if strings.HasPrefix(names[0], p) {
			return true
		}
	}
	return slices.ContainsFunc(r.resolve(names[0]), func(name string) bool { return r.runs[name][i] })
}

// readType notes the locks among the fields of a type, and its methods.
func (r *lockReader) readType(obj types.Object) {
	named, ok := obj.Type().(*types.Named)
	if _, isType := obj.(*types.TypeName); !ok || !isType {
		return
	}
	if s, ok := named.Underlying().(*types.Struct); ok {
		for i := range s.NumFields() {
			if isMutex(s.Field(i).Type()) {
				r.locks[s.Field(i)] = r.lockName(named, s.Field(i).Name())
			}
		}
	}
	methods := make(map[string]bool)
	for set, i := types.NewMethodSet(types.NewPointer(named)), 0; i < set.Len(); i++ {
		methods[set.At(i).Obj().Name()] = true
	}
	r.types[named.Obj().Pkg().Path()+"."+named.Obj().Name()] = methods
}

func isMutex(t types.Type) bool {
	named, ok := types.Unalias(t).(*types.Named)
	return ok && named.Obj().Pkg() != nil && named.Obj().Pkg().Path() == "sync" &&
		(named.Obj().Name() == "Mutex" || named.Obj().Name() == "RWMutex")
}

// lockName is how the documentation calls a lock: Engine.fenceMu, peers.Members.mu.
func (r *lockReader) lockName(owner *types.Named, field string) string {
	name := owner.Obj().Name() + "." + field
	if p := owner.Obj().Pkg(); p.Path() != r.home {
		return p.Name() + "." + name
	}
	return name
}

// lockOf returns the lock that a call locks or unlocks.
func (r *lockReader) lockOf(call *ast.CallExpr) (lock, method string) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !isMutex(deref(r.info.TypeOf(sel.X))) {
		return "", ""
	}
	if field, ok := sel.X.(*ast.SelectorExpr); ok {
		if f, ok := r.info.Uses[field.Sel].(*types.Var); ok {
			return r.locks[f.Origin()], sel.Sel.Name
		}
	}
	return "", "" // a variable of a function
}

func deref(t types.Type) types.Type {
	if t == nil {
		return nil
	}
	t = types.Unalias(t)
	if p, ok := t.(*types.Pointer); ok {
		t = types.Unalias(p.Elem())
	}
	return t
}

// callees returns the full names of the functions that a call may be.
func (r *lockReader) callees(call *ast.CallExpr) []string {
	var id *ast.Ident
	switch f := ast.Unparen(call.Fun).(type) {
	case *ast.Ident:
		id = f
	case *ast.SelectorExpr:
		id = f.Sel
	default:
		return nil
	}
	fn, ok := r.info.Uses[id].(*types.Func)
	if !ok {
		return nil
	}
	fn = fn.Origin()
	recv := fn.Signature().Recv()
	if recv == nil {
		return []string{fn.FullName()}
	}
	if face, ok := recv.Type().Underlying().(*types.Interface); ok {
		return []string{"interface " + methodNames(face) + " " + fn.Name()}
	}
	return []string{fn.FullName()}
}

func methodNames(face *types.Interface) string {
	var names []string
	for m := range face.Methods() {
		names = append(names, m.Name())
	}
	return strings.Join(names, ",")
}

// resolve turns the name of a call through an interface into those of the methods that it may be.
func (r *lockReader) resolve(name string) []string {
	rest, ok := strings.CutPrefix(name, "interface ")
	if !ok {
		return []string{name}
	}
	need, method, _ := strings.Cut(rest, " ")
	var all []string
	for t, methods := range r.types {
		if !slices.ContainsFunc(strings.Split(need, ","), func(m string) bool { return !methods[m] }) {
			all = append(all, "(*"+t+")."+method, "("+t+")."+method)
		}
	}
	return all
}

// pairs adds what callees take to what their callers hold.
func (r *lockReader) pairs() map[[2]string]string {
	for _, f := range r.funcs {
		f.all = maps.Clone(f.takes)
	}
	for changed := true; changed; {
		changed = false
		for _, f := range r.funcs {
			n := len(f.all)
			r.eachCallee(f, func(_ lockCall, callee *lockFunc) { maps.Copy(f.all, callee.all) })
			changed = changed || len(f.all) > n
		}
	}
	pairs := make(map[[2]string]string)
	for _, f := range r.funcs {
		add := func(p [2]string, at token.Pos) {
			if place := r.place(at); pairs[p] == "" || place < pairs[p] {
				pairs[p] = place
			}
		}
		for p, at := range f.under {
			add(p, at)
		}
		r.eachCallee(f, func(c lockCall, callee *lockFunc) {
			for _, outer := range c.held {
				for inner := range callee.all {
					add([2]string{outer, inner}, c.at)
				}
			}
		})
	}
	return pairs
}

func (r *lockReader) place(at token.Pos) string {
	p := r.fset.Position(at)
	return fmt.Sprintf("%s:%d", filepath.Base(p.Filename), p.Line)
}

func (r *lockReader) eachCallee(f *lockFunc, yield func(lockCall, *lockFunc)) {
	for _, c := range f.calls {
		for _, name := range c.names {
			for _, name := range r.resolve(name) {
				if callee := r.funcs[name]; callee != nil {
					yield(c, callee)
				}
			}
		}
	}
}

var lockLine = regexp.MustCompile(`(?m)^//\t([\w.]+) > ([\w., ]+)$`)

// documentedOrder reads the lines "outer > inner, inner" of a package's documentation.
func documentedOrder(doc string) map[[2]string]bool {
	order := make(map[[2]string]bool)
	for _, m := range lockLine.FindAllStringSubmatch(doc, -1) {
		for inner := range strings.SplitSeq(m[2], ",") {
			order[[2]string{m[1], strings.TrimSpace(inner)}] = true
		}
	}
	return order
}

// lockFaults returns what is wrong about the order that code keeps and its documentation.
func lockFaults(doc string, pairs map[[2]string]string, locks []string) (faults []string) {
	order := documentedOrder(doc)
	for p, at := range pairs {
		if !order[p] {
			faults = append(faults, fmt.Sprintf("%s: %s is taken under %s, and the documentation does not say so", at, p[1], p[0]))
		}
	}
	for p := range order {
		if pairs[p] == "" {
			faults = append(faults, fmt.Sprintf("%s is never taken under %s", p[1], p[0]))
		}
	}
	if circle := inCircle(order); len(circle) > 0 {
		faults = append(faults, "the order goes in a circle: "+strings.Join(circle, ", "))
	}
	for _, l := range locks {
		if !regexp.MustCompile(`(^|[^\w.])` + regexp.QuoteMeta(l) + `($|\W)`).MatchString(doc) {
			faults = append(faults, "the documentation does not name "+l)
		}
	}
	slices.Sort(faults)
	return slices.Compact(faults)
}

// inCircle returns the locks that an order leaves without a place.
func inCircle(order map[[2]string]bool) []string {
	left := maps.Clone(order)
	for n := -1; n != len(left); {
		n = len(left)
		outer, inner := make(map[string]bool), make(map[string]bool)
		for p := range left {
			outer[p[0]], inner[p[1]] = true, true
		}
		maps.DeleteFunc(left, func(p [2]string, _ bool) bool { return !inner[p[0]] || !outer[p[1]] })
	}
	var all []string
	for p := range left {
		all = append(all, p[0], p[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func TestLockOrder(t *testing.T) {
	pairs, locks, err := lockOrder(root, "distmsg/engine", "./engine/...")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range lockFaults(read(t, filepath.Join(root, "engine", "doc.go")), pairs, locks) {
		t.Errorf("engine/doc.go, Locks: %s", f)
	}
	if len(locks) < 10 || len(pairs) < 5 { // it would pass if it found nothing
		t.Errorf("%d locks and %d pairs were found", len(locks), len(pairs))
	}
}

// The known-bad case: each way of taking a lock under another one, and a documentation that is
// wrong.
func TestLockFaultsAreFound(t *testing.T) {
	pairs, locks, err := lockOrder(filepath.Join("testdata", "locks"), "locks", "./...")
	if err != nil {
		t.Fatal(err)
	}
	got := lockFaults(read(t, filepath.Join("testdata", "locks", "locks.go")), pairs, locks)
	want := []string{
		"c.mu is never taken under b.mu",
		"locks.go:49: d.mu is taken under c.mu, and the documentation does not say so",
		"locks.go:65: d.mu is taken under d.other, and the documentation does not say so",
		"the documentation does not name d.other",
		"the order goes in a circle: a.mu, b.mu",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found %q,\nwant  %q", got, want)
	}
}
