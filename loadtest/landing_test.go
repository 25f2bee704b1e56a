package loadtest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"distmsg/codec"
	"distmsg/engine"
	"distmsg/loadtest/result"
)

// A node whose outcomes come slowly has not gone silent: each outcome restarts the grace. If the
// patience ends first, messages without an outcome are no fault of the node. But the run is not
// clean.
func TestOutcomesThatComeSlowly(t *testing.T) {
	node := startEngine(t, engine.Config{Loops: 1})
	for name, c := range map[string]struct {
		patience time.Duration
		want     ExitCode
	}{
		"until all are there": {0, ExitOK},
		"given up":            {time.Second, ExitFailure},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const grace, pause, inFlight = time.Second, 100 * time.Millisecond, 20
			var begin time.Time
			p := startProxy(t, node, func(_ *proxy, _ int, _ bool, kind codec.Kind, frame []byte) [][]byte {
				if kind == codec.KindOutcome {
					if begin.IsZero() {
						begin = time.Now()
					}
					if time.Since(begin) > 200*time.Millisecond {
						<-time.After(pause) // in the way of all others, as a node that is slow is
					}
				}
				return [][]byte{frame}
			})
			r := mustRun(t, Config{Nodes: []string{p.addr}, Conns: 4, Window: inFlight / 4,
				Warmup: -1, Duration: 300 * time.Millisecond, Grace: grace, Patience: c.patience})
			code, why := r.Verdict()
			if code != c.want || r.Faults != (Faults{}) || (r.Unanswered > 0) != (c.want != ExitOK) {
				t.Errorf("exit code %d (%s), %d unanswered, faults %+v", code, why, r.Unanswered, r.Faults)
			}
			if limit := inFlight * pause; c.want == ExitOK && (r.Landing <= result.Of(grace) || r.Landing > 5*result.Of(limit)) {
				t.Errorf("the last answer came after %s", r.Landing)
			}
			var text bytes.Buffer
			if err := r.WriteText(&text); err != nil || strings.Contains(text.String(), "clean:") != (c.want == ExitOK) {
				t.Errorf("%v:\n%s", err, &text)
			}
		})
	}
}
