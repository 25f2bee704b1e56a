package client

import (
	"context"
	"fmt"
	"slices"

	"distmsg/codec"
)

// BindOptions says how IDs are bound.
type BindOptions struct {
	// RejectNew leaves an ID with another live session that holds it. The bind of that ID then
	// fails with ErrTaken. Without RejectNew, the other session is kicked.
	RejectNew bool
	// Handler receives the messages to these IDs. Default: Config.Handler.
	Handler Handler
}

// Bind makes this session the holder of the IDs: messages to them come to Config.Handler, and it
// may send from them. A session that held one of them before is kicked.
//
// Bind takes any number of IDs. It returns when the node has answered for all of them, or when ctx
// ends, or after Config.RequestTimeout if ctx has no deadline. Until then it retries binds that the
// registry could not accept. The error is ErrClosed, or the context's error if ctx had already
// ended (then nothing was requested), or an *IDError that names the IDs that failed. The other IDs
// are bound. If ctx ended the call, the *IDError wraps ctx's error. An ID whose outcome is timeout
// or lost may or may not be bound at the node. The session does not hold it, and unbinds it if it
// learns later that the ID was bound.
//
// Bindings last until Unbind, a kick or Close: if the session has to start again at a node, it
// re-asserts them by itself. Any goroutine may call Bind. Calls for one ID run one after the other.
func (s *Session) Bind(ctx context.Context, ids ...string) error {
	return s.BindWith(ctx, BindOptions{}, ids...)
}

// BindWith is Bind with options.
func (s *Session) BindWith(ctx context.Context, opts BindOptions, ids ...string) error {
	if opts.Handler == nil {
		opts.Handler = s.cfg.Handler
	}
	q := question{kind: codec.KindBind, late: s.lateBound, reasons: make(map[string]string)}
	if opts.RejectNew {
		q.policy = codec.PolicyRejectNew
	}
	if err := s.mayAsk(ctx); err != nil {
		return err
	}
	good, failed := checkIDs(ids)
	ctx, cancel := s.requestContext(ctx)
	defer cancel()
	op, held, err := s.holds.begin(ctx, good, true, opts.Handler)
	if err != nil {
		return s.allFailed("bind", good, failed, err)
	}
	q.heard = func(gen uint64, ids []idEpoch, a answer) { s.holds.granted(op, ids, a.results, gen) }
	todo := make([]idEpoch, len(held))
	for i, b := range held {
		todo[i].id = b.id // epoch 0: the registry mints one
	}
	codes := s.askAll(ctx, q, todo, func(int, codec.Result) {})
	for _, kick := range s.holds.end(op, held) {
		s.kicked(kick)
	}
	return s.idError(ctx, q, todo, codes, failed)
}

// Unbind removes the bindings of IDs. Messages to them that wait for their handler go back to the
// node. IDs that are not held, or are bound elsewhere by now, count as unbound.
//
// It returns like Bind. An ID that failed receives nothing any more, but may still be bound at the
// node. Unbind can be called for it again.
func (s *Session) Unbind(ctx context.Context, ids ...string) error {
	if err := s.mayAsk(ctx); err != nil {
		return err
	}
	good, failed := checkIDs(ids)
	ctx, cancel := s.requestContext(ctx)
	defer cancel()
	op, held, err := s.holds.begin(ctx, good, false, nil)
	if err != nil {
		return s.allFailed("unbind", good, failed, err)
	}
	todo := make([]idEpoch, len(held))
	for i, b := range held {
		todo[i] = idEpoch{b.id, b.epoch}
	}
	// Asking twice is harmless, because an unbind removes only the exact epoch (S11).
	q := question{kind: codec.KindUnbind, reasons: make(map[string]string)}
	codes := s.askAll(ctx, q, todo, func(i int, _ codec.Result) {
		s.holds.unbound(held[i])
	})
	s.holds.end(op, held)
	return s.idError(ctx, q, todo, codes, failed)
}

// Epoch returns the epoch of the binding under which this session holds id; ok is false if it does
// not hold it. Any goroutine may call it.
func (s *Session) Epoch(id string) (epoch uint64, ok bool) { return s.holds.epoch(id) }

