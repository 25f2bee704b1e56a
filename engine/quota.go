package engine

import (
	"time"

	"distmsg/codec"
	"distmsg/engine/internal/directory"
	"distmsg/engine/internal/limit"
	"distmsg/routing"
)

// quota is what the limits leave to a client's connection. The connection's loop owns it.
type quota struct {
	conn *conn // static

	// account is what the connection's identity uses. Nil before the connection is open, and for
	// clients in this process, which have no limits.
	account *limit.Account

	messages, bytes, lookups limit.Meter
}

// open enters the connection into the account of its identity. It returns why it must not be in the
// session s, or "". leaving is how many connections it replaces.
func (q *quota) open(l *login, s *routing.Session, resumed bool, leaving int) (refusal string) {
	if q.conn.kind == insideConn {
		return ""
	}
	e := q.conn.loop.eng
	name, terms := "", func() limit.Terms { return limit.Terms{} }
	if l != nil && l.name != "" {
		name, terms = l.name, func() limit.Terms { return l.limits.orElse(e.terms.Load().identity).terms() }
	}
	a, ok := e.accounts.Enter(name, terms, leaving)
	if !ok {
		q.reached(name, limit.IdentityConnections)
		return limitText(limit.IdentityConnections, connWait)
	}
	q.account = a
	most := a.Terms().Sessions
	if sessions, _ := s.IdentityUse(); most > 0 && !resumed && sessions > most {
		a.Refused(limit.IdentitySessions, 1)
		q.reached(name, limit.IdentitySessions)
		return limitText(limit.IdentitySessions, connWait)
	}
	return ""
}

// limitText is the reason that names a limit, for texts that are seldom needed.
func limitText(k limit.Kind, wait uint64) string {
	return string(codec.AppendLimitReason(nil, k.String(), wait))
}

// connWait is how many milliseconds later a client should come again that has too many connections.
const connWait = 1000

// boundIDs limits a bind to the IDs that the identity may still bind.
func (q *quota) boundIDs(r *directory.Request) {
	if q.account == nil {
		return
	}
	if most := q.account.Terms().IDs; most > 0 {
		r.MostIDs, r.MostText = most, limitText(limit.IdentityIDs, 0)
	}
}

// watchedIDs limits a watch to the IDs that the identity may still watch.
func (q *quota) watchedIDs(r *directory.Request) {
	if q.account == nil {
		return
	}
	if most := q.account.Terms().Watched; most > 0 {
		r.MostIDs, r.MostText = most, limitText(limit.IdentityWatched, 0)
	}
}

// answered counts the IDs of a bind or watch that were refused.
func (q *quota) answered(r *directory.Request) {
	if r.OverMost == 0 || q.account == nil {
		return
	}
	kind := limit.IdentityIDs
	if r.Kind == codec.KindWatched {
		kind = limit.IdentityWatched
	}
	q.account.Refused(kind, r.OverMost)
	q.reached(q.identity(), kind)
}

// reached logs that a limit is reached, now and then.
func (q *quota) reached(identity string, kind limit.Kind) {
	q.conn.loop.limits.reached(q.conn, identity, kind)
}

// identity returns the name of the client, if it has a session.
func (q *quota) identity() string {
	if q.conn.session == nil {
		return ""
	}
	return q.conn.session.Identity()
}

// close takes the connection out of its account.
func (q *quota) close() {
	if q.account != nil {
		q.conn.sender.inFlight.Close(&q.account.InFlight)
		q.conn.out.allowance.Close(&q.account.PendingBytes)
		q.conn.loop.eng.accounts.Leave(q.account)
		q.account = nil
	}
}

// renew makes the connection ask for more of everything before it uses more, because limits have
// changed.
func (q *quota) renew() {
	q.messages.Renew()
	q.bytes.Renew()
	q.lookups.Renew()
	q.conn.sender.inFlight.Renew()
	q.conn.out.allowance.Renew()
}

// admit uses n messages in a frame of size bytes. If a limit is reached, the messages end with its
// verdict, whose reason is in the loop's scratch.
func (q *quota) admit(n, size int) verdict {
	if q.account == nil {
		return verdict{}
	}
	if !q.messages.Use(int64(n)) {
		if v := q.drawMessages(n); v.code != codec.CodeOK {
			return v
		}
	}
	if q.bytes.Use(int64(size)) {
		return verdict{}
	}
	return q.drawBytes(n, size)
}

func (q *quota) drawMessages(n int) verdict {
	e, a := q.conn.loop.eng, q.account
	over, wait := q.messages.Draw(int64(n), e.terms.Load().conn.Messages, a.Terms().Messages, &a.Messages, q.now())
	return q.verdict(over, wait, limit.ConnectionMessages, limit.IdentityMessages)
}

