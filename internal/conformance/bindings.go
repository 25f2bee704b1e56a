package conformance

import (
	"fmt"

	"distmsg/codec"
)

// bind is a bind of the client.
type bind struct {
	seq    uint64
	policy codec.Policy
	ids    []codec.IDEpoch
	frame  []byte
}

// bind checks a bind and answers it, unless the scenario answers it.
func (p *play) bind(c *conn, frame []byte) {
	var f codec.Bind
	p.withinIDs(c, codec.DecodeBind(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	b := &bind{f.Seq, f.Policy, ids(f.IDs), frame}
	if c.requests[b.seq] {
		p.blame(c, secBindings, "seq is unique among open requests", fmt.Sprintf("seq %d twice", b.seq), frame)
	}
	for _, v := range b.ids {
		p.mayBind(c, string(v.ID), v.Epoch, frame)
	}
	if p.onBind != nil {
		c.requests[b.seq] = true
		p.onBind(c, b)
		return
	}
	p.grantAll(c, b)
}

// withinIDs reports a fault for a frame with too many IDs or one that cannot be read.
func (p *play) withinIDs(c *conn, err error, frame []byte) {
	if e, ok := err.(*codec.Error); ok && e.Fault == codec.FaultTooMany {
		p.blame(c, secLimits, fmt.Sprintf("at most max_ids IDs in a frame, which is %d", c.limits.MaxIDs), e.Detail, frame)
	}
	p.well(c, err, frame)
}

// mayBind checks that the application asked for a new binding, or that the client asserts one that
// it holds.
func (p *play) mayBind(c *conn, id string, epoch uint64, frame []byte) {
	held, holds := p.epochs[id]
	got := fmt.Sprintf("a bind of %q under epoch %d", id, epoch)
	switch {
	case epoch == 0 && p.wanted[id]:
	case epoch == 0 && holds:
		p.blame(c, secBindings, fmt.Sprintf("a client binds %q anew only if the application asks for it: it asserts the epoch that it holds, %d", id, held), got, frame)
	case epoch == 0:
		p.blame(c, secBindings, fmt.Sprintf("a client binds %q only if the application asks for it: never again by itself after a kick or a refusal", id), got, frame)
	case !holds:
		p.blame(c, secBindings, fmt.Sprintf("a client asserts only what it holds; %q it does not", id), got, frame)
	case epoch != held:
		p.blame(c, secBindings, fmt.Sprintf("a client asserts %q under exactly the epoch that bound gave it, %d", id, held), got, frame)
	case !p.due[id]:
		p.blame(c, secReconnect, "the session was resumed and its bindings stand: the client repeats only binds that were open", got, frame)
	}
}

func ids(l codec.IDList) (all []codec.IDEpoch) {
	for v, ok := l.Next(); ok; v, ok = l.Next() {
		all = append(all, v)
	}
	return all
}

// grantAll grants all IDs of a bind.
func (p *play) grantAll(c *conn, b *bind) {
	results := make([]codec.Result, len(b.ids))
	for i, v := range b.ids {
		results[i] = codec.Result{Epoch: v.Epoch}
		if v.Epoch == 0 {
			results[i].Epoch = p.mint()
		}
	}
	p.results(c, b, results)
}

// answerAll answers all IDs of a bind with one code.
func (p *play) answerAll(c *conn, b *bind, code codec.Code) {
	results := make([]codec.Result, len(b.ids))
	for i := range results {
		results[i].Code = code
	}
	p.results(c, b, results)
}

// results answers a bind and records what the client should know from then on.
func (p *play) results(c *conn, b *bind, results []codec.Result) {
	delete(c.requests, b.seq)
	for i, v := range b.ids {
		id := string(v.ID)
		switch r := results[i]; {
		case r.Code == codec.CodeOK:
			p.epochs[id], p.granted[id] = r.Epoch, r.Epoch
			p.wanted[id], p.due[id] = false, false
		case r.Code.SafeToRetry():
		case v.Epoch == 0:
			p.wanted[id] = false
		case r.Code == codec.CodeSuperseded:
			p.forget(id)
		}
	}
	p.put(c, codec.AppendResults(nil, codec.KindBound, b.seq, results))
}

// forget records that the client no longer holds the ID.
func (p *play) forget(id string) {
	delete(p.epochs, id)
	delete(p.due, id)
}

// kick sends a kick that the client must obey.
func (p *play) kick(c *conn, id string) {
	p.forget(id)
	p.put(c, codec.AppendKick(nil, id, p.mint()))
}

func (p *play) unbind(c *conn, frame []byte) {
	var f codec.Unbind
	p.withinIDs(c, codec.DecodeUnbind(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	var results []codec.Result
	for _, v := range ids(f.IDs) {
		id := string(v.ID)
		if _, holds := p.epochs[id]; holds && !p.unwanted[id] {
			p.blame(c, secBindings, "a client unbinds what the application gives back", fmt.Sprintf("an unbind of %q", id), frame)
		}
		if v.Epoch != p.granted[id] {
			p.blame(c, secBindings, fmt.Sprintf("unbind names the epoch that bound returned for %q, %d", id, p.granted[id]), fmt.Sprintf("epoch %d", v.Epoch), frame)
		}
		p.forget(id)
		results = append(results, codec.Result{Epoch: v.Epoch})
	}
	p.put(c, codec.AppendResults(nil, codec.KindUnbound, f.Seq, results))
}

func (p *play) lookup(c *conn, frame []byte) {
	var f codec.Lookup
	p.withinIDs(c, codec.DecodeLookup(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	results := make([]codec.Result, f.IDs.Len())
	for i := range results {
		results[i].Code = codec.CodeNoRoute
	}
	p.put(c, codec.AppendResults(nil, codec.KindFound, f.Seq, results))
}

func (p *play) watch(c *conn, frame []byte) {
	if c.limits.MaxWatched == 0 {
		p.blame(c, secWatching, "no watch at a node whose max_watched is 0", "a watch", frame)
	}
	var f codec.Watch
	p.withinIDs(c, codec.DecodeWatch(frame[codec.PrefixLen:], int(c.limits.MaxIDs), &f), frame)
	var names []string
	results := make([]codec.Result, 0, f.IDs.Len())
	for _, v := range ids(f.IDs) {
		names = append(names, string(v.ID))
		results = append(results, codec.Result{Code: codec.CodeNoRoute})
	}
	if p.onWatch != nil {
		p.onWatch(c, f.Seq, names)
		return
	}
	p.put(c, codec.AppendResults(nil, codec.KindWatched, f.Seq, results))
}