// IDs returns the IDs that this session holds, in no particular order. Any goroutine may call it.
func (s *Session) IDs() []string {
	held := s.holds.all()
	ids := make([]string, len(held))
	for i, v := range held {
		ids[i] = v.id
	}
	return ids
}

// Presence says whether an ID is online.
type Presence struct {
	ID string
	// Code is ok (bound, and its session is attached), unreachable (bound, but its session is
	// detached at the moment), no_route (not bound), or the reason why that is not known:
	// registry_unavailable, bad_id, denied, overflow, timeout, lost.
	Code  Code
	Epoch uint64 // of the binding; if there is none, of the last one, or 0
	// Reason explains to people why the node refused an ID, if the node says so. It is empty for
	// all others.
	Reason string
}

// Online reports whether the ID is bound and its session attached.
func (p Presence) Online() bool { return p.Code == codec.CodeOK }

// Lookup asks which IDs are online, and returns an answer for each, in the order given. It returns
// when all have an answer, when ctx ends or, if ctx has no deadline, after Config.RequestTimeout.
// An ID without an answer then has the code timeout or lost. If ctx ended the call, Lookup returns
// the answers that it has, with an error that wraps ctx's. Two errors come without answers:
// ErrClosed, and ctx's error if ctx had ended before the call. Any goroutine may call Lookup.
func (s *Session) Lookup(ctx context.Context, ids ...string) ([]Presence, error) {
	if err := s.mayAsk(ctx); err != nil {
		return nil, err
	}
	caller := ctx
	ctx, cancel := s.requestContext(ctx)
	defer cancel()
	found := make([]Presence, len(ids))
	todo := make([]idEpoch, 0, len(ids))
	at := make([]int, 0, len(ids)) // at[i] is the place of todo[i] in ids
	for i, id := range ids {
		found[i] = Presence{ID: id, Code: codec.CodeBadID}
		if goodID(id) {
			todo, at = append(todo, idEpoch{id: id}), append(at, i)
		}
	}
	q := question{kind: codec.KindLookup, reasons: make(map[string]string)}
	codes := s.askAll(ctx, q, todo, func(i int, r codec.Result) {
		found[at[i]].Code, found[at[i]].Epoch = r.Code, r.Epoch
		if explained(r.Code) {
			found[at[i]].Reason = q.reasons[todo[i].id]
		}
	})
	for i, code := range codes {
		if code != codec.CodeOK { // there is no answer
			found[at[i]].Code = code
		}
	}
	return found, unanswered(caller, found)
}

// mayAsk returns why a bind, unbind, lookup or watch may not begin, or nil.
func (s *Session) mayAsk(ctx context.Context) error {
	if err := mayBegin(ctx); err != nil {
		return err
	}
	if s.closed() {
		return ErrClosed
	}
	return nil
}

// unanswered is the error of a lookup or watch whose caller's context ended before all of its IDs
// had an answer.
func unanswered(caller context.Context, found []Presence) error {
	err := over(caller)
	if err == nil || !slices.ContainsFunc(found, func(p Presence) bool { return p.Code.Delivered() == codec.DeliveredUnknown && p.Code != codec.CodeOK }) {
		return nil
	}
	return fmt.Errorf("client: not all IDs have an answer: %w", err)
}

// requestContext adds a deadline to a context without one.
func (s *Session) requestContext(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.cfg.RequestTimeout)
}

