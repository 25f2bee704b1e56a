package attack

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"distmsg/codec"
	"distmsg/internal/faults"
)

// sessions opens sessions that bind one ID each and vanish. Multicasts to these IDs at another node
// make that node ask for the presence of all these sessions.
func sessions(ctx context.Context, t *Target) {
	gone := make(chan []byte, 1<<16)
	go t.each(ctx, 1, func(int) error { return t.sendTo(ctx, t.Clients[len(t.Clients)-1], gone) })
	t.each(ctx, t.n(32), func(i int) error {
		for n := 0; ctx.Err() == nil; n++ {
			w, err := join(ctx, t.Clients[0])
			if err != nil {
				t.count("hellos refused", 1)
				faults.Pause(ctx, 10*time.Millisecond)
				continue
			}
			id := fmt.Appendf(nil, "short-%d-%d", i, n)
			if _, err := w.bind([][]byte{id}); err == nil {
				t.count("short sessions", 1)
				select {
				case gone <- id:
				default:
				}
			}
			w.nc.Close()
		}
		return nil
	})
}

// sendTo sends one multicast a second to the IDs from the channel. Nobody has looked them up
// before.
func (t *Target) sendTo(ctx context.Context, addr string, ids <-chan []byte) error {
	w, err := join(ctx, addr)
	if err != nil {
		return err
	}
	me := []byte("short-sender")
	if _, err := w.bind([][]byte{me}); err != nil {
		return err
	}
	t.drain(ctx, w)
	for seq := 1; faults.Pause(ctx, time.Second); {
		var to [][]byte
		for more := true; more && len(to) < 10_000; {
			select {
			case id := <-ids:
				to = append(to, id)
			default:
				more = false
			}
		}
		if len(to) == 0 {
			continue
		}
		m := codec.Multicast{Seq: uint64(seq), From: me, TTL: 1000, Flags: codec.FlagAck}
		if err := w.write(codec.AppendMulticast(nil, &m, to)); err != nil {
			return err
		}
		t.count("sends to their IDs", len(to))
		seq += len(to)
	}
	return nil
}

// strangers sends to IDs that nobody has bound or looked up before.
func strangers(ctx context.Context, t *Target) {
	const senders = 4
	t.each(ctx, senders, func(i int) error {
		w, err := join(ctx, t.Clients[0])
		if err != nil {
			return err
		}
		me := fmt.Appendf(nil, "stranger-%d", i)
		if _, err := w.bind([][]byte{me}); err != nil {
			return err
		}
		t.drain(ctx, w)
		to := make([][]byte, t.n(10_000))
		for seq := 1; faults.Pause(ctx, 500*time.Millisecond); seq += len(to) {
			for k := range to {
				to[k] = fmt.Appendf(to[k][:0], "s%d-%08x", i, seq+k)
			}
			m := codec.Multicast{Seq: uint64(seq), From: me, TTL: 1000, Flags: codec.FlagAck}
			if err := w.write(codec.AppendMulticast(nil, &m, to)); err != nil {
				return err
			}
			t.count("sends to strangers", len(to))
		}
		return nil
	})
}

// buckets binds IDs that a hash without a key puts into the buckets which the sweep reads in its
// first step.
func buckets(ctx context.Context, t *Target) {
	const attackers, all, hit = 8, 16_384, 64
	t.each(ctx, attackers, func(i int) error {
		w, err := join(ctx, t.Clients[i%len(t.Clients)])
		if err != nil {
			return err
		}
		ids := make([][]byte, 0, maxIDs)
		for n, left := uint64(i), t.n(3_000_000)/attackers; ctx.Err() == nil && left > 0; n += attackers {
			var b [8]byte
			binary.BigEndian.PutUint64(b[:], n)
			if xxhash.Sum64(b[3:])%all >= hit {
				continue
			}
			left--
			if ids = append(ids, slices.Clone(b[3:])); len(ids) < cap(ids) {
				continue
			}
			bound, err := w.bind(ids)
			t.count("IDs bound", bound)
			t.count("IDs refused", len(ids)-bound)
			if err != nil {
				return err
			}
			ids = ids[:0]
		}
		<-ctx.Done()
		return nil
	})
}
