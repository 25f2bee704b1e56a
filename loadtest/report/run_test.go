package report

import (
	"testing"

	"distmsg/loadtest/result"
)

// The churn that the load asks for is no mark, but what is more than that is.
func TestMarksWithChurn(t *testing.T) {
	for _, v := range []struct{ churn, moves, marks int }{{0, 0, 0}, {0, 1, 1}, {2, 2, 0}, {2, 3, 0}, {2, 9, 1}} {
		r := &result.Report{Config: result.Settings{ChurnMoves: float64(v.churn), ChurnReconnects: float64(v.churn)},
			Timeline: []result.Point{{Length: 1, Round: 1, Moves: uint64(v.moves)}, {At: 1, Length: 1, Round: 1, LostConnections: uint64(v.moves)}}}
		if got := len(marksOf(r)); got != 2*v.marks {
			t.Errorf("churn of %d a second, %d moves and %d lost connections: %d marks, want %d", v.churn, v.moves, v.moves, got, 2*v.marks)
		}
	}
}

// Nothing is known of the server in most soaks. The charts then have no line for it.
func TestSoakWithoutServer(t *testing.T) {
	s := exampleSoak()
	for i := range s.Samples {
		s.Samples[i].Server = nil
	}
	for _, chart := range soakCharts(s)[:3] {
		if len(chart.Lines) != 1 || chart.Lines[0].Name != "load test" {
			t.Errorf("the chart %s has the lines %v", chart.ID, chart.Lines)
		}
	}
}

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
