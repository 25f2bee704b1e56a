package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// reports is what the client program reports. The scenario's goroutine owns it.
type reports struct {
	play      *play
	pending   []string // that no scenario has consumed yet
	mayRefuse bool     // "cannot" is a report that the scenario waits for
}

// unasked lists the reports that no scenario has consumed: one of them may have come in place of
// the expected one.
func (rs *reports) unasked() string {
	if len(rs.pending) == 0 {
		return ""
	}
	return fmt.Sprintf("; it reported %q", rs.pending)
}

// told waits for a report and consumes it.
func (rs *reports) told(section, expected, report string) {
	rs.play.until(rs.play.latest(), section, fmt.Sprintf("%s: the program reports %q", expected, report), func() bool {
		i := slices.Index(rs.pending, report)
		if i < 0 {
			return false
		}
		rs.pending = slices.Delete(rs.pending, i, i+1)
		return true
	})
}

// toldOne waits for one of several reports, consumes it, and returns which one it was.
func (rs *reports) toldOne(section, expected string, reports ...string) (which int) {
	rs.play.until(rs.play.latest(), section, fmt.Sprintf("%s: the program reports one of %q", expected, reports), func() bool {
		for i, r := range reports {
			if at := slices.Index(rs.pending, r); at >= 0 {
				which = i
				rs.pending = slices.Delete(rs.pending, at, at+1)
				return true
			}
		}
		return false
	})
	return which
}

// outcomes waits for the reports of messages 1 to n of an instruction, which must all have the same
// outcome.
func (rs *reports) outcomes(section, expected, to string, n int, word, delivered string) {
	for k := 1; k <= n; k++ {
		rs.told(section, expected, fmt.Sprintf("%s %s %d %s %s", saysOutcome, to, k, word, delivered))
	}
}

// heard handles a report.
func (rs *reports) heard(s *send) {
	text := string(s.Payload)
	if what, cannot := strings.CutPrefix(text, saysCannot+" "); cannot && !rs.mayRefuse {
		rs.play.end(Skip, "the client cannot "+what)
	}
	rs.pending = append(rs.pending, text)
}
