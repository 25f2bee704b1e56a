package client

import (
	"context"

	"distmsg/codec"
)

// idEpoch is one ID of a bind, unbind, lookup or watch.
type idEpoch struct {
	id    string
	epoch uint64
}

// request is a bind, unbind, lookup or watch frame that waits for its answer.
type request struct {
	answer chan answer // capacity 1
	ids    []idEpoch
	heard  func(gen uint64, ids []idEpoch, a answer) // see question
	late   func(ids []idEpoch, a answer)             // see question
	given  bool                                      // the asker has given up; guarded by conn.mu
	// the answer is about to be in the channel; guarded by conn.mu
	coming bool
}

// answer is the node's answer or, if code is not ok, the reason why there is none.
type answer struct {
	code    codec.Code
	results []codec.Result
	reasons map[uint64]string // why some failed, for people; by index of results
}

// pipeline is how many frames one call sends before it waits for the first answer.
const pipeline = 16

// question says what ask requests from the node.
type question struct {
	kind   codec.Kind // bind, unbind, lookup or watch
	policy codec.Policy
	// heard is called with an answer that the asker will get. It runs on the reader's goroutine, so
	// before the next frame from the node is read. gen is the generation of the bindings that the
	// answer is about.
	heard func(gen uint64, ids []idEpoch, a answer)
	// late is called, also on the reader's goroutine, with an answer that comes after the asker has
	// given up.
	late func(ids []idEpoch, a answer)
	// reasons, if not nil, receives the node's reasons for the IDs that failed. The asker owns it.
	reasons map[string]string
}

// ask sends ids in as many frames as the node's limits need, and calls each for every ID, in order.
// Without an answer, the code of an ID is lost, the code of unwritten, or timeout if ctx has ended.
// Once ctx has ended, ask sends no more frames, and IDs to be bound or unbound end with expired.
func (c *conn) ask(ctx context.Context, q question, ids []idEpoch, each func(i int, r codec.Result)) {
	var open []*request
	first := 0 // index of open[0]'s first ID
	settle := func() {
		r := open[0]
		open = open[1:]
		a := c.await(ctx, r)
		for i := range r.ids {
			v := codec.Result{Code: a.code}
			if a.code == codec.CodeOK {
				v = a.results[i]
				if text := a.reasons[uint64(i)]; text != "" && q.reasons != nil {
					q.reasons[r.ids[i].id] = text
				}
			}
			each(first+i, v)
		}
		first += len(r.ids)
	}
	for rest := ids; len(rest) > 0; {
		n := c.frameful(rest)
		if q.kind == codec.KindLookup {
			_ = c.lookupPace.wait(ctx, c, n) // if ctx ends, nothing is asked
		}
		if over(ctx) == nil {
			open = append(open, c.request(q, rest[:n]))
		} else {
			open = append(open, unasked(q, rest[:n]))
		}
		rest = rest[n:]
		if len(open) == pipeline {
			settle()
		}
	}
	for len(open) > 0 {
		settle()
	}
}

// unasked returns the request for a frame that was not sent because ctx had ended.
func unasked(q question, ids []idEpoch) *request {
	r := &request{answer: make(chan answer, 1), ids: ids}
	code := codec.CodeTimeout
	if q.kind == codec.KindBind || q.kind == codec.KindUnbind {
		code = codec.CodeExpired
	}
	r.answer <- answer{code: code}
	return r
}

// unwritten returns the code for IDs whose frame was not written. For a lookup this is lost,
// because unreachable would be an answer.
func unwritten(kind codec.Kind) codec.Code {
	if kind == codec.KindLookup {
		return codec.CodeLost
	}
	return codec.CodeUnreachable
}

// frameful returns how many of the ids fit into one frame: at least one.
func (c *conn) frameful(ids []idEpoch) int {
	const perID, head = 16, 64 // more than msgpack takes
	n, size := 0, head
	for n < len(ids) && n < int(c.limits.MaxIDs) {
		if size += perID + len(ids[n].id); size > int(c.limits.MaxFrame) {
			break
		}
		n++
	}
	return max(n, 1)
}

