package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/routing"
)

// A duplicate login with kick-old: the newcomer wins, and the old holder gets a kick (S13).
func TestKickOld(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		old := to.bind("x")
		newcomer := n.join()
		epoch := newcomer.bind("x")
		if epoch <= old || epoch >= routing.MaxEpoch {
			t.Errorf("epoch %d after %d", epoch, old)
		}
		to.kicked("x", epoch)
		if d := from.send("from", "x", "hi"); d > 0 {
			got := newcomer.gets("from", "x", "hi")
			if got.Epoch != epoch {
				t.Errorf("epoch %d, want %d", got.Epoch, epoch)
			}
			newcomer.ack(got, "")
			from.hears(d, codec.CodeAcked)
		}
		to.hears(to.send("x", "from", "I am x"), codec.CodeDenied)
		// Binding an ID again gives a new epoch and no kick.
		if again := newcomer.bind("x"); again <= epoch {
			t.Errorf("epoch %d after %d", again, epoch)
		}
		newcomer.silent()
		to.silent()
		from.exchange("from", to, "to")
	})
}

// A duplicate login with reject-new: a live holder keeps the ID, within its resume window too.
func TestRejectNew(t *testing.T) {
	long(t)
	t.Parallel()
	n := start(t, Config{Loops: 2, ResumeWindow: 2 * time.Second})
	holder, newcomer := n.join(), n.join()
	epoch := holder.bind("x")
	taken := codec.Result{Code: codec.CodeTaken, Epoch: epoch}
	if r := newcomer.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x", "y"})...); r[0] != taken || r[1].Code != codec.CodeOK {
		t.Errorf("%v", r)
	}
	if r := holder.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x"})...); r[0].Code != codec.CodeOK || r[0].Epoch <= epoch {
		t.Errorf("binding one's own: %v", r)
	} else {
		taken.Epoch = r[0].Epoch
	}
	holder.silent()
	holder.nc.Close()
	n.eventually("it is detached", func() bool { return newcomer.lookupCode("x") == codec.CodeUnreachable })
	if r := newcomer.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x"})...); r[0] != taken {
		t.Errorf("within the window: %v", r)
	}
	n.eventually("the window is over", func() bool { return newcomer.lookupCode("x") == codec.CodeNoRoute })
	if r := newcomer.tryBind(codec.PolicyRejectNew, withEpochs([]string{"x"})...); r[0].Code != codec.CodeOK || r[0].Epoch <= taken.Epoch {
		t.Errorf("after the window: %v", r)
	}
}

func TestReassert(t *testing.T) {
	n := start(t, Config{Loops: 2})
	a, b := n.join(), n.join()
	first := a.bind("x")
	second := b.bind("x")
	a.kicked("x", second)
	for _, policy := range []codec.Policy{codec.PolicyKickOld, codec.PolicyRejectNew} {
		if r := a.tryBind(policy, withEpochs([]string{"x"}, first)...); r[0] != (codec.Result{Code: codec.CodeSuperseded, Epoch: second}) {
			t.Errorf("an old epoch: %v", r)
		}
		if r := a.tryBind(policy, withEpochs([]string{"x"}, second)...); r[0] != (codec.Result{Code: codec.CodeSuperseded, Epoch: second}) {
			t.Errorf("another session's epoch: %v", r)
		}
		if r := b.tryBind(policy, withEpochs([]string{"x"}, second)...); r[0] != (codec.Result{Epoch: second}) {
			t.Errorf("the epoch that stands: %v", r)
		}
	}
	if r := a.tryBind(codec.PolicyKickOld, withEpochs([]string{"x"}, 1<<52)...); r[0].Code != codec.CodeRegistryUnavailable {
		t.Errorf("an epoch that nobody minted, which is what it looks like to a clock that is wrong: %v", r)
	}
	// A client may claim a newer epoch that does not exist. It gets the ID from nobody that way.
	day := uint64((23 * time.Hour).Microseconds())
	for _, epoch := range []uint64{second + 1, a.bind("of its own"), second + day} {
		for _, policy := range []codec.Policy{codec.PolicyKickOld, codec.PolicyRejectNew} {
			if r := a.tryBind(policy, withEpochs([]string{"x"}, epoch)...); r[0].Code != codec.CodeRegistryUnavailable {
				t.Errorf("an epoch that is newer by %d: %v", epoch-second, r)
			}
		}
	}
	if got := a.lookup("x")[0]; got.Epoch != second {
		t.Errorf("%v stands, want %d", got, second)
	}
	a.silent()
	b.silent()
}

