package dashboard

import (
	"context"
	"sync"
	"time"

	"distmsg/engine"
)

const (
	// The feed looks at the cluster this often. An answer may take answerTime.
	lookEvery  = time.Second
	answerTime = 2 * time.Second
	// slowestShown is how many sessions a view has.
	slowestShown = 10
	// samplesShown is how many samples of each node a view has. Troubles are judged by them, if
	// they are not older than judgedFor.
	samplesShown = 5
	judgedFor    = 12 * time.Second
)

// Asker is the part of an *engine.Operator that the feed uses.
type Asker interface {
	Nodes(ctx context.Context) (engine.Asked[engine.NodeInfo], error)
	Sessions(ctx context.Context, q engine.SessionQuery) (engine.Asked[engine.SessionInfo], error)
	History(ctx context.Context, limit int) (engine.Asked[engine.HistorySample], error)
}

var _ Asker = (*engine.Operator)(nil)

// Feed asks the nodes once a second while somebody watches. Any goroutine may use it.
type Feed struct {
	asker Asker // static

	mu       sync.Mutex
	watchers map[*watcher]struct{} // guarded by mu
	latest   *View                 // guarded by mu; nil until the first look has ended
	stop     context.CancelFunc    // guarded by mu; ends run; nil: nobody watches
}

// watcher is somebody who watches.
type watcher struct{ views chan *View } // of capacity 1: a slow watcher gets the latest

// NewFeed returns a feed of what asker says.
func NewFeed(asker Asker) *Feed {
	return &Feed{asker: asker, watchers: make(map[*watcher]struct{})}
}

// Watch returns a channel of views. The caller calls leave when it needs no more. A slow reader
// misses views.
func (f *Feed) Watch() (views <-chan *View, leave func()) {
	w := &watcher{make(chan *View, 1)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers[w] = struct{}{}
	if f.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		f.stop = stop
		go f.run(ctx)
	} else if f.latest != nil {
		w.views <- f.latest
	}
	return w.views, func() { f.leave(w) }
}

// leave removes a watcher. If nobody else watches, leave ends run.
func (f *Feed) leave(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, w)
	if len(f.watchers) == 0 && f.stop != nil {
		f.stop()
		f.stop, f.latest = nil, nil
	}
}

// run asks once a second until ctx ends.
func (f *Feed) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	known := make(acquaintances)
	for limit := 0; ctx.Err() == nil; limit = samplesShown {
		f.show(ctx, f.look(ctx, limit, known))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// look asks all nodes. A limit of 0 asks for all samples. From these, known learns which nodes were
// there before the feed began.
func (f *Feed) look(ctx context.Context, limit int, known acquaintances) *View {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var s sight
	var failed [3]error
	var asking sync.WaitGroup
	asking.Go(func() { s.nodes, failed[0] = f.asker.Nodes(ctx) })
	asking.Go(func() { s.sessions, failed[1] = f.asker.Sessions(ctx, engine.SessionQuery{Slowest: slowestShown}) })
	asking.Go(func() { s.samples, failed[2] = f.asker.History(ctx, limit) })
	asking.Wait()
	s.at, s.err = time.Now().UTC(), failed[0]
	known.meet(s.samples.Answers)
	return s.view(known)
}

// show gives a view to all who watch.
func (f *Feed) show(ctx context.Context, v *View) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ctx.Err() != nil {
		return // all have left, and others may have come
	}
	f.latest = v
	for w := range f.watchers {
		select {
		case <-w.views:
		default:
		}
		w.views <- v
	}
}
