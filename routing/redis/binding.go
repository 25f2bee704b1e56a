package redis

import (
	"context"
	"encoding/binary"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"distmsg/routing"
)

// part is the operations of a call that fall into one bucket, by their indices.
type part struct {
	bucket bucket
	ops    []int
}

// split groups n operations by bucket, in the order in which the buckets first occur.
func split(n int, bucketOf func(i int) bucket) []part {
	parts := make([]part, 0, n)
	index := make(map[bucket]int, n)
	for i := range n {
		b := bucketOf(i)
		at, known := index[b]
		if !known {
			at = len(parts)
			index[b] = at
			parts = append(parts, part{bucket: b})
		}
		parts[at].ops = append(parts[at].ops, i)
	}
	return parts
}

// Bind implements [routing.Registry], in one round trip to each master.
//
// Bind asks for the sessions' state in the same round trip, after the binding. If a session is
// dead, Bind restores the previous binding by compare-and-swap. On a Redis Cluster, where the two
// answers come from different masters, a session that dies at that very moment may get its binding.
// The sweep removes it.
func (r *Registry) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	v, known := r.losses.snapshot()
	results := make([]routing.BindResult, len(ops))
	asked := make([]int, 0, len(ops)) // indices of ops
	for i, op := range ops {
		if op.Certain && !known {
			results[i].Status = routing.Unanswered
			continue
		}
		asked = append(asked, i)
	}
	parts := split(len(asked), func(k int) bucket { return r.keys.bucketOf(v.key, ops[asked[k]].ID) })
	bundles := bundled(parts, r.clustered())
	commands := make([]goredis.Cmder, 0, len(bundles)+1)
	for _, b := range bundles {
		commands = append(commands, newCallWithKeys(bindScript, r.bindKeys(b), r.bindArgs(v, ops, asked, b)...))
	}
	states := make(map[routing.SessionID]*goredis.BoolCmd, 1)
	for _, i := range asked {
		if session := ops[i].Session; states[session] == nil {
			states[session] = goredis.NewBoolCmd(ctx, "hexists", r.keys.session(session), deadField)
			commands = append(commands, states[session])
		}
	}
	if len(parts) == 0 {
		return results, r.mayBegin(ctx)
	}
	if err := r.doSome(ctx, len(bundles), commands...); err != nil {
		return nil, err
	}
	for k, b := range bundles {
		if err := r.readBindReply(commands[k].(*call), b, asked, results); err != nil {
			return nil, err
		}
	}
	return results, r.refuseDead(ctx, v, ops, results, states)
}

// bundle is the parts of a call that one script call carries out together. To call a script costs
// Redis more than to bind an ID.
type bundle struct {
	parts  []part
	groups []int          // of the parts' buckets, as the keys have them
	place  [groups]uint16 // by group: its place among them, from 1 on
	ops    int
}

// bundleMost is about how many IDs a bundle has at most. Redis does nothing else meanwhile.
const bundleMost = 1024

// bundled puts parts together. On a Redis Cluster, a script call has keys of one group only.
func bundled(parts []part, clustered bool) (all []*bundle) {
	var latest *bundle
	byGroup := make(map[int]*bundle)
	for _, p := range parts {
		g, b := p.bucket.group(), latest
		if clustered {
			b = byGroup[g]
		}
		if b == nil || b.ops >= bundleMost {
			b = &bundle{}
			all = append(all, b)
			latest, byGroup[g] = b, b
		}
		b.add(p, g)
	}
	return all
}

func (b *bundle) add(p part, group int) {
	if b.place[group] == 0 {
		b.groups = append(b.groups, group)
		b.place[group] = uint16(len(b.groups))
	}
	b.parts, b.ops = append(b.parts, p), b.ops+len(p.ops)
}

// readBindReply writes bind.lua's reply for a bundle's IDs into results.
func (r *Registry) readBindReply(c *call, b *bundle, asked []int, results []routing.BindResult) error {
	reply, err := c.Text()
	if err != nil {
		for _, p := range b.parts {
			for _, k := range p.ops {
				results[asked[k]].Status = routing.Unanswered
			}
		}
		return nil
	}
	if !b.decodeReply(reply, asked, results) {
		return r.unavailable(fmt.Errorf("bind: a reply of %d bytes for %d IDs", len(reply), b.ops))
	}
	for _, p := range b.parts {
		for _, k := range p.ops {
			if result := &results[asked[k]]; result.Status == 0 {
				r.losses.suspect() // the marker has changed: the data may be lost
				result.Status = routing.Unanswered
			}
		}
	}
	return nil
}

