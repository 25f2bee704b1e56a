package judge

import "distmsg/loadtest/result"

// Ratio compares what two servers needed for one load. The aim is the highest ratio that is good
// enough, or 0. A ratio of rounds compares what the servers needed in the same round, when the
// machine was in the same mood.
func Ratio(m result.Metric, of, to *result.Entry, aim float64) result.Ratio {
	r := result.Ratio{Of: of.Server, To: to.Server, Aim: aim}
	if a, b := of.Median(m), to.Median(m); a > 0 && b > 0 {
		r.Value = float64(a / b)
		r.Low, r.High = r.Value, r.Value
	}
	for i := range min(len(of.All), len(to.All)) {
		if of.All[i] > 0 && to.All[i] > 0 && r.Value > 0 {
			v := float64(of.All[i] / to.All[i])
			r.Low, r.High = min(r.Low, v), max(r.High, v)
		}
	}
	r.Missed = aim > 0 && (r.Value == 0 || r.Value > aim)
	return r
}