func TestUnbind(t *testing.T) {
	acrossLoops(t, Config{}, func(t *testing.T, n *node, from, to *client) {
		epoch := to.bind("x")
		for _, c := range []struct {
			who   *client
			id    string
			epoch uint64
			want  codec.Result
		}{
			{to, "x", epoch - 1, codec.Result{Code: codec.CodeSuperseded, Epoch: epoch}},
			{to, "x", epoch + 1, codec.Result{Code: codec.CodeSuperseded, Epoch: epoch}},
			{to, "x", 0, codec.Result{Code: codec.CodeSuperseded, Epoch: epoch}},
			{from, "x", epoch, codec.Result{Code: codec.CodeSuperseded, Epoch: epoch}},
			{to, "nobody", 5, codec.Result{Code: codec.CodeNoRoute}},
			{to, "", 5, codec.Result{Code: codec.CodeBadID}},
			{to, "x", epoch, codec.Result{}},
			{to, "x", epoch, codec.Result{Code: codec.CodeNoRoute}},
		} {
			if got := c.who.unbind(c.id, c.epoch); got != c.want {
				t.Errorf("%q %d: %v, want %v", c.id, c.epoch, got, c.want)
			}
		}
		from.hears(from.send("from", "x", "hi"), codec.CodeNoRoute)
		to.hears(to.send("x", "from", "hi"), codec.CodeDenied)
		from.exchange("from", to, "to")
	})
}

func TestLookup(t *testing.T) {
	n := start(t, Config{Loops: 2})
	c, other := n.join(), n.join()
	mine, gone := c.bind("mine"), other.bind("gone")
	other.nc.Close()
	n.eventually("it is detached", func() bool { return c.lookupCode("gone") == codec.CodeUnreachable })
	want := []codec.Result{{Epoch: mine}, {Code: codec.CodeNoRoute}, {Code: codec.CodeUnreachable, Epoch: gone}, {Epoch: mine}, {Code: codec.CodeBadID}}
	for i, r := range c.lookup("mine", "nobody", "gone", "mine", "") {
		if r != want[i] {
			t.Errorf("%d: %v, want %v", i, r, want[i])
		}
	}
	for range 2 { // empty lists have empty answers
		if r := c.lookup(); len(r) != 0 {
			t.Errorf("%v", r)
		}
		if r := c.tryBind(codec.PolicyKickOld); len(r) != 0 {
			t.Errorf("%v", r)
		}
	}
}

// A frame has room for max_ids IDs of 255 bytes.
func TestManyIDs(t *testing.T) {
	n := start(t, Config{Loops: 2})
	c := n.join()
	ids := make([]string, n.limits.MaxIDs)
	for i := range ids {
		ids[i] = fmt.Sprintf("%0255d", i)
	}
	results := c.tryBind(codec.PolicyRejectNew, withEpochs(ids)...)
	list := withEpochs(ids)
	for i, r := range results {
		if r.Code != codec.CodeOK {
			t.Fatalf("%d: %v", i, r)
		}
		list[i].Epoch = r.Epoch
	}
	if got := n.Stats().IDs; got != len(ids) {
		t.Errorf("%d IDs", got)
	}
	for i, r := range c.lookup(ids...) {
		if r.Code != codec.CodeOK || r.Epoch != list[i].Epoch {
			t.Fatalf("%d: %v", i, r)
		}
	}
	c.exchange(ids[0], c, ids[1023])
	c.seq++
	c.write(codec.AppendUnbind(nil, c.seq, list))
	for i, r := range c.requested(codec.KindUnbound) {
		if r.Code != codec.CodeOK {
			t.Fatalf("%d: %v", i, r)
		}
	}
	if got := n.Stats().IDs; got != 0 {
		t.Errorf("%d IDs", got)
	}
}

// An ID that appears twice in a frame gets two answers. The later binding stands.
func TestTwiceInAFrame(t *testing.T) {
	n := start(t, Config{})
	old, c := n.join("x"), n.join()
	r := c.tryBind(codec.PolicyKickOld, withEpochs([]string{"x", "y", "x"})...)
	if r[0].Code != codec.CodeOK || r[2].Code != codec.CodeOK || r[2].Epoch <= r[0].Epoch {
		t.Errorf("%v", r)
	}
	old.kicked("x", r[0].Epoch)
	if got := c.lookup("x")[0]; got.Epoch != r[2].Epoch {
		t.Errorf("%v stands, want %d", got, r[2].Epoch)
	}
	old.silent()
}