// decodeReply reads bind.lua's reply. It returns false if the reply is not one for the bundle.
func (b *bundle) decodeReply(reply string, asked []int, results []routing.BindResult) bool {
	if len(reply) < 8 || (len(reply)-8)%bindReplyLen != 0 {
		return false
	}
	bound := routing.BindResult{Status: routing.Bound, Epoch: decodeUint(reply)}
	reply = reply[8:]
	next := func() int { // the place of the next ID that is not simply bound
		if reply == "" {
			return b.ops
		}
		return int(binary.BigEndian.Uint32([]byte(reply[:4])))
	}
	i, other := 0, next()
	for _, p := range b.parts {
		for _, k := range p.ops {
			result := bound
			if i == other {
				result = decodeBindResult(reply[4:bindReplyLen])
				reply = reply[bindReplyLen:]
				other = next()
			}
			results[asked[k]] = result
			i++
		}
	}
	return reply == ""
}

// bindKeys are the keys of bind.lua for a bundle.
func (r *Registry) bindKeys(b *bundle) []string {
	keys := make([]string, 0, len(b.groups)+len(b.parts))
	for _, g := range b.groups {
		keys = append(keys, r.keys.marker(g))
	}
	for _, p := range b.parts {
		keys = append(keys, r.keys.bucket(p.bucket))
	}
	return keys
}

// bindArgs are the arguments of bind.lua for a bundle.
func (r *Registry) bindArgs(v *view, ops []routing.BindOp, asked []int, b *bundle) []any {
	now, rebuilding := int64(0), 0
	if r.config.Clock != nil {
		now = r.config.Clock().UnixMicro()
	}
	if r.losses.recovering() {
		rebuilding = 1
	}
	args := make([]any, 0, 8+len(b.groups)+2*b.ops)
	args = append(args, rebuilding, now, routing.MaxClock, routing.MaxAsserted, routing.MaxEpochAhead.Microseconds())
	layout := make([]byte, 0, 5*len(b.parts))
	for _, p := range b.parts {
		layout = append(layout, byte(b.place[p.bucket.group()]-1))
		layout = binary.BigEndian.AppendUint32(layout, uint32(len(p.ops)))
	}
	args = append(args, len(b.groups), b.ops, layout)
	for _, g := range b.groups {
		args = append(args, v.markers[g])
	}
	first := ops[asked[b.parts[0].ops[0]]]
	alike := true
	for _, p := range b.parts {
		for _, k := range p.ops {
			op := ops[asked[k]]
			args = append(args, op.ID)
			alike = alike && sameButID(&op, &first)
		}
	}
	if alike {
		return append(args, packBind(&first))
	}
	for _, p := range b.parts {
		for _, k := range p.ops {
			args = append(args, packBind(&ops[asked[k]]))
		}
	}
	return args
}

// sameButID reports whether packBind gives the same for both.
func sameButID(a, b *routing.BindOp) bool {
	return a.Session == b.Session && a.Epoch == b.Epoch && a.Expect == b.Expect && a.Known == b.Known &&
		(a.ID == "") == (b.ID == "")
}

// packBind is what bind.lua has to know of an op besides its ID.
func packBind(op *routing.BindOp) []byte {
	// An epoch that no double can hold is as impossible as the greatest that one can. The empty
	// string is not an ID, but the bucket's own field, so no epoch is possible for it.
	epoch := min(op.Epoch, routing.MaxEpoch)
	if op.ID == "" {
		epoch = routing.MaxEpoch
	}
	packed := appendBinding(make([]byte, 0, 2*bindingLen+1), routing.Binding{Session: op.Session, Epoch: epoch})
	packed = appendBinding(packed, op.Expect)
	if op.Known {
		packed = append(packed, 1)
	}
	return packed
}

// bindReplyLen is the length of what bind.lua says of one ID: its place, status, epoch, incumbent.
const bindReplyLen = 4 + 1 + 8 + bindingLen

func decodeBindResult(s string) routing.BindResult {
	incumbent, _ := decodeBinding(s[9:])
	return routing.BindResult{Status: routing.BindStatus(s[0]), Epoch: decodeUint(s[1:]), Incumbent: incumbent}
}

// refuseDead undoes the binds of dead sessions. If Redis does not say whether a session is dead,
// its binds are Unanswered.
func (r *Registry) refuseDead(ctx context.Context, v *view, ops []routing.BindOp, results []routing.BindResult,
	states map[routing.SessionID]*goredis.BoolCmd) error {
	var undo []swap
	for i, op := range ops {
		state := states[op.Session]
		if state != nil && !succeeded(state) {
			results[i] = routing.BindResult{Status: routing.Unanswered}
			continue
		}
		if state == nil || !state.Val() || results[i].Status == routing.Unanswered {
			continue
		}
		if results[i].Status == routing.Bound {
			bound := routing.Binding{Session: op.Session, Epoch: results[i].Epoch}
			undo = append(undo, swap{bucket: r.keys.bucketOf(v.key, op.ID), id: op.ID, binding: bound, back: results[i].Incumbent})
		}
		results[i] = routing.BindResult{Status: routing.Dead}
	}
	// a binding of a dead session must not stay because its caller had no more time
	ctx = context.WithoutCancel(ctx)
	undone, err := r.swap(ctx, undo)
	if err != nil {
		return err
	}
	// A dead session's bindings may be removed at any time, even one in whose place a binding has
	// to be restored. Then nobody holds the ID, and a re-assert restores the binding. If somebody
	// holds the ID by now, the re-assert is superseded.
	var again []routing.BindOp
	for k, u := range undo {
		if !undone[k].Removed && u.back != (routing.Binding{}) {
			again = append(again, routing.BindOp{ID: u.id, Session: u.back.Session, Epoch: u.back.Epoch, Known: true})
		}
	}
	if len(again) > 0 {
		_, err = r.Bind(ctx, again)
	}
	return err
}

