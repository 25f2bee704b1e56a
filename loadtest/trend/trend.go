// Package trend says whether a series of measurements grows: whether memory leaks, say, or whether
// it only looks so.
//
// The slope is the median of the slopes between all pairs of points (Theil and Sen). So outliers,
// and the saw-tooth of a garbage collector, change it little. Its bounds come from the spread of
// these slopes (Sen): they hold the true slope in 95 of 100 cases, if the noise of one point does
// not depend on that of the point before. Points that are many are thinned first, to medians of
// groups, which also makes that more likely.
//
// The package is pure.
package trend

import (
	"math"
	"slices"
)

// A Point is one measurement.
type Point struct {
	At    float64 // in seconds
	Value float64
}

// A Verdict says whether something grows.
type Verdict string

// The verdicts.
const (
	Grows      Verdict = "GROWS"
	Steady     Verdict = "steady"
	CannotTell Verdict = "cannot tell"
)

// Limits say how much growth is too much: more than Floor an hour, and more than Share of the level
// an hour. In less than an hour, it must have reached Floor as well, since a slope that was seen
// for minutes says little about hours.
type Limits struct {
	Share float64
	Floor float64
}

// A Trend is what a series says. The slopes are per hour.
type Trend struct {
	Start, End float64 // the medians of the first and the last fifth
	Slope      float64
	Low, High  float64 // the bounds of Slope
	Allowed    float64 // growth of more than this is too much
	Verdict    Verdict
	Why        string // why nobody can tell
}

const (
	least   = 12  // points for a verdict
	most    = 256 // points that are compared with each other
	minSpan = 60  // seconds from the first point to the last, for a verdict
	hour    = 3600.0
	// z is the number of standard deviations on each side that 95 of 100 values of a normal
	// distribution do not leave.
	z = 1.96
)

// Of judges a series. Its points stand in the order of time.
func Of(points []Point, limits Limits) Trend {
	if len(points) == 0 {
		return Trend{Verdict: CannotTell, Why: "nothing was measured"}
	}
	fifth := max(1, len(points)/5)
	t := Trend{Start: median(values(points[:fifth])), End: median(values(points[len(points)-fifth:])), Verdict: CannotTell}
	t.Allowed = max(limits.Floor, limits.Share*math.Abs(median(values(points))))
	thin := thinned(points)
	t.Slope, t.Low, t.High = slope(thin)
	half := len(thin) / 2
	switch span := points[len(points)-1].At - points[0].At; {
	case len(points) < least:
		t.Why = "too few measurements"
	case span < minSpan:
		t.Why = "too short"
	case t.Low > t.Allowed && t.Low*span/hour < limits.Floor:
		t.Why = "too short: so far, it rose by little"
	case t.Low > t.Allowed && inBoth(thin[:half], thin[half:], t.Allowed):
		t.Verdict = Grows
	case t.Low > t.Allowed:
		t.Why = "it rose, but not in both halves of the time"
	case t.High <= t.Allowed:
		t.Verdict = Steady
	default:
		t.Why = "too noisy for this time"
	}
	return t
}

// inBoth reports whether both halves grow by more than that an hour. A step, or a level that has
// been reached, is no growth that goes on.
func inBoth(first, second []Point, more float64) bool {
	a, _, _ := slope(first)
	b, _, _ := slope(second)
	return a > more && b > more
}

// slope returns the median of the slopes between all pairs of points, and its bounds, per hour.
func slope(points []Point) (middle, low, high float64) {
	var all []float64
	for i := range points {
		for j := range points[:i] {
			if dt := points[i].At - points[j].At; dt > 0 {
				all = append(all, (points[i].Value-points[j].Value)/dt*hour)
			}
		}
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	// Kendall's S, the number of rising pairs less that of falling ones, has this deviation if
	// there is no trend. As far as that from the middle are the bounds, in the order of the slopes.
	n := float64(len(points))
	deviation := math.Sqrt(n * (n - 1) * (2*n + 5) / 18)
	away := z * deviation / 2
	center := float64(len(all)-1) / 2
	at := func(rank float64) float64 { return all[max(0, min(len(all)-1, int(rank)))] }
	return median(all), at(math.Floor(center - away)), at(math.Ceil(center + away))
}

// thinned returns at most most points: medians of groups of the same size.
func thinned(points []Point) []Point {
	size := (len(points) + most - 1) / most
	if size <= 1 {
		return points
	}
	var thin []Point
	for group := range slices.Chunk(points, size) {
		var at []float64
		for _, p := range group {
			at = append(at, p.At)
		}
		thin = append(thin, Point{median(at), median(values(group))})
	}
	return thin
}

func values(points []Point) []float64 {
	list := make([]float64, len(points))
	for i, p := range points {
		list[i] = p.Value
	}
	return list
}

// median sorts the values.
func median(v []float64) float64 {
	slices.Sort(v)
	middle := len(v) / 2
	if len(v)%2 == 1 {
		return v[middle]
	}
	return (v[middle-1] + v[middle]) / 2
}
