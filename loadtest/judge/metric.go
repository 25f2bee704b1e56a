package judge

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"distmsg/codec"
	"distmsg/loadtest/result"
)

// unit is what a metric is measured in.
type unit int

const (
	seconds unit = iota
	perSecond
	messages // a count, which may also be given as a share of the messages sent
	things   // any other count
	bytes
)

// metric is one figure of a report. of returns false if the run did not measure it.
type metric struct {
	unit unit
	of   func(*result.Report) (v float64, known bool)
}

// metrics returns all metrics by their names.
func metrics() map[string]metric {
	all := map[string]metric{
		"rate":                {perSecond, func(r *result.Report) (float64, bool) { return known(r.Rate) }},
		"driver_cpu":          {seconds, func(r *result.Report) (float64, bool) { return known(r.DriverCPU) }},
		"server_cpu":          {seconds, func(r *result.Report) (float64, bool) { return known(r.ServerCPU) }},
		"server_rss":          {bytes, func(r *result.Report) (float64, bool) { return known(r.ServerRSS) }},
		"landing":             {seconds, func(r *result.Report) (float64, bool) { return float64(r.Landing), true }},
		"silence":             {seconds, func(r *result.Report) (float64, bool) { return float64(r.MaxSilence), true }},
		"recovery":            {seconds, recovery},
		"sent":                count(messages, func(r *result.Report) uint64 { return r.Sent }),
		"delivered":           count(messages, func(r *result.Report) uint64 { return r.Delivered }),
		"unexpected_no_route": count(messages, func(r *result.Report) uint64 { return r.Outcomes["no_route"] - r.ExpectedNoRoute }),
		"unsent":              count(messages, func(r *result.Report) uint64 { return r.Unsent }),
		"unanswered":          count(messages, func(r *result.Report) uint64 { return r.Unanswered }),
		"faults":              count(messages, func(r *result.Report) uint64 { return r.Faults.Total() }),
		"lost_connections":    count(things, func(r *result.Report) uint64 { return r.LostConnections }),
		"down_connections":    count(things, func(r *result.Report) uint64 { return r.DownConnections }),
		"moves":               count(things, func(r *result.Report) uint64 { return r.Moves }),
		"drains":              count(things, func(r *result.Report) uint64 { return r.Drains }),
	}
	for name, of := range map[string]func(*result.Latency) result.Seconds{
		"p50":   func(l *result.Latency) result.Seconds { return l.P50 },
		"p90":   func(l *result.Latency) result.Seconds { return l.P90 },
		"p99":   func(l *result.Latency) result.Seconds { return l.P99 },
		"p99.9": func(l *result.Latency) result.Seconds { return l.P999 },
		"max":   func(l *result.Latency) result.Seconds { return l.Max },
	} {
		all[name] = metric{seconds, func(r *result.Report) (float64, bool) {
			if r.Latency == nil {
				return 0, false
			}
			return float64(of(r.Latency)), true
		}}
	}
	for name := range (result.Faults{}).ByName() {
		all[name] = count(messages, func(r *result.Report) uint64 { return r.Faults.ByName()[name] })
	}
	for _, code := range codec.Outcomes() {
		word := code.String()
		all[word] = count(messages, func(r *result.Report) uint64 { return r.Outcomes[word] })
	}
	return all
}

func count(u unit, of func(*result.Report) uint64) metric {
	return metric{u, func(r *result.Report) (float64, bool) { return float64(of(r)), true }}
}

func known[T float64 | result.Seconds | uint64](p *T) (float64, bool) {
	if p == nil {
		return 0, false
	}
	return float64(*p), true
}

// format writes a value of this unit.
func (u unit) format(v float64) string {
	switch u {
	case seconds:
		return result.Seconds(v).String()
	case perSecond:
		return fmt.Sprintf("%.0f/s", v)
	case bytes:
		return fmt.Sprintf("%.1f MiB", v/(1<<20))
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// Names lists the names of all metrics, sorted.
func Names() []string { return slices.Sorted(maps.Keys(metrics())) }
