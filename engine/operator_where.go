package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/query"
	"distmsg/routing"
)

// MaxAskedIDs bounds the IDs of one question, and those that one call of Operator.Watch watches.
const MaxAskedIDs = 100

// Where asks the registry who holds IDs, and all nodes what they believe. A node that does not
// answer is in Missing. If the registry does not answer, the state of the IDs is unknown.
func (o *Operator) Where(ctx context.Context, ids []string) (Asked[WhereInfo], error) {
	none := Asked[WhereInfo]{Answers: []WhereInfo{}, Missing: []MissingNode{}}
	if err := checkIDs(ids); err != nil {
		return none, err
	}
	if !o.eng.running.Load() {
		return none, errNotRunning
	}
	ctx, cancel := inTime(ctx)
	defer cancel()
	held := make(chan []directory.Holding, 1)
	go func() {
		all, err := directory.NewInquiry(o.eng.dir).Holdings(ctx, ids)
		if err != nil {
			all = make([]directory.Holding, len(ids))
			for i := range all {
				all[i].Found.Unknown = true
			}
		}
		held <- all
	}()
	beliefs, err := askAll[Belief](ctx, o.eng, askBelieves, believesArgs{ids})
	if err != nil {
		return none, err
	}
	var holdings []directory.Holding
	select {
	case holdings = <-held:
	case <-ctx.Done(): // the registry ignores its context
		return none, ctx.Err()
	}
	all := Asked[WhereInfo]{Answers: make([]WhereInfo, len(ids)), Missing: beliefs.Missing}
	for i, id := range ids {
		all.Answers[i] = whereOf(id, &holdings[i], beliefs.Answers)
	}
	return all, nil
}

// inTime gives a context without a deadline that of a question.
func inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, limited := ctx.Deadline(); limited {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, query.AskTime)
}

func checkIDs(ids []string) error {
	if len(ids) == 0 || len(ids) > MaxAskedIDs {
		return fmt.Errorf("engine: %d IDs are asked for: ask for 1 to %d", len(ids), MaxAskedIDs)
	}
	for _, id := range ids {
		if len(id) == 0 || len(id) > codec.MaxID {
			return fmt.Errorf("engine: %.40q is not an ID: an ID has 1 to %d bytes", id, codec.MaxID)
		}
	}
	return nil
}

// whereOf brings together what is said of an ID.
func whereOf(id string, h *directory.Holding, beliefs []Belief) WhereInfo {
	w := WhereInfo{ID: id, State: WhereNotBound, Beliefs: []Belief{}}
	switch b := h.Found.Binding; {
	case h.Found.Unknown:
		w.State = WhereUnknown
	case b != routing.Binding{}:
		w.State, w.Session, w.Epoch = WhereBound, b.Session.String(), b.Epoch
		for _, at := range h.At.Nodes {
			w.Nodes = append(w.Nodes, at.Node)
		}
		slices.Sort(w.Nodes)
	}
	for _, b := range beliefs {
		if b.ID != id {
			continue
		}
		b.Differs = w.differs(&b)
		w.Disagree = w.Disagree || b.Differs != ""
		w.Beliefs = append(w.Beliefs, b)
	}
	return w
}

// differs says how a node's belief differs from what the registry says.
func (w *WhereInfo) differs(b *Belief) string {
	if w.State == WhereUnknown {
		return ""
	}
	for _, v := range []struct {
		what string
		held *Believed
	}{{"its table", b.Table}, {"its route", b.Route}} {
		switch held := v.held; {
		case held == nil:
		case w.State == WhereNotBound:
			return v.what + " has the ID bound, and the registry does not"
		case held.Session != w.Session:
			return fmt.Sprintf("%s names another session, under epoch %d", v.what, held.Epoch)
		case held.Epoch != w.Epoch:
			return fmt.Sprintf("%s has epoch %d", v.what, held.Epoch)
		default:
			for _, node := range held.Nodes {
				if !slices.Contains(w.Nodes, node) {
					return fmt.Sprintf("%s has the session attached at node %q, and the registry does not", v.what, node)
				}
			}
		}
	}
	return ""
}

