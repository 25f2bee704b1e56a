package docs

import (
	"go/ast"
	"go/token"
	"maps"
	"slices"
)

// lockWalk goes through the statements of a function and knows which locks are held.
type lockWalk struct {
	reader *lockReader
	fn     *lockFunc
	later  map[*ast.FuncLit]bool // literals that are not called where they stand
}

// held are locks, each with the place where it was taken.
type held map[string]bool

// block walks statements that follow each other. It returns what is held behind them, and whether
// the last one leaves the block for good.
func (w *lockWalk) block(list []ast.Stmt, h held) (after held, leaves bool) {
	h = maps.Clone(h)
	if h == nil {
		h = make(held)
	}
	for _, s := range list {
		if h, leaves = w.stmt(s, h); leaves {
			return h, true
		}
	}
	return h, false
}

func (w *lockWalk) stmt(s ast.Stmt, h held) (after held, leaves bool) {
	switch s := s.(type) {
	case *ast.BlockStmt:
		return w.block(s.List, h)
	case *ast.LabeledStmt:
		return w.stmt(s.Stmt, h)
	case *ast.IfStmt:
		return w.branch(h, s.Init, s.Cond, s.Body, s.Else)
	case *ast.ForStmt:
		return w.loop(h, s.Body, s.Init, s.Cond, s.Post)
	case *ast.RangeStmt:
		return w.loop(h, s.Body, nil, s.X, nil)
	case *ast.SwitchStmt:
		return w.cases(h, s.Body, s.Init, s.Tag)
	case *ast.TypeSwitchStmt:
		return w.cases(h, s.Body, s.Init, s.Assign)
	case *ast.SelectStmt:
		return w.cases(h, s.Body)
	case *ast.ReturnStmt:
		w.look(s, h)
		return h, true
	case *ast.BranchStmt:
		return h, s.Tok != token.FALLTHROUGH
	case *ast.GoStmt:
		if lit, ok := s.Call.Fun.(*ast.FuncLit); ok {
			w.apart(lit)
		}
		for _, arg := range s.Call.Args {
			w.look(arg, h)
		}
		return h, false
	case *ast.DeferStmt:
		if _, method := w.reader.lockOf(s.Call); method == "" { // else it is held to the end
			w.look(s.Call, h)
		}
		return h, false
	}
	return w.look(s, h), false
}

// apart walks a literal that is not called where it stands: a function of its own.
func (w *lockWalk) apart(lit *ast.FuncLit) {
	own := w.reader.newFunc(w.reader.place(lit.Pos()))
	own.block(lit.Body.List, nil)
}

func (w *lockWalk) branch(h held, init ast.Stmt, cond ast.Expr, body *ast.BlockStmt, otherwise ast.Stmt) (held, bool) {
	if init != nil {
		h, _ = w.stmt(init, h)
	}
	h = w.look(cond, h)
	then, gone := w.block(body.List, h)
	other, otherGone := h, false
	if otherwise != nil {
		other, otherGone = w.stmt(otherwise, maps.Clone(h))
	}
	switch {
	case gone:
		return other, otherGone
	case otherGone:
		return then, false
	}
	return union(then, other), false
}

func (w *lockWalk) loop(h held, body *ast.BlockStmt, parts ...ast.Node) (held, bool) {
	for _, p := range parts {
		if p != nil {
			h = w.look(p, h)
		}
	}
	after, _ := w.block(body.List, h)
	w.block(body.List, after) // again, with what the first round has left
	return union(h, after), false
}

func (w *lockWalk) cases(h held, body *ast.BlockStmt, parts ...ast.Node) (held, bool) {
	for _, p := range parts {
		if p != nil {
			h = w.look(p, h)
		}
	}
	after, all := maps.Clone(h), false
	for _, c := range body.List {
		var list []ast.Stmt
		switch c := c.(type) {
		case *ast.CaseClause:
			for _, e := range c.List {
				w.look(e, h)
			}
			list, all = c.Body, all || c.List == nil
		case *ast.CommClause:
			if c.Comm != nil {
				w.look(c.Comm, h)
			}
			list, all = c.Body, true
		}
		if behind, leaves := w.block(list, h); !leaves {
			after = union(after, behind)
		}
	}
	return after, false
}

func union(a, b held) held {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// look goes through the calls in a statement or expression in the order of the text. It returns
// what is held behind them.
func (w *lockWalk) look(n ast.Node, h held) held {
	h = maps.Clone(h)
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			if w.later[n] {
				w.apart(n)
			} else {
				w.block(n.Body.List, h)
			}
			return false
		case *ast.CallExpr:
			switch lock, method := w.reader.lockOf(n); method {
			case "Lock", "RLock", "TryLock":
				for outer := range h {
					w.fn.under[[2]string{outer, lock}] = n.Pos()
				}
				w.fn.takes[lock], h[lock] = true, true
			case "Unlock", "RUnlock":
				delete(h, lock)
			default:
				for i, arg := range n.Args {
					if lit, ok := arg.(*ast.FuncLit); ok {
						w.later[lit] = !w.reader.runsArg(n, i)
					}
				}
				names := w.reader.callees(n)
				w.fn.calls = append(w.fn.calls, lockCall{names: names, held: slices.Collect(maps.Keys(h)), at: n.Pos()})
			}
		}
		return true
	})
	return h
}
