package trend

import (
	"math"
	"math/rand/v2"
	"testing"
)

// series returns n points, one every 30 s.
func series(n int, value func(i int) float64) []Point {
	points := make([]Point, n)
	for i := range points {
		points[i] = Point{float64(i) * 30, value(i)}
	}
	return points
}

func TestVerdicts(t *testing.T) {
	const mib = 1 << 20
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(share float64) float64 { return 1 + share*(random.Float64()*2-1) }
	memory := Limits{Share: 0.05, Floor: 4 * mib}
	for name, c := range map[string]struct {
		points []Point
		limits Limits
		want   Verdict
	}{
		"noise":                {series(480, func(int) float64 { return 100 * mib * noise(0.1) }), memory, Steady},
		"constant":             {series(12, func(int) float64 { return 40 }), Limits{0.05, 2}, Steady},
		"leak under noise":     {series(480, func(i int) float64 { return 100*mib*noise(0.1) + 10*mib*float64(i)/120 }), memory, Grows},
		"leak of two an hour":  {series(480, func(i int) float64 { return math.Floor(40 + 3*float64(i)/120) }), Limits{0.05, 2}, Grows},
		"slow growth":          {series(480, func(i int) float64 { return 100*mib*noise(0.02) + 1*mib*float64(i)/120 }), memory, Steady},
		"step":                 {series(480, func(i int) float64 { return 100*mib*noise(0.05) + 10*mib*math.Floor(float64(i)/360) }), memory, Steady},
		"large step":           {series(480, func(i int) float64 { return 100*mib*noise(0.05) + 50*mib*math.Floor(float64(i)/240) }), memory, CannotTell},
		"saw-tooth":            {series(480, func(i int) float64 { return 100*mib + mib*float64(i%9) }), memory, Steady},
		"saw-tooth that leaks": {series(480, func(i int) float64 { return 100*mib + mib*float64(i%9) + 10*mib*float64(i)/120 }), memory, Grows},
		"level that is reached": {series(480, func(i int) float64 { return 100 * mib * (2 - math.Exp(-float64(i)/120)) }), memory,
			CannotTell},
		"falls":           {series(480, func(i int) float64 { return 100*mib - 10*mib*float64(i)/480 }), memory, Steady},
		"leak of minutes": {series(20, func(i int) float64 { return 100*mib + 20*mib*float64(i)/120 }), memory, CannotTell},
		"fast leak":       {series(20, func(i int) float64 { return 100*mib + 200*mib*float64(i)/120 }), memory, Grows},
		"few":             {series(11, func(i int) float64 { return 40 * float64(i) }), Limits{0.05, 2}, CannotTell},
		"too noisy":       {series(12, func(int) float64 { return 100 * mib * noise(0.5) }), memory, CannotTell},
		"nothing":         {nil, memory, CannotTell},
		"one":             {series(1, func(int) float64 { return 5 }), memory, CannotTell},
	} {
		got := Of(c.points, c.limits)
		if got.Verdict != c.want || (got.Why != "") != (c.want == CannotTell) || got.Low > got.Slope || got.High < got.Slope {
			t.Errorf("%s: %+v, want %s", name, got, c.want)
		}
	}
}

// TestSlope compares with values that are known.
func TestSlope(t *testing.T) {
	line := Of(series(1000, func(i int) float64 { return 5 + float64(i)*30/3600*7 }), Limits{0.05, 1})
	if math.Abs(line.Slope-7) > 1e-6 || math.Abs(line.Low-7) > 1e-6 || math.Abs(line.High-7) > 1e-6 || line.Verdict != Grows {
		t.Errorf("a line that rises by 7 an hour: %+v", line)
	}
	if line.Start > line.End || line.Start < 5 {
		t.Errorf("from %g to %g", line.Start, line.End)
	}
	short := Of([]Point{{0, 1}, {1, 2}, {1, 2}, {2, 3}}, Limits{})
	if short.Slope != 3600 || short.Verdict != CannotTell {
		t.Errorf("two points at one moment: %+v", short)
	}
}
