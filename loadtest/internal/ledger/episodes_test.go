package ledger

import (
	"fmt"
	"testing"

	"distmsg/codec"
)

// TestEpisodes plays messages to two receivers around two faults. Times are small numbers.
func TestEpisodes(t *testing.T) {
	e := newEpisodes(2, 0)
	end := func(receiver uint32, code codec.Code, at, now int64) {
		t.Helper()
		e.ended(receiver, code, at, now)
	}
	end(0, codec.CodeAcked, 1, 2)
	e.Mark("kill", true, 10)
	end(0, codec.CodeLost, 9, 11)  // in flight when the fault began: its doing
	end(1, codec.CodeAcked, 9, 12) // acked: of the time before
	end(0, codec.CodeUnreachable, 12, 13)
	end(0, codec.CodeAcked, 15, 16)
	end(1, codec.CodeAcked, 15, 16) // receiver 1 never failed
	e.Mark("back", false, 20)
	end(0, codec.CodeUnreachable, 18, 21) // later than the first acked one: not back yet
	end(0, codec.CodeAcked, 22, 23)
	end(0, codec.CodeAcked, 21, 24) // left before that
	e.Mark("stop", true, 30)
	end(1, codec.CodeTimeout, 25, 31) // also the doing of the second fault
	end(7, codec.CodeNoRoute, 31, 32) // nobody has that ID
	e.Mark("end", false, 40)
	end(0, codec.CodeTimeout, 45, 46) // after the fault, but nothing else can be the reason

	var got []string
	for _, p := range e.All() {
		failed, missing, after := p.Recovery()
		got = append(got, fmt.Sprintf("%s: acked %d (%d), lost %d, unreachable %d, timeout %d; %d failed, %d not back, after %d", p.Name,
			p.Outcomes[codec.CodeAcked], p.Latency.TotalCount(), p.Outcomes[codec.CodeLost], p.Outcomes[codec.CodeUnreachable], p.Outcomes[codec.CodeTimeout],
			failed, missing, after))
	}
	want := []string{
		": acked 2 (2), lost 0, unreachable 0, timeout 0; 0 failed, 0 not back, after 0",
		"kill: acked 2 (2), lost 1, unreachable 2, timeout 0; 1 failed, 0 not back, after 11",
		"back: acked 2 (2), lost 0, unreachable 0, timeout 0; 0 failed, 0 not back, after 0",
		"stop: acked 0 (0), lost 0, unreachable 0, timeout 1; 2 failed, 2 not back, after 0",
		"end: acked 0 (0), lost 0, unreachable 0, timeout 1; 0 failed, 0 not back, after 0",
	}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Errorf("got\n%s\nwant\n%s", got[i], want[i])
		}
	}
}
