package judge

import (
	"math"
	"slices"

	"distmsg/loadtest/result"
)

// Ratio compares what two servers needed for one load. The aim is the highest ratio that is good
// enough, or 0. A ratio of rounds compares what the servers needed in the same round, when the
// machine was in the same mood.
func Ratio(m result.Metric, of, to *result.Entry, aim float64) result.Ratio {
	r := result.Ratio{Of: of.Server, To: to.Server, Aim: aim}
	if a, b := of.Median(m), to.Median(m); a > 0 && b > 0 {
		r.Value = float64(a / b)
		r.Low, r.High = r.Value, r.Value
	}
	var rounds []float64
	for i := range min(len(of.All), len(to.All)) {
		if of.All[i] > 0 && to.All[i] > 0 && r.Value > 0 {
			v := float64(of.All[i] / to.All[i])
			rounds = append(rounds, v)
			r.Low, r.High = min(r.Low, v), max(r.High, v)
		}
	}
	if aim > 0 {
		r.Verdict = outcome(r.Value, rounds, aim)
	}
	return r
}

// leastRounds is how many rounds the outcome of an aim needs. If the median of all possible rounds
// is at the aim, all of three are above it in one of eight cases, all of five in one of 32.
const leastRounds = 3

// outcome says what became of an aim. A verdict other than Unclear needs the ratio of the medians
// and the bounds of the rounds on one side of it.
func outcome(value float64, rounds []float64, aim float64) result.Outcome {
	low, high := medianBounds(rounds)
	switch {
	case value == 0:
		return result.Missed
	case len(rounds) < leastRounds:
		return result.Unclear
	case value <= aim && high <= aim:
		return result.Reached
	case value > aim && low > aim:
		return result.Missed
	}
	return result.Unclear
}

// medianBounds returns the narrowest two of the values between which the median of all possible
// rounds lies in 95 of 100 cases. With less than six values no two do, and it returns the lowest
// and the highest. Whatever the noise is like, a round is above that median as often as below it.
func medianBounds(values []float64) (low, high float64) {
	n := len(values)
	if n == 0 {
		return 0, 0
	}
	const unlikely = 0.025 // how often the median may lie beyond one of the two
	sorted := slices.Sorted(slices.Values(values))
	cut := 0
	exactly := math.Exp2(-float64(n)) // the chance that so many rounds are below the median
	atMost := exactly
	for cut < n/2 {
		exactly *= float64(n-cut) / float64(cut+1)
		if atMost += exactly; atMost > unlikely {
			break
		}
		cut++
	}
	return sorted[cut], sorted[n-1-cut]
}
