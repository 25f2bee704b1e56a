package engine

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"distmsg/codec"
)

// forgeries is how many forged acks, and forged binds, an attacker sends.
const forgeries = 1_000_000

// answered counts what the node answers an attacker, until it has heard of all forgeries.
func (c *client) answered(count func(f frame) int) <-chan error {
	done := make(chan error, 1)
	go func() {
		for n := 0; n < forgeries; {
			f, err := c.read()
			if err != nil {
				done <- err
				return
			}
			n += count(f)
		}
		done <- nil
	}()
	return done
}

// A million acks with tokens that were made up, changed, given to another session or used before:
// none ends a send.
func TestForgedAcks(t *testing.T) {
	long(t)
	n := start(t, Config{Loops: 2, DefaultTTL: patience})
	from, to, attacker := n.join("from"), n.join("to"), n.join("attacker")
	waiting := from.send("from", "to", "wait")
	real := to.delivered() // its token was given to another session
	used := from.send("from", "attacker", "hi")
	d := attacker.delivered()
	attacker.ack(d, "")
	from.hears(used, codec.CodeAcked)

	refused := make(map[codec.Fault]int)
	heard := attacker.answered(func(f frame) int {
		var e codec.ErrorFrame
		if f.kind != codec.KindError || codec.DecodeError(f.body, &e) != nil || e.Flags != 0 {
			return 0
		}
		refused[e.Fault]++
		return 1
	})
	r := rand.New(rand.NewPCG(1, 2))
	late, token, batch := 0, make([]byte, len(real.Token)), []byte(nil)
	for i := 0; i-late < forgeries; i++ {
		copy(token, real.Token)
		switch i % 4 {
		case 0: // changed
			token[r.IntN(len(token))] ^= 1 << r.IntN(8)
		case 1: // made up
			for k := range token {
				token[k] = byte(r.Uint32())
			}
		case 2: // counted on, as if slots were guessed
			binary.BigEndian.PutUint32(token[r.IntN(len(token)-3):], r.Uint32())
		case 3:
			if i%400 == 3 { // replayed: its message has ended, so it is late
				copy(token, d.Token)
				late++
			}
		}
		batch = codec.AppendAck(batch, &codec.Ack{Token: token, Code: codec.CodeAcked})
		if len(batch) > 32<<10 {
			attacker.write(batch)
			batch = batch[:0]
		}
	}
	attacker.write(batch)
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	s := n.counters()
	if refused[codec.FaultBadToken] != forgeries || s.AcksForged != forgeries || s.AcksLate != uint64(late) {
		t.Errorf("refused %v; forged %d, late %d of %d", refused, s.AcksForged, s.AcksLate, late)
	}
	if s.Pending != 1 || s.Outcomes[codec.CodeAcked] != 1 {
		t.Errorf("%d sends wait, %d are acked", s.Pending, s.Outcomes[codec.CodeAcked])
	}
	to.ack(real, "")
	from.hears(waiting, codec.CodeAcked)
}

// A million binds and re-asserts of IDs that the client may not have: each is denied, and nobody
// loses one. No other answer will do: a node that passes a re-assert of somebody else's ID on to
// the registry answers registry_unavailable, which says that the client may try again.
func TestForgedBinds(t *testing.T) {
	long(t)
	cfg, change := only()
	cfg.LoopGap = patience // what waits for longer ends registry_unavailable, too
	n := start(t, cfg)
	change(Identity{Name: "victim"})
	victim := n.join()
	epoch := victim.bind("v")
	change(Identity{Name: "attacker", IDs: []string{"m-*"}})
	attacker := n.join("m-1")
	const each = 1000
	// With many more frames at once, some end with overflow before anybody looks at their IDs.
	const atOnce = 4
	open := make(chan struct{}, atOnce)
	codes := make(map[codec.Code]int)
	heard := attacker.answered(func(f frame) int {
		var all codec.Results
		if f.kind != codec.KindBound || codec.DecodeResults(f.body, f.kind, &all) != nil {
			return 0
		}
		count := 0
		for r, ok := all.All.Next(); ok; r, ok = all.All.Next() {
			codes[r.Code]++
			count++
		}
		<-open
		return count
	})
	ids := make([]codec.IDEpoch, each)
	for seq := range uint64(forgeries / each) {
		for i := range ids {
			ids[i] = codec.IDEpoch{ID: []byte("m"), Epoch: 0}
			switch i % 4 {
			case 0:
				ids[i] = codec.IDEpoch{ID: []byte("v")}
			case 1:
				ids[i] = codec.IDEpoch{ID: []byte("v"), Epoch: epoch + uint64(i)}
			case 2:
				ids[i] = codec.IDEpoch{ID: binary.BigEndian.AppendUint64([]byte("M-"), seq*each+uint64(i)), Epoch: uint64(i)}
			}
		}
		select {
		case open <- struct{}{}:
		case err := <-heard:
			t.Fatalf("after %d frames: %v", seq, err)
		}
		attacker.write(codec.AppendBind(nil, seq, codec.Policy(seq%2), ids))
	}
	if err := <-heard; err != nil {
		t.Fatal(err)
	}
	if codes[codec.CodeDenied] != forgeries {
		t.Errorf("%v", codes)
	}
	victim.exchange("v", attacker, "m-1")
	if s := n.counters(); s.IDs != 2 || s.Sessions != 2 {
		t.Errorf("%d IDs of %d sessions", s.IDs, s.Sessions)
	}
	if got := victim.tryBind(codec.PolicyKickOld, codec.IDEpoch{ID: []byte("v"), Epoch: epoch})[0]; got.Code != codec.CodeOK || got.Epoch != epoch {
		t.Errorf("%+v", got)
	}
}
