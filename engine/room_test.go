package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	sdk "distmsg/client"
	"distmsg/codec"
)

// countOK returns how many of the results are ok, and wants all others to be overflow.
func countOK(t *testing.T, results []codec.Result) (ok int) {
	t.Helper()
	for i, r := range results {
		switch r.Code {
		case codec.CodeOK:
			ok++
		case codec.CodeOverflow:
		default:
			t.Errorf("%d: %v", i, r)
		}
	}
	return ok
}

func idsFrom(name string, from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprint(name, i))
	}
	return ids
}

// A session may hold MaxSessionIDs, exactly: what is bound again counts once, whatever ends a
// binding gives its room back, and other sessions have room of their own.
func TestMaxSessionIDs(t *testing.T) {
	const most = 100
	n := start(t, Config{Loops: 2, MaxSessionIDs: most})
	c, other := n.join(), n.join()
	ids := idsFrom("c", 0, most+20)
	bind := func(c *client, ids ...string) []codec.Result {
		return c.tryBind(codec.PolicyKickOld, withEpochs(ids)...)
	}
	results := bind(c, ids...)
	if ok := countOK(t, results); ok != most {
		t.Fatalf("%d bound, want %d", ok, most)
	}
	if got := n.counters().IDsRefused; got != 20 {
		t.Errorf("%d IDs counted as refused, want 20", got)
	}
	var held, refused []string
	for i, r := range results {
		if r.Code == codec.CodeOK {
			held = append(held, ids[i])
		} else {
			refused = append(refused, ids[i])
		}
	}
	if ok := countOK(t, bind(c, append(held, held...)...)); ok != 2*most {
		t.Errorf("%d of %d bound again", ok, 2*most)
	}
	for i, r := range c.lookup(refused...) {
		if r.Code != codec.CodeNoRoute {
			t.Errorf("%s, which was refused: %v", refused[i], r)
		}
	}
	if ok := countOK(t, bind(other, idsFrom("other", 0, most)...)); ok != most {
		t.Errorf("another session: %d bound, want %d", ok, most)
	}
	other.nc.Close()

	// An unbind, and a kick, each make room for one.
	epoch := bind(c, held[0])[0].Epoch
	if r := c.unbind(held[0], epoch); r.Code != codec.CodeOK {
		t.Fatal(r)
	}
	kicker := n.join()
	c.kicked(held[1], kicker.bind(held[1]))
	if ok := countOK(t, bind(c, refused...)); ok != 2 {
		t.Errorf("after an unbind and a kick %d more bound, want 2", ok)
	}
	// An ID that stands twice takes room once.
	twice := n.join(idsFrom("twice", 1, most)...)
	if ok := countOK(t, bind(twice, "a", "a")); ok != 2 {
		t.Errorf("%d bound, want a, twice", ok)
	}
	if ok := countOK(t, bind(twice, "b")); ok != 0 {
		t.Error("b is one too many, and bound")
	}
}

// refused binds IDs, of which a limit refuses some. A limit may pass, so the SDK tries again until
// its time is up, and then the error names the limit. If it does not, no answer came in that time,
// as on a busy machine, and the bind gets more.
func refused(t *testing.T, s *sdk.Session, limit string, ids ...string) {
	t.Helper()
	for wait := 50 * time.Millisecond; ; wait *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		err := s.Bind(ctx, ids...)
		cancel()
		switch {
		case err == nil:
			t.Fatalf("%s let it pass", limit)
		case strings.Contains(err.Error(), limit):
			return
		case !errors.Is(err, sdk.ErrTimeout) || wait > 10*time.Second:
			t.Fatal(err)
		}
	}
}

// All sessions of a node together may hold MaxNodeIDs. One that ends gives its room back. The
// reason names the limit, for sessions in the process, too.
func TestMaxNodeIDs(t *testing.T) {
	const most = 100
	n := start(t, Config{Loops: 2, MaxNodeIDs: most, MaxSessionIDs: most - 10, ResumeWindow: 50 * time.Millisecond})
	c := n.join(idsFrom("c", 0, most/2)...)
	inner := n.attach(sdk.Config{}, idsFrom("inner", 0, most/2)...)
	refused(t, inner, "max-node-ids", "more")
	if err := inner.Bind(t.Context(), "c0"); err != nil { // which the node has already
		t.Error(err)
	}
	c.nc.Close()
	n.eventually("there is room again", func() bool { return n.table.Len() == most/2+1 })
	refused(t, inner, "max-session-ids", idsFrom("more", 0, most/2-1)...)
	if got := n.table.Session(sessionOf(inner)).Len(); got != most-10 {
		t.Errorf("the session has %d IDs, want %d", got, most-10)
	}
	if ids, sessions := n.dir.Probe().RoomKept(); ids != 0 || sessions != 0 {
		t.Errorf("room is kept for %d IDs, of %d sessions, that nobody binds", ids, sessions)
	}
}
