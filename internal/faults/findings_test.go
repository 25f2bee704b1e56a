package faults

import (
	"strings"
	"testing"
	"time"

	"distmsg/loadtest"
)

func good() *loadtest.Report {
	return &loadtest.Report{Sent: 2, Acked: 2, Rate: new(1.0), Outcomes: map[string]uint64{"acked": 2}}
}

// What is as promised passes, and each way not to be fails, and says so in the table.
func TestFindings(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		find func(*Findings)
		want string // in the error; empty: none
	}{
		"good": {func(f *Findings) {
			f.Within("reach", time.Second, 3*time.Second)
			f.Stall(999 * time.Millisecond)
			f.Outcomes("sends", map[string]uint64{"acked": 1, "lost": 0}, "acked")
			f.Count("kicks", 0, 0)
			f.Ledger(good())
		}, ""},
		"late":  {func(f *Findings) { f.Ledger(good()); f.Within("reach", time.Second, 3001*time.Millisecond) }, "more than 3s"},
		"stall": {func(f *Findings) { f.Ledger(good()); f.Stall(1001 * time.Millisecond) }, "more than 1s"},
		"outcome": {func(f *Findings) {
			f.Ledger(good())
			f.Outcomes("sends", map[string]uint64{"acked": 9, "lost": 1}, "acked")
		}, "1 lost"},
		"no outcome": {func(f *Findings) { f.Ledger(good()); f.Outcomes("sends", nil, "acked") }, "nothing was sent"},
		"kick":       {func(f *Findings) { f.Ledger(good()); f.Count("kicks", 0, 1) }, "a difference"},
		"stopped": {func(f *Findings) {
			r := good()
			r.Partial = true
			f.Ledger(r)
			f.Within("a", 1, 2)
			f.Within("b", 1, 2)
		}, ""},
		"stopped with an error": {func(f *Findings) {
			r := good()
			r.Partial, r.Errors = true, map[string]uint64{"kick": 1}
			f.Ledger(r)
		}, "kick 1"},
		"no ledger": {func(f *Findings) { f.Count("kicks", 0, 0) }, "not asked"},
		"fault":     {func(f *Findings) { r := good(); r.Faults.FalseAcked = 1; f.Ledger(r) }, "false_acked 1"},
		"error":     {func(f *Findings) { r := good(); r.Errors = map[string]uint64{"kick": 1}; f.Ledger(r) }, "kick 1"},
		"down":      {func(f *Findings) { r := good(); r.DownConnections = 3; f.Ledger(r) }, "3 connections"},
		"idle":      {func(f *Findings) { r := good(); r.Acked = 0; f.Ledger(r) }, "no message was acked"},
	} {
		f := NewFindings("fault")
		tc.find(f)
		err := f.Err()
		if tc.want == "" {
			if strings.Count(f.String(), "over what is promised") != 2 {
				t.Errorf("%s: what took longer than promised is not marked:\n%s", name, f)
			}
			if err != nil || strings.Contains(f.String(), "NOT AS PROMISED") {
				t.Errorf("%s: %v\n%s", name, err, f)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if name != "no ledger" && !strings.Contains(f.String(), tc.want) {
			t.Errorf("%s: the table does not say %q:\n%s", name, tc.want, f)
		}
	}
}
