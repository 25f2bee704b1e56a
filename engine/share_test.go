package engine

import (
	"fmt"
	"testing"

	"distmsg/ackmgr"
	"distmsg/codec"
	"distmsg/engine/internal/share"
)

// A loop waits for so many acks, and a few connections whose messages nobody acks must not take
// them all: those of others are sent and acked, and the reason that the few hear is true.
func TestAcksAreShared(t *testing.T) {
	const greedy, each, modest = 34, 3000, 50
	n := start(t, Config{MaxAcks: 1 << 16, DefaultTTL: patience})
	hole := make([]string, each)
	for i := range hole {
		hole[i] = fmt.Sprintf("hole-%d", i)
	}
	n.joinMany(hole...)
	refused := 0
	for i := range greedy {
		name := fmt.Sprintf("greedy-%d", i)
		c := n.joinMany(name)
		c.multicast(name, "x", codec.FlagAck, hole...)
		over := int(n.counters().Outcomes[codec.CodeOverflow]) - refused
		refused += over
		outcomes, _ := c.tells(over)
		for seq, o := range outcomes {
			if string(o.Reason) != string(reasonShare) {
				t.Fatalf("%s: send %d ended %v: %s", name, seq, o.Code, o.Reason)
			}
		}
	}
	from, to := n.join("from"), n.join("to")
	for range modest {
		from.send("from", "to", "hello")
	}
	for range modest {
		to.ack(to.gets("from", "to", "hello"), "")
	}
	for range modest {
		if o := from.outcome(); o.Code != codec.CodeAcked {
			t.Fatalf("a send of somebody else ended %v: %s", o.Code, o.Reason)
		}
	}
	if s := n.counters(); s.OverShare != uint64(refused) || refused == 0 || s.Pending+refused != greedy*each {
		t.Errorf("%d sends were refused; %d are counted, and %d are pending", refused, s.OverShare, s.Pending)
	}
}

// However many connections take all that they can get, each of the others can still send.
func TestAckShares(t *testing.T) {
	for _, greedy := range []int{1, 10, 100, 1000, 5000} {
		const most = 1 << 18
		l := bareLoop()
		l.settle.most, l.settle.acks = most, ackmgr.New(ackmgr.Config{Max: most}, 0)
		first := 0
		for i := range greedy {
			held := 0
			for ; held < l.settle.share(); held++ {
				if _, ok := l.settle.acks.Arm(ackmgr.Entry{}, 1000, 0, 0); !ok {
					break
				}
			}
			if i == 0 {
				first = held
			}
		}
		free, mine := most-l.settle.acks.Len(), l.settle.share()
		t.Logf("%d connections leave %d of %d, and the next one may have %d", greedy, free, most, mine)
		if mine > free || mine < 1 {
			t.Errorf("%d connections: a share is %d of %d", greedy, mine, free)
		}
		if greedy == 1 && first < most/16 {
			t.Errorf("one connection alone gets %d of %d", first, most)
		}
		if want := min(most/share.Reserve/2, most/(greedy+1)); greedy <= 1000 && free < want {
			t.Errorf("%d connections leave %d, want %d", greedy, free, want)
		}
	}
}
