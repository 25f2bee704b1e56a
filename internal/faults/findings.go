package faults

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"distmsg/loadtest"
)

// Slack is how much a promised bound may be exceeded before a proof fails, because the machines
// that run tests are small and also do other things.
const Slack = 2 * time.Second

// Findings is the result of one proof.
type Findings struct {
	fault  string
	lines  []finding
	report *loadtest.Report
}

type finding struct {
	what, promised, measured string
	bad                      string // why a promise was broken; empty: it was kept
}

// NewFindings begins a proof.
func NewFindings(fault string) *Findings { return &Findings{fault: fault} }

// Within records how long something took. It must not take longer than promised plus Slack.
func (f *Findings) Within(what string, promised, took time.Duration) {
	f.within(what, promised, promised+Slack, took)
}

// Stall records the longest stall of a loop. The promise is under 100 ms, but the check allows up
// to a second, because a busy machine may take the CPU away from a thread for a shorter time.
func (f *Findings) Stall(took time.Duration) {
	f.within("longest loop stall", 100*time.Millisecond, time.Second, took)
}

func (f *Findings) within(what string, promised, allowed, took time.Duration) {
	line := finding{what: what, promised: "≤ " + promised.String(), measured: took.Round(time.Millisecond).String()}
	if took > promised {
		line.measured += " (over what is promised, within what is allowed here)"
	}
	if took > allowed {
		line.measured = took.Round(time.Millisecond).String()
		line.bad = fmt.Sprintf("more than %v", allowed)
	}
	f.lines = append(f.lines, line)
}

// Outcomes records how sends ended, by outcome. There must be some, and all must be allowed.
func (f *Findings) Outcomes(what string, got map[string]uint64, allowed ...string) {
	line := finding{what: what, promised: "only " + strings.Join(allowed, ", "), measured: counts(got)}
	for _, word := range slices.Sorted(maps.Keys(got)) {
		if got[word] > 0 && !slices.Contains(allowed, word) {
			line.bad = fmt.Sprintf("%d %s", got[word], word)
		}
	}
	if line.measured == "" {
		line.bad = "nothing was sent"
	}
	f.lines = append(f.lines, line)
}

// Count records a number, which must be as promised.
func (f *Findings) Count(what string, promised, got int) {
	line := finding{what: what, promised: fmt.Sprint(promised), measured: fmt.Sprint(got)}
	if got != promised {
		line.bad = "a difference"
	}
	f.lines = append(f.lines, line)
}

// Ledger records what the load test found. Its ledger must be clean, and messages must have been
// acked.
func (f *Findings) Ledger(report *loadtest.Report) {
	f.report = report
	f.LedgerOf("ledger", report)
}

// LedgerOf is Ledger for a load besides the one that every proof has.
func (f *Findings) LedgerOf(what string, report *loadtest.Report) {
	line := finding{what: what, promised: "no fault", measured: fmt.Sprintf("%d sent; %s", report.Sent, counts(report.Outcomes))}
	judged := *report
	judged.Partial = false // a proof stops its load when the fault is over
	if code, why := judged.Verdict(); code != loadtest.ExitOK {
		line.bad = why
	} else if report.Acked == 0 {
		line.bad = "no message was acked"
	}
	f.lines = append(f.lines, line)
}

// Err returns nil if every promise was kept and the ledger was recorded.
func (f *Findings) Err() error {
	var errs []error
	for _, line := range f.lines {
		if line.bad != "" {
			errs = append(errs, fmt.Errorf("%s: %s: %s, promised %s: %s", f.fault, line.what, line.measured, line.promised, line.bad))
		}
	}
	if f.report == nil {
		errs = append(errs, fmt.Errorf("%s: the ledger was not asked", f.fault))
	}
	return errors.Join(errs...)
}

// String returns a table in Markdown.
func (f *Findings) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s | promised | measured |\n| --- | --- | --- |\n", f.fault)
	for _, line := range f.lines {
		verdict := ""
		if line.bad != "" {
			verdict = " **NOT AS PROMISED: " + line.bad + "**"
		}
		fmt.Fprintf(&b, "| %s | %s | %s%s |\n", line.what, line.promised, line.measured, verdict)
	}
	return b.String()
}

// counts lists what is not 0.
func counts(got map[string]uint64) string {
	var list []string
	for _, word := range slices.Sorted(maps.Keys(got)) {
		if got[word] > 0 {
			list = append(list, fmt.Sprintf("%s %d", word, got[word]))
		}
	}
	return strings.Join(list, ", ")
}
