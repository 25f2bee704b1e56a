package redis

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"distmsg/internal/proc"
	"distmsg/routing"
)

// The histories bind one ID after the other. Here calls have many ops: for IDs that nobody has, for
// IDs that somebody has, for one ID twice, of one kind and of several. With one bucket, the
// registry in memory must say the same of each.
func TestMixedBatches(t *testing.T) {
	t.Parallel()
	now := time.UnixMicro(1e15)
	clock := func() time.Time { return now }
	config := quiet(testConfig(startRedis(t, proc.RedisOptions{}).URL()))
	config.Buckets, config.Clock = 1, clock
	stored, naive := open(t, config), routing.NewMemory(routing.MemoryConfig{Clock: clock})
	random := rand.New(rand.NewPCG(1, 2))
	sessions := []routing.SessionID{routing.NewSessionID(), routing.NewSessionID(), routing.NewSessionID()}
	held := make(map[string]routing.Binding)
	for round := range 300 {
		if random.IntN(3) > 0 {
			now = now.Add(time.Duration(random.IntN(100)-20) * time.Microsecond)
		}
		alike := random.IntN(2) == 0
		first := randomOp(random, sessions, held)
		var ops []routing.BindOp
		for range 1 + random.IntN(40) {
			op := first
			if op.ID = fmt.Sprint("id-", random.IntN(20+round)); !alike {
				op = randomOp(random, sessions, held)
			}
			ops = append(ops, op)
		}
		want, err := naive.Bind(t.Context(), ops)
		if err != nil {
			t.Fatal(err)
		}
		got, err := stored.Bind(t.Context(), ops)
		if err != nil {
			t.Fatal(err)
		}
		for i, op := range ops {
			if got[i] != want[i] {
				t.Fatalf("round %d, op %d of %d, %+v: %+v, want %+v", round, i, len(ops), op, got[i], want[i])
			}
			if got[i].Status == routing.Bound {
				held[op.ID] = routing.Binding{Session: op.Session, Epoch: got[i].Epoch}
			}
		}
	}
}

// randomOp mints or re-asserts, and expects the holder or somebody else.
func randomOp(random *rand.Rand, sessions []routing.SessionID, held map[string]routing.Binding) routing.BindOp {
	op := routing.BindOp{ID: fmt.Sprint("id-", random.IntN(60)), Session: sessions[random.IntN(3)], Known: random.IntN(3) == 0}
	now := held[op.ID]
	if random.IntN(3) == 0 {
		op.Expect = now
	}
	if random.IntN(2) == 0 && now.Epoch > 0 {
		op.Epoch = now.Epoch - 1 + random.Uint64N(4)
	}
	return op
}

// A reply that does not fit its bundle is refused, and no result is read beyond its end.
func TestBindReplies(t *testing.T) {
	b := &bundle{}
	b.add(part{ops: []int{0, 1}}, 0)
	b.add(part{ops: []int{2}}, 1)
	at := func(place uint32, status byte) string {
		other := append(binary.BigEndian.AppendUint32(nil, place), status)
		return string(other) + strings.Repeat("\x00", 8+bindingLen)
	}
	now := "\x00\x00\x00\x00\x00\x00\x00\x07"
	for _, c := range []struct {
		reply string
		fits  bool
	}{
		{now, true}, {now + at(1, 2), true}, {now + at(0, 2) + at(1, 2) + at(2, 2), true},
		{"", false}, {now[:7], false}, {now + at(1, 2)[1:], false}, {now + at(3, 2), false},
		{now + at(1, 2) + at(0, 2), false}, {now + at(1, 2) + at(1, 2), false},
	} {
		results := make([]routing.BindResult, 3)
		if b.decodeReply(c.reply, []int{0, 1, 2}, results) != c.fits {
			t.Errorf("reply %q: fits is not %v", c.reply, c.fits)
		}
	}
	results := make([]routing.BindResult, 3)
	b.decodeReply(now+at(1, byte(routing.Taken)), []int{2, 1, 0}, results)
	bound := routing.BindResult{Status: routing.Bound, Epoch: 7}
	if results[0] != bound || results[1].Status != routing.Taken || results[2] != bound {
		t.Errorf("read %+v", results)
	}
}