// askAll asks until every ID has a final answer or ctx ends, and returns the last answers. It calls
// done for each ID that succeeded.
func (s *Session) askAll(ctx context.Context, q question, ids []idEpoch,
	done func(i int, r codec.Result)) []codec.Code {
	codes := make([]codec.Code, len(ids))
	todo, at := ids, make([]int, len(ids)) // at[i] is the place of todo[i] in ids
	for i := range at {
		at[i], codes[i] = i, unwritten(q.kind)
	}
	for try := 0; len(todo) > 0; try++ {
		c, err := s.attachments.wait(ctx)
		if err != nil {
			break
		}
		var again []idEpoch
		var againAt []int
		c.ask(ctx, q, todo, func(i int, r codec.Result) {
			codes[at[i]] = r.Code
			switch {
			case tryAgain(q.kind, r.Code):
				again, againAt = append(again, todo[i]), append(againAt, at[i])
			case succeeded(q.kind, r.Code):
				codes[at[i]] = codec.CodeOK
				done(at[i], r)
			}
		})
		todo, at = again, againAt
		if len(todo) > 0 && !s.pause(ctx, s.backoff(try), nil) {
			break
		}
	}
	return codes
}

// succeeded reports which answers count as success. An unbind succeeds also for an ID that was not
// bound or is bound elsewhere. Any answer to a lookup is a success.
func succeeded(kind codec.Kind, code codec.Code) bool {
	switch kind {
	case codec.KindLookup:
		return code != codec.CodeTimeout
	case codec.KindUnbind:
		return code == codec.CodeOK || code == codec.CodeNoRoute || code == codec.CodeSuperseded
	}
	return code == codec.CodeOK
}

// tryAgain reports which answers justify a retry. A bind that may have been done is not repeated:
// the ID may have been bound elsewhere since, and the repetition would take it from there. An
// unbind removes only one epoch and may be repeated. A lookup's answers are final, but the request
// may get lost.
func tryAgain(kind codec.Kind, code codec.Code) bool {
	switch kind {
	case codec.KindLookup:
		return code == codec.CodeLost
	case codec.KindUnbind:
		return code == codec.CodeLost || code.SafeToRetry() && code.Temporary()
	}
	return code.SafeToRetry() && code.Temporary()
}

// lateBound handles the answer to a Bind that has already failed for its caller: the node must not
// keep the ID bound to this session.
func (s *Session) lateBound(ids []idEpoch, a answer) {
	var back []idEpoch
	for i, r := range a.results {
		if r.Code == codec.CodeOK && !s.holds.adopt(ids[i].id, r.Epoch) {
			back = append(back, idEpoch{ids[i].id, r.Epoch})
		}
	}
	if c := s.attachments.first(); c != nil && len(back) > 0 {
		c.request(question{kind: codec.KindUnbind}, back)
	}
}

func goodID(id string) bool { return len(id) >= 1 && len(id) <= codec.MaxID }

// checkIDs separates the IDs that no node would accept.
func checkIDs(ids []string) (good []string, failed []IDFailure) {
	for i, id := range ids {
		if goodID(id) {
			continue
		}
		if failed == nil {
			good = append(good, ids[:i]...)
		}
		failed = append(failed, IDFailure{id, badID(id)})
	}
	if failed == nil {
		return ids, nil
	}
	for _, id := range ids[len(good):] {
		if goodID(id) {
			good = append(good, id)
		}
	}
	return good, failed
}

// allFailed is the error of an operation that never began.
func (s *Session) allFailed(op string, ids []string, failed []IDFailure, cause error) error {
	for _, id := range ids {
		e := &Error{Code: codec.CodeExpired, Reason: "waited for another bind or unbind of the ID", cause: cause}
		failed = append(failed, IDFailure{id, e})
	}
	return &IDError{Op: op, Failed: failed}
}

// idError builds the error from the results of askAll.
func (s *Session) idError(ctx context.Context, q question, ids []idEpoch, codes []codec.Code, failed []IDFailure) error {
	cause := over(ctx) // which alone ends the tries of what is worth another one
	if s.closed() {
		cause = ErrClosed
	}
	for i, code := range codes {
		if code == codec.CodeOK {
			continue
		}
		e := &Error{Code: code, Reason: q.reasons[ids[i].id]}
		if cause == ErrClosed || code == codec.CodeTimeout || tryAgain(q.kind, code) {
			e.cause = cause
		}
		failed = append(failed, IDFailure{ids[i].id, e})
	}
	if len(failed) == 0 {
		return nil
	}
	return &IDError{Op: q.kind.String(), Failed: failed}
}