// swap is a binding to remove from a bucket, and one to put in its place, zero for none.
type swap struct {
	bucket        bucket
	id            string
	binding, back routing.Binding
}

// swap returns for each whether the binding was there.
func (r *Registry) swap(ctx context.Context, swaps []swap) ([]routing.UnbindResult, error) {
	parts := split(len(swaps), func(i int) bucket { return swaps[i].bucket })
	if len(parts) == 0 {
		return nil, r.mayBegin(ctx)
	}
	commands := make([]goredis.Cmder, len(parts))
	for k, p := range parts {
		args := make([]any, 0, 3*len(p.ops))
		for _, i := range p.ops {
			var back []byte
			if swaps[i].back != (routing.Binding{}) {
				back = encodeBinding(swaps[i].back)
			}
			args = append(args, swaps[i].id, encodeBinding(swaps[i].binding), back)
		}
		commands[k] = newCall(unbindScript, r.keys.bucket(p.bucket), args...)
	}
	if err := r.doSome(ctx, len(parts), commands...); err != nil {
		return nil, err
	}
	results := make([]routing.UnbindResult, len(swaps))
	for k, p := range parts {
		reply, err := commands[k].(*call).Text()
		if err == nil && len(reply) != len(p.ops) {
			return nil, r.unavailable(fmt.Errorf("unbind: a reply of %d bytes for %d IDs", len(reply), len(p.ops)))
		}
		for n, i := range p.ops {
			results[i] = routing.UnbindResult{Removed: err == nil && reply[n] == '1', Unanswered: err != nil}
		}
	}
	return results, nil
}

// Unbind implements [routing.Registry], in one round trip to each master.
func (r *Registry) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	v, _ := r.losses.snapshot()
	swaps := make([]swap, len(ops))
	for i, op := range ops {
		swaps[i] = swap{bucket: r.keys.bucketOf(v.key, op.ID), id: op.ID, binding: routing.Binding{Session: op.Session, Epoch: op.Epoch}}
	}
	return r.swap(ctx, swaps)
}

// Lookup implements [routing.Registry], in one round trip to each master. Each bucket's answer is
// followed by its group's marker. Without the marker, a miss proves nothing.
func (r *Registry) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	v, _ := r.losses.snapshot()
	parts := split(len(ids), func(i int) bucket { return r.keys.bucketOf(v.key, ids[i]) })
	if len(parts) == 0 {
		return nil, r.mayBegin(ctx)
	}
	commands := make([]goredis.Cmder, 0, 2*len(parts))
	markers := make(map[int]*goredis.StringCmd, len(parts))
	for _, p := range parts {
		args := make([]any, 0, 2+len(p.ops))
		args = append(args, "hmget", r.keys.bucket(p.bucket))
		for _, i := range p.ops {
			args = append(args, ids[i])
		}
		commands = append(commands, goredis.NewSliceCmd(ctx, args...))
	}
	for _, p := range parts {
		if g := p.bucket.group(); markers[g] == nil {
			markers[g] = r.readMarker(ctx, g)
			commands = append(commands, markers[g])
		}
	}
	if err := r.doSome(ctx, len(parts), commands...); err != nil {
		return nil, err
	}
	results := make([]routing.LookupResult, len(ids))
	for k, p := range parts {
		c := commands[k].(*goredis.SliceCmd)
		values := c.Val()
		if succeeded(c) && len(values) != len(p.ops) {
			return nil, r.unavailable(fmt.Errorf("hmget: %d values for %d IDs", len(values), len(p.ops)))
		}
		certain := succeeded(c) && r.certain(v, p.bucket.group(), markers[p.bucket.group()])
		for n, i := range p.ops {
			value := ""
			if succeeded(c) {
				value, _ = values[n].(string)
			}
			binding, found := decodeBinding(value)
			results[i] = routing.LookupResult{Binding: binding, Unknown: !found && !certain}
		}
	}
	return results, nil
}

func (r *Registry) readMarker(ctx context.Context, group int) *goredis.StringCmd {
	return goredis.NewStringCmd(ctx, "get", r.keys.marker(group))
}