// request appends one frame to the buffer and returns its request.
func (c *conn) request(q question, ids []idEpoch) *request {
	r := &request{answer: make(chan answer, 1), ids: ids, heard: q.heard, late: q.late}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.outPhase.frames() {
		r.answer <- answer{code: unwritten(q.kind)}
		return r
	}
	c.nextReq++
	c.requests[c.nextReq] = r
	c.commit(appendRequest(c.out, q, c.nextReq, ids))
	return r
}

func appendRequest(b []byte, q question, seq uint64, ids []idEpoch) []byte {
	switch q.kind {
	case codec.KindLookup:
		return codec.AppendLookup(b, seq, plainIDs(ids))
	case codec.KindWatch:
		return codec.AppendWatch(b, seq, plainIDs(ids))
	}
	pairs := make([]codec.IDEpoch, len(ids))
	for i, v := range ids {
		pairs[i] = codec.IDEpoch{ID: []byte(v.id), Epoch: v.epoch}
	}
	if q.kind == codec.KindUnbind {
		return codec.AppendUnbind(b, seq, pairs)
	}
	return codec.AppendBind(b, seq, q.policy, pairs)
}

// plainIDs returns the IDs without their epochs.
func plainIDs(ids []idEpoch) [][]byte {
	plain := make([][]byte, len(ids))
	for i, v := range ids {
		plain[i] = []byte(v.id)
	}
	return plain
}

// requestSeq reads the sequence number of a frame that appendRequest made.
func requestSeq(kind codec.Kind, body []byte) uint64 {
	switch kind {
	case codec.KindBind:
		var f codec.Bind
		_ = codec.DecodeBind(body, len(body), &f)
		return f.Seq
	case codec.KindUnbind:
		var f codec.Unbind
		_ = codec.DecodeUnbind(body, len(body), &f)
		return f.Seq
	}
	var f codec.Lookup
	_ = codec.DecodeLookup(body, len(body), &f)
	return f.Seq
}

// await waits for the answer. If ctx ends first, it returns timeout, and r.late gets the answer.
func (c *conn) await(ctx context.Context, r *request) answer {
	select {
	case a := <-r.answer:
		return a
	case <-ctx.Done():
	}
	c.mu.Lock()
	r.given = !r.coming && len(r.answer) == 0
	given := r.given
	c.mu.Unlock()
	if given {
		return answer{code: codec.CodeTimeout}
	}
	return <-r.answer
}

// onResults passes the node's answer to the request.
func (c *conn) onResults(kind codec.Kind, body []byte) error {
	var f codec.Results
	if err := codec.DecodeResults(body, kind, &f); err != nil {
		return err
	}
	a := answer{results: make([]codec.Result, 0, f.All.Len())}
	for v, ok := f.All.Next(); ok; v, ok = f.All.Next() {
		a.results = append(a.results, v)
	}
	for v, ok := f.Reasons.Next(); ok; v, ok = f.Reasons.Next() {
		if a.reasons == nil {
			a.reasons = make(map[uint64]string)
		}
		a.reasons[v.Index] = string(v.Text)
	}
	if kind == codec.KindFound && len(a.reasons) > 0 {
		c.lookupPace.heard(c, a.reasons[0])
	}
	c.endRequest(f.Seq, a)
	return nil
}

// endRequest passes an answer to the request that seq names, if the request is still open.
func (c *conn) endRequest(seq uint64, a answer) {
	c.mu.Lock()
	r := c.requests[seq]
	delete(c.requests, seq)
	late := false
	if r != nil {
		late, r.coming = r.given, !r.given
	}
	c.mu.Unlock()
	if r == nil {
		return
	}
	if a.code == codec.CodeOK && len(a.results) != len(r.ids) {
		a = answer{code: codec.CodeLost} // the answer is to something else
	}
	good := a.code == codec.CodeOK
	switch {
	case late:
		if good && r.late != nil {
			r.late(r.ids, a)
		}
		return
	case good && r.heard != nil:
		r.heard(c.gen, r.ids, a)
	}
	r.answer <- a
}