// Watch calls f with the state of each ID as soon as it is known, and whenever it has changed,
// until ctx ends. It returns ctx's error, or ErrStopped. If f waits, states are skipped.
func (o *Operator) Watch(ctx context.Context, ids []string, f func(WatchEvent)) error {
	if err := checkIDs(ids); err != nil {
		return err
	}
	select {
	case <-o.eng.ready:
	default:
		return errNotRunning
	}
	parent := ctx
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(o.eng.serving, stop)()
	w := whereWatch{
		ask:    func(ids []string) (Asked[WhereInfo], error) { return o.Where(ctx, ids) },
		tell:   f,
		unsure: make(map[string]bool),
	}
	err := directory.NewInquiry(o.eng.dir).Observe(ctx, ids, w.changed)
	if parent.Err() == nil && ctx.Err() != nil {
		return ErrStopped
	}
	return err
}

// whereWatch is a call of Operator.Watch.
type whereWatch struct {
	ask  func(ids []string) (Asked[WhereInfo], error)
	tell func(WatchEvent)
	// unsure has the IDs whose state the registry could not say, and whether that was told. Nothing
	// may change any more when it can, so they are asked for again.
	unsure map[string]bool
}

// unsureTime is how long a call of Operator.Watch waits until it asks for such IDs again.
const unsureTime = time.Second

// changed tells the state of the IDs that have changed, or of unsure ones if none has. It returns
// when it is to be called again: 0 for never.
func (w *whereWatch) changed(changes []codec.Change) (again time.Duration) {
	var ids []string
	for _, c := range changes {
		ids = append(ids, string(c.ID))
	}
	if len(changes) == 0 {
		ids = slices.Sorted(maps.Keys(w.unsure))
	}
	for some := range slices.Chunk(ids, MaxAskedIDs) {
		w.say(some)
	}
	if len(w.unsure) > 0 {
		return unsureTime
	}
	return 0
}

func (w *whereWatch) say(ids []string) {
	all, err := w.ask(ids)
	if err != nil {
		for _, id := range ids {
			if _, ok := w.unsure[id]; !ok {
				w.unsure[id] = false
			}
		}
		return
	}
	for _, info := range all.Answers {
		told := w.unsure[info.ID]
		if delete(w.unsure, info.ID); info.State == WhereUnknown {
			w.unsure[info.ID] = true
		} else {
			told = false
		}
		if !told {
			w.tell(WatchEvent{At: time.Now().UTC(), WhereInfo: info})
		}
	}
}

// believes returns what this node knows of IDs. It returns nothing for an ID that it does not know.
func (a respondent) believes(_ context.Context, args believesArgs) ([]Belief, error) {
	if err := checkIDs(args.IDs); err != nil {
		return nil, err
	}
	e := a.eng
	var all []Belief
	for _, id := range args.IDs {
		b := Belief{ID: id, Node: e.cfg.NodeID}
		if r, ok := e.table.Lookup([]byte(id)); ok {
			b.Table = believed(r)
			if len(r.Session.Handles()) > 0 {
				b.Table.Nodes = append(b.Table.Nodes, e.cfg.NodeID)
			}
		}
		if e.cluster != nil {
			if r, ok := e.cluster.remote.Lookup([]byte(id)); ok {
				b.Route = believed(r)
				b.Route.Nodes = append(b.Route.Nodes, e.cluster.nodesOf(r.Session.Handles())...)
			}
		}
		if b.Table != nil || b.Route != nil {
			all = append(all, b)
		}
	}
	return all, nil
}

func believed(r routing.Route) *Believed {
	return &Believed{Session: r.Session.ID().String(), Epoch: r.Epoch, Nodes: []string{}}
}

// nodesOf returns the nodes at the other ends of links, sorted.
func (c *cluster) nodesOf(links []routing.Handle) (nodes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, k := range c.links {
		if slices.Contains(links, k.handle) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	return nodes
}