// The node handles requests about one ID in the order sent, even if the client does not wait for
// answers.
func TestRequestOrder(t *testing.T) {
	n := start(t, Config{})
	c := n.join()
	epoch := c.bind("x")
	var burst []byte
	const rounds = 200
	for i := range uint64(rounds) {
		burst = codec.AppendUnbind(burst, 10*i+1, withEpochs([]string{"x"}, epoch))
		burst = codec.AppendLookup(burst, 10*i+2, [][]byte{[]byte("x")})
		burst = codec.AppendBind(burst, 10*i+3, 0, withEpochs([]string{"x"}, epoch))
	}
	c.write(burst)
	for i := range uint64(rounds) {
		for k, kind := range []codec.Kind{codec.KindUnbound, codec.KindFound, codec.KindBound} {
			c.seq = 10*i + uint64(k) + 1
			r := c.requested(kind)
			if want := []codec.Code{codec.CodeOK, codec.CodeNoRoute, codec.CodeOK}[k]; r[0].Code != want {
				t.Fatalf("round %d: %v says %v", i, kind, r)
			}
		}
	}
}

// down is a registry that a test can switch off.
type down struct {
	routing.Registry
	off atomic.Bool
}

func (d *down) Bind(ctx context.Context, ops []routing.BindOp) ([]routing.BindResult, error) {
	if d.off.Load() {
		return nil, routing.ErrUnavailable
	}
	return d.Registry.Bind(ctx, ops)
}

func (d *down) Unbind(ctx context.Context, ops []routing.UnbindOp) ([]routing.UnbindResult, error) {
	if d.off.Load() {
		return nil, routing.ErrUnavailable
	}
	return d.Registry.Unbind(ctx, ops)
}

func (d *down) Lookup(ctx context.Context, ids []string) ([]routing.LookupResult, error) {
	if d.off.Load() {
		return nil, routing.ErrUnavailable
	}
	return d.Registry.Lookup(ctx, ids)
}

func (d *down) Presence(ctx context.Context, s routing.SessionID) (routing.SessionPresence, error) {
	if d.off.Load() {
		return routing.SessionPresence{}, routing.ErrUnavailable
	}
	return d.Registry.Presence(ctx, s)
}

// Without its registry a node binds nothing new. It keeps serving what it knows.
func TestRegistryUnavailable(t *testing.T) {
	reg := &down{Registry: routing.NewMemory(routing.MemoryConfig{})}
	n := start(t, Config{Loops: 2, Registry: reg})
	a, b := n.join("a"), n.join("b")
	epoch := a.bind("x")
	reg.off.Store(true)
	unavailable := codec.CodeRegistryUnavailable
	if r := b.tryBind(codec.PolicyKickOld, withEpochs([]string{"x", "", "new"})...); r[0].Code != unavailable || r[1].Code != codec.CodeBadID || r[2].Code != unavailable {
		t.Errorf("bind: %v", r)
	}
	if r := a.unbind("x", epoch); r.Code != unavailable {
		t.Errorf("unbind: %v", r)
	}
	if r := b.lookup("x", "nobody"); r[0] != (codec.Result{Epoch: epoch}) || r[1].Code != unavailable {
		t.Errorf("lookup: %v", r)
	}
	b.exchange("b", a, "x")
	a.exchange("x", b, "b")
	reg.off.Store(false)
	b.bind("x")
	a.expect(codec.KindKick)
	a.exchange("a", b, "x")
}

// Sessions that come and go leave nothing behind.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	reg := routing.NewMemory(routing.MemoryConfig{})
	n := start(t, Config{Loops: 2, ResumeWindow: 100 * time.Millisecond, Registry: reg})
	for i := range 50 {
		c := n.join(fmt.Sprint("a", i), fmt.Sprint("b", i))
		if i%2 == 0 {
			c.write(codec.AppendBye(nil))
			c.ends()
		} else {
			c.nc.Close()
		}
	}
	n.eventually("all are gone", func() bool {
		s := n.Stats()
		return s.Sessions == 0 && s.IDs == 0 && s.Connections == 0 && s.Closed == s.Accepted
	})
	n.settle()
	for i := range 50 {
		found, err := reg.Lookup(t.Context(), []string{fmt.Sprint("a", i), fmt.Sprint("b", i)})
		if err != nil || found[0] != (routing.LookupResult{}) || found[1] != (routing.LookupResult{}) {
			t.Errorf("%d: %v %v", i, found, err)
		}
	}
}
