package report

import (
	"testing"

	"distmsg/loadtest/result"
)

// A landing of a few milliseconds is no point of the charts, because lines would fall at the end.
func TestBriefLanding(t *testing.T) {
	for length, more := range map[result.Seconds]int{0.05: 0, 3: 1} {
		r := example()
		points := len(r.Timeline)
		r.Timeline = append(r.Timeline, result.Point{At: 33, Length: length, Phase: result.Landing, Round: 1, Completed: 20})
		for _, chart := range overTime(r) {
			if got := len(chart.X.Values); got != points+more || len(chart.Lines[0].Values) != got {
				t.Errorf("a landing of %v: the chart %s has %d points, want %d", length, chart.ID, got, points+more)
			}
		}
	}
}