// drawBytes gives the messages back if their bytes are refused.
func (q *quota) drawBytes(n, size int) verdict {
	e, a := q.conn.loop.eng, q.account
	over, wait := q.bytes.Draw(int64(size), e.terms.Load().conn.Bytes, a.Terms().Bytes, &a.Bytes, q.now())
	if over != limit.Within {
		q.messages.Return(int64(n))
	}
	return q.verdict(over, wait, limit.ConnectionBytes, limit.IdentityBytes)
}

// mayLookup uses n lookups. If a limit is reached, it answers the request, which was charged.
func (q *quota) mayLookup(r *directory.Request, n int) bool {
	if q.account == nil || q.lookups.Use(int64(n)) {
		return true
	}
	e, a := q.conn.loop.eng, q.account
	over, wait := q.lookups.Draw(int64(n), e.terms.Load().conn.Lookups, a.Terms().Lookups, &a.Lookups, q.now())
	if v := q.verdict(over, wait, limit.ConnectionLookups, limit.IdentityLookups); v.code != codec.CodeOK {
		e.dir.Refuse(r, v.code, string(v.reason))
		return false
	}
	return true
}

// reserve reserves places for sends that wait for an ack. If there is none, it says why.
func (q *quota) reserve(p *limit.Places) verdict {
	most, shared := q.inFlight()
	switch p.Reserve(q.conn.loop.eng.cfg.MaxInFlight, most, shared) {
	case limit.OverOwn:
		return verdict{codec.CodeOverflow, reasonInFlight}
	case limit.OverShared:
		return q.over(limit.IdentityInFlight, 0)
	case limit.Within:
	}
	return verdict{}
}

// announced lowers the limits that welcome announces to those of the identity.
func (q *quota) announced(l codec.Limits) codec.Limits {
	if most, _ := q.inFlight(); most > 0 {
		l.MaxInFlight = min(l.MaxInFlight, uint64(most))
	}
	return l
}

// trim gives back places that are not needed.
func (q *quota) trim(p *limit.Places) { p.Trim(q.inFlight()) }

// inFlight returns how many sends of the identity may wait for an ack, 0 for any number, and the
// count of them.
func (q *quota) inFlight() (most int, shared *limit.Count) {
	if q.account == nil {
		return 0, nil
	}
	return q.account.Terms().InFlight, &q.account.InFlight
}

// shed counts that the node closes the connection because it holds most of the memory budget.
func (q *quota) shed() {
	switch {
	case q.account != nil:
		q.account.Refused(limit.MemoryBudget, 1)
	case q.conn.kind == clientConn:
		q.conn.loop.eng.accounts.Refused(limit.MemoryBudget)
	}
}

// mayPend reserves what is needed so that n bytes may wait for the connection. It returns false if
// too many wait for the others of its identity.
func (q *quota) mayPend(n int) bool {
	most, shared := q.pending()
	return q.conn.out.allowance.Reserve(n, most, shared)
}

// trimPending gives back what is not needed while n bytes wait.
func (q *quota) trimPending(n int) {
	most, shared := q.pending()
	q.conn.out.allowance.Trim(n, most, shared)
}

// pending returns how many bytes may wait for all connections of the identity, 0 for any number,
// and the count of them.
func (q *quota) pending() (most int, shared *limit.Count) {
	if q.account == nil {
		return 0, nil
	}
	if most = q.account.Terms().PendingBytes; most > 0 {
		most = max(most, q.conn.loop.eng.maxFrame) // so that each message fits at some time
	}
	return most, &q.account.PendingBytes
}

// now returns the loop's time as the arithmetic takes it.
func (q *quota) now() time.Duration { return time.Duration(q.conn.loop.now) * time.Millisecond }

// verdict says which of two limits is reached, and counts that.
func (q *quota) verdict(over limit.Over, wait time.Duration, own, common limit.Kind) verdict {
	kind := own
	switch over {
	case limit.Within:
		return verdict{}
	case limit.OverShared:
		kind = common
	}
	return q.over(kind, waitMillis(wait))
}

// over counts that a limit is reached, and ends a message with its name. wait is how many
// milliseconds later it is not reached any more, or 0 if that is not known.
func (q *quota) over(kind limit.Kind, wait uint64) verdict {
	q.account.Refused(kind, 1)
	q.reached(q.identity(), kind)
	s := &q.conn.loop.scratch
	s.reason = codec.AppendLimitReason(s.reason[:0], kind.String(), wait)
	return verdict{codec.CodeOverflow, s.reason}
}

// waitMillis returns a wait as clients hear it.
func waitMillis(wait time.Duration) uint64 {
	return uint64(max(1, min((wait+time.Millisecond-1)/time.Millisecond, longestWait)))
}

// longestWait bounds, in milliseconds, when the node asks a client to come back. Its limits may
// have changed by then.
const longestWait = 60_000

// limited returns what clients have reached, for Stats.
func (e *Engine) limited() (all []Limited) {
	for _, o := range e.accounts.Offences() {
		all = append(all, Limited{Identity: o.Identity, Other: o.Other, Limit: o.Kind.String(), Times: o.Times})
	}
	return all
}
