package conformance

import (
	"fmt"

	"distmsg/codec"
)

// bindings is what the client should know about the IDs. It checks and answers what the client asks
// about them. The scenario's goroutine owns it.
type bindings struct {
	play     *play
	epochs   map[string]uint64 // under which the client holds them
	granted  map[string]uint64 // the last epoch that the client was given
	wanted   map[string]bool   // the client was asked to bind them again
	due      map[string]bool   // the client may assert them again
	unwanted map[string]bool   // the client was asked to unbind them
	clock    uint64            // of epochs
}

// bind is a bind of the client.
type bind struct {
	seq    uint64
	policy codec.Policy
	ids    []codec.IDEpoch
	frame  []byte
}

// bind checks a bind and answers it, unless the scenario answers it.
func (bs *bindings) bind(c *conn, frame []byte) {
	var f codec.Bind
	bs.withinIDs(c, codec.DecodeBind(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	b := &bind{f.Seq, f.Policy, ids(f.IDs), frame}
	if c.requests[b.seq] {
		bs.play.blame(c, secBindings, "seq is unique among open requests", fmt.Sprintf("seq %d twice", b.seq), frame)
	}
	for _, v := range b.ids {
		bs.mayBind(c, string(v.ID), v.Epoch, frame)
	}
	if bs.play.onBind != nil {
		c.requests[b.seq] = true
		bs.play.onBind(c, b)
		return
	}
	bs.grantAll(c, b)
}

// withinIDs reports a fault for a frame with too many IDs or one that cannot be read.
func (bs *bindings) withinIDs(c *conn, err error, frame []byte) {
	if e, ok := err.(*codec.Error); ok && e.Fault == codec.FaultTooMany {
		bs.play.blame(c, secLimits, fmt.Sprintf("at most max_ids IDs in a frame, which is %d", c.limits.MaxIDs), e.Detail, frame)
	}
	bs.play.well(c, err, frame)
}

// mayBind checks that the application asked for a new binding, or that the client asserts one that
// it holds.
func (bs *bindings) mayBind(c *conn, id string, epoch uint64, frame []byte) {
	held, holds := bs.epochs[id]
	got := fmt.Sprintf("a bind of %q under epoch %d", id, epoch)
	switch {
	case epoch == 0 && bs.wanted[id]:
	case epoch == 0 && holds:
		bs.play.blame(c, secBindings, fmt.Sprintf("a client binds %q anew only if the application asks for it: it asserts the epoch that it holds, %d", id, held), got, frame)
	case epoch == 0:
		bs.play.blame(c, secBindings, fmt.Sprintf("a client binds %q only if the application asks for it: never again by itself after a kick or a refusal", id), got, frame)
	case !holds:
		bs.play.blame(c, secBindings, fmt.Sprintf("a client asserts only what it holds; %q it does not", id), got, frame)
	case epoch != held:
		bs.play.blame(c, secBindings, fmt.Sprintf("a client asserts %q under exactly the epoch that bound gave it, %d", id, held), got, frame)
	case !bs.due[id]:
		bs.play.blame(c, secReconnect, "the session was resumed and its bindings stand: the client repeats only binds that were open", got, frame)
	}
}

func ids(l codec.IDList) (all []codec.IDEpoch) {
	for v, ok := l.Next(); ok; v, ok = l.Next() {
		all = append(all, v)
	}
	return all
}

// grantAll grants all IDs of a bind.
func (bs *bindings) grantAll(c *conn, b *bind) {
	results := make([]codec.Result, len(b.ids))
	for i, v := range b.ids {
		results[i] = codec.Result{Epoch: v.Epoch}
		if v.Epoch == 0 {
			results[i].Epoch = bs.mint()
		}
	}
	bs.results(c, b, results)
}

// answerAll answers all IDs of a bind with one code.
func (bs *bindings) answerAll(c *conn, b *bind, code codec.Code) {
	results := make([]codec.Result, len(b.ids))
	for i := range results {
		results[i].Code = code
	}
	bs.results(c, b, results)
}

// results answers a bind and records what the client should know from then on.
func (bs *bindings) results(c *conn, b *bind, results []codec.Result) {
	delete(c.requests, b.seq)
	for i, v := range b.ids {
		id := string(v.ID)
		switch r := results[i]; {
		case r.Code == codec.CodeOK:
			bs.epochs[id], bs.granted[id] = r.Epoch, r.Epoch
			bs.wanted[id], bs.due[id] = false, false
		case r.Code.SafeToRetry():
		case v.Epoch == 0:
			bs.wanted[id] = false
		case r.Code == codec.CodeSuperseded:
			bs.forget(id)
		}
	}
	bs.play.put(c, codec.AppendResults(nil, codec.KindBound, b.seq, results))
}

// forget records that the client no longer holds the ID.
func (bs *bindings) forget(id string) {
	delete(bs.epochs, id)
	delete(bs.due, id)
}

// kick sends a kick that the client must obey.
func (bs *bindings) kick(c *conn, id string) {
	bs.forget(id)
	bs.play.put(c, codec.AppendKick(nil, id, bs.mint()))
}

func (bs *bindings) unbind(c *conn, frame []byte) {
	var f codec.Unbind
	bs.withinIDs(c, codec.DecodeUnbind(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	var results []codec.Result
	for _, v := range ids(f.IDs) {
		id := string(v.ID)
		if _, holds := bs.epochs[id]; holds && !bs.unwanted[id] {
			bs.play.blame(c, secBindings, "a client unbinds what the application gives back", fmt.Sprintf("an unbind of %q", id), frame)
		}
		if v.Epoch != bs.granted[id] {
			bs.play.blame(c, secBindings, fmt.Sprintf("unbind names the epoch that bound returned for %q, %d", id, bs.granted[id]), fmt.Sprintf("epoch %d", v.Epoch), frame)
		}
		bs.forget(id)
		results = append(results, codec.Result{Epoch: v.Epoch})
	}
	bs.play.put(c, codec.AppendResults(nil, codec.KindUnbound, f.Seq, results))
}

func (bs *bindings) lookup(c *conn, frame []byte) {
	var f codec.Lookup
	bs.withinIDs(c, codec.DecodeLookup(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	results := make([]codec.Result, f.IDs.Len())
	for i := range results {
		results[i].Code = codec.CodeNoRoute
	}
	bs.play.put(c, codec.AppendResults(nil, codec.KindFound, f.Seq, results))
}

func (bs *bindings) watch(c *conn, frame []byte) {
	if c.limits.MaxWatched == 0 {
		bs.play.blame(c, secWatching, "no watch at a node whose max_watched is 0", "a watch", frame)
	}
	var f codec.Watch
	bs.withinIDs(c, codec.DecodeWatch(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	var names []string
	results := make([]codec.Result, 0, f.IDs.Len())
	for _, v := range ids(f.IDs) {
		names = append(names, string(v.ID))
		results = append(results, codec.Result{Code: codec.CodeNoRoute})
	}
	if bs.play.onWatch != nil {
		bs.play.onWatch(c, f.Seq, names)
		return
	}
	bs.play.put(c, codec.AppendResults(nil, codec.KindWatched, f.Seq, results))
}

// mint returns a new epoch.
func (bs *bindings) mint() uint64 {
	bs.clock += 10
	return bs.clock
}
