package client

import (
	"testing"

	"pgregory.net/rapid"
)

// TestCallsModel compares the slab with a map.
func TestCallsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct {
			call     *call
			deadline int64
			cost     int
		}
		var tab calls
		open := make(map[uint64]entry)
		var ended []uint64
		some := func(t *rapid.T) uint64 {
			if len(open) == 0 {
				t.Skip("nothing is open")
			}
			seqs := make([]uint64, 0, len(open))
			for i := range tab.slots {
				if s := &tab.slots[i]; s.taken {
					seqs = append(seqs, (s.gen<<slotBits|uint64(i))<<1)
				}
			}
			return rapid.SampledFrom(seqs).Draw(t, "seq")
		}
		end := func(t *rapid.T, seq uint64) {
			want, known := open[seq]
			got, ok := tab.end(seq)
			if ok != known || ok && (got.call != want.call || got.cost != want.cost) {
				t.Fatalf("end(%#x) = %+v, %v; want %+v, %v", seq, got, ok, want, known)
			}
			if ok {
				delete(open, seq)
				ended = append(ended, seq)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) {
				if tab.len() != len(open) {
					t.Fatalf("%d entries, want %d", tab.len(), len(open))
				}
			},
			"add": func(t *rapid.T) {
				e := entry{new(call), rapid.Int64Range(0, 100).Draw(t, "deadline"), rapid.IntRange(1, 1000).Draw(t, "cost")}
				seq := tab.add(e.call, e.deadline, e.cost)
				if _, twice := open[seq]; twice || seq == 0 || seq&seqPost != 0 {
					t.Fatalf("sequence number %#x", seq)
				}
				open[seq] = e
			},
			"end": func(t *rapid.T) { end(t, some(t)) },
			"again": func(t *rapid.T) {
				if len(ended) == 0 {
					t.Skip("nothing has ended")
				}
				end(t, rapid.SampledFrom(ended).Draw(t, "seq"))
			},
			"forged": func(t *rapid.T) { end(t, rapid.Uint64().Draw(t, "seq")) },
			"abandon": func(t *rapid.T) {
				seq := some(t)
				e := open[seq]
				if want := e.call != nil; tab.abandon(seq, e.call) != want && want {
					t.Fatal("not abandoned")
				}
				if tab.abandon(seq, new(call)) {
					t.Fatal("abandoned for a stranger")
				}
				e.call = nil
				open[seq] = e
			},
			"overdue": func(t *rapid.T) {
				now := rapid.Int64Range(0, 100).Draw(t, "now")
				got := tab.overdue(now, nil)
				for _, seq := range got {
					if e, ok := open[seq]; !ok || e.deadline >= now {
						t.Fatalf("%#x is overdue at %d: %+v %v", seq, now, e, ok)
					}
				}
				want := 0
				for _, e := range open {
					if e.deadline < now {
						want++
					}
				}
				if len(got) != want {
					t.Fatalf("%d are overdue, want %d", len(got), want)
				}
			},
		})
	})
}
