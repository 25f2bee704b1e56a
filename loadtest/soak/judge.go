package soak

import (
	"distmsg/loadtest/result"
	"distmsg/loadtest/trend"
)

// A series is one thing that must not grow.
type series struct {
	what, unit string
	floor      float64 // growth an hour that is never too much
	of         func(*result.SoakSample) (v float64, known bool)
	own        bool // of the load test, and of no node
	disturbed  bool // by other processes of this machine
}

// settling is the share of the time that is not judged: caches and pools fill.
const settling = 0.1

const (
	mib    = 1 << 20
	micros = 1e-6
)

// Judge finds the trends of a soak.
func Judge(s *result.Soak) {
	s.Settled = result.Of(s.Length()) * settling
	busier := othersBusier(s)
	for _, what := range all(s.Config.InProcess) {
		points, seen := pointsOf(s, what.of)
		if !seen {
			continue
		}
		t := trend.Of(points, trend.Limits{Share: s.MaxShare, Floor: what.floor})
		if t.Verdict == trend.Grows && what.disturbed && busier {
			t.Verdict, t.Why = trend.CannotTell, "other processes of this machine used more and more CPU"
		}
		s.Trends = append(s.Trends, result.SoakTrend{What: what.what, Unit: what.unit, Start: t.Start, End: t.End,
			PerHour: t.Slope, Low: t.Low, High: t.High, Allowed: t.Allowed, Grows: t.Verdict == trend.Grows, Own: what.own, Verdict: string(t.Verdict), Why: t.Why})
	}
}

// pointsOf returns the values of what is judged, and whether any is known.
func pointsOf(s *result.Soak, of func(*result.SoakSample) (v float64, known bool)) (points []trend.Point, seen bool) {
	for i := range s.Samples {
		sample := &s.Samples[i]
		v, known := of(sample)
		seen = seen || known
		if known && sample.Phase == result.Measuring && sample.At >= s.Settled {
			points = append(points, trend.Point{At: float64(sample.At + sample.Length), Value: v})
		}
	}
	return points, seen
}

// disturbing is a rise in the CPUs that other processes use, from the start to the end. From this
// rise on, it may be why latency grows.
const disturbing = 0.1

// othersBusier reports whether the other processes of this machine used more and more CPU. If the
// server may be one of them, its own growth is no excuse.
func othersBusier(s *result.Soak) bool {
	if !s.Config.InProcess && s.Config.ServerPID == 0 {
		return false
	}
	var before *result.SoakSample
	points, _ := pointsOf(s, func(sample *result.SoakSample) (cpus float64, known bool) {
		if before != nil && before.Others != nil && sample.Others != nil && sample.Length > 0 {
			cpus, known = float64(*sample.Others-*before.Others)/float64(sample.Length), true
		}
		before = sample
		return cpus, known
	})
	t := trend.Of(points, trend.Limits{})
	return t.Low > 0 && t.End-t.Start >= disturbing
}

// all lists what is judged.
func all(inProcess bool) []series {
	tool := "the load test's "
	if inProcess {
		tool = "this process's "
	}
	server := func(s *result.SoakSample) *result.Usage { return s.Server }
	own := func(s *result.SoakSample) *result.Usage { return &s.Tool }
	list := append(process("the server's ", false, server), process(tool, !inProcess, own)...)
	return append(list,
		latency("p50", 50*micros, func(l *result.Latency) result.Seconds { return l.P50 }),
		latency("p99", 200*micros, func(l *result.Latency) result.Seconds { return l.P99 }),
		latency("p99.9", 1000*micros, func(l *result.Latency) result.Seconds { return l.P999 }))
}

// process lists what is judged of a process.
func process(whose string, own bool, of func(*result.SoakSample) *result.Usage) []series {
	figure := func(pick func(*result.Usage) *uint64) func(*result.SoakSample) (float64, bool) {
		return func(s *result.SoakSample) (float64, bool) {
			u := of(s)
			if u == nil {
				return 0, false
			}
			v := pick(u)
			if v == nil {
				return 0, false
			}
			return float64(*v), true
		}
	}
	return []series{
		{whose + "memory", "bytes", 4 * mib, figure(func(u *result.Usage) *uint64 { return u.RSS }), own, false},
		{whose + "open files", "count", 2, figure(func(u *result.Usage) *uint64 { return u.FDs }), own, false},
		{whose + "goroutines", "count", 2, figure(func(u *result.Usage) *uint64 { return u.Goroutines }), own, false},
	}
}

func latency(name string, floor float64, pick func(*result.Latency) result.Seconds) series {
	return series{name, "seconds", floor, func(s *result.SoakSample) (float64, bool) {
		if s.Latency == nil {
			return 0, false
		}
		return float64(pick(s.Latency)), true
	}, false, true}
}
