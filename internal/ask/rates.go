package ask

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"distmsg/engine"
)

// sample is what all nodes said at one time.
type sample struct {
	At       time.Time                        `json:"at"`
	Nodes    engine.Asked[engine.NodeInfo]    `json:"nodes"`
	Sessions engine.Asked[engine.SessionInfo] `json:"slowest_sessions"`
}

// rates are what a node did in a second, between two samples.
type rates struct {
	node                                   engine.NodeInfo
	known                                  bool // there were two samples of one incarnation
	framesIn, framesOut, bytesIn, bytesOut float64
	sends                                  float64
	outcomes                               map[string]float64 // by code, without those that are 0
}

// ratesOf compares two samples, node by node.
func ratesOf(before, now sample) []rates {
	seconds := now.At.Sub(before.At).Seconds()
	all := make([]rates, 0, len(now.Nodes.Answers))
	for _, n := range now.Nodes.Answers {
		r := rates{node: n}
		i := slices.IndexFunc(before.Nodes.Answers, func(o engine.NodeInfo) bool { return o.Node == n.Node && o.StartedAt.Equal(n.StartedAt) })
		if i >= 0 && seconds > 0 {
			r.compare(before.Nodes.Answers[i].Counters, n.Counters, seconds)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b rates) int { return cmp.Compare(a.node.Node, b.node.Node) })
	return all
}

func (r *rates) compare(before, now engine.NodeCounters, seconds float64) {
	per := func(before, now uint64) float64 { return float64(now-min(before, now)) / seconds }
	r.known = true
	r.framesIn, r.framesOut = per(before.FramesIn, now.FramesIn), per(before.FramesOut, now.FramesOut)
	r.bytesIn, r.bytesOut = per(before.BytesIn, now.BytesIn), per(before.BytesOut, now.BytesOut)
	r.sends = per(before.Sends, now.Sends)
	r.outcomes = make(map[string]float64)
	for code, n := range now.Outcomes {
		if rate := per(before.Outcomes[code], n); rate > 0 {
			r.outcomes[code] = rate
		}
	}
}

// outcomesText lists the outcomes of a second, most frequent first.
func outcomesText(outcomes map[string]float64) string {
	codes := slices.SortedFunc(maps.Keys(outcomes), func(a, b string) int {
		return cmp.Or(cmp.Compare(outcomes[b], outcomes[a]), strings.Compare(a, b))
	})
	for i, code := range codes {
		codes[i] = code + " " + rateText(outcomes[code])
	}
	return strings.Join(codes, ", ")
}

// rateText returns a number with three digits or so, as in 12.3k.
func rateText(rate float64) string {
	switch {
	case rate >= 999_500:
		return fmt.Sprintf("%.1fM", rate/1e6)
	case rate >= 9_995:
		return fmt.Sprintf("%.1fk", rate/1e3)
	case rate >= 9.95 || rate == 0:
		return fmt.Sprintf("%.0f", rate)
	}
	return fmt.Sprintf("%.1f", rate)
}

// rateColumns are the table of relay top.
var rateColumns = []column[rates]{
	{"NODE", func(r rates) string { return r.node.Node }},
	{"STATE", func(r rates) string { return nodeState(r.node) }},
	{"CONNS", func(r rates) string { return fmt.Sprint(r.node.Conns) }},
	{"SESSIONS", func(r rates) string { return fmt.Sprint(r.node.Sessions) }},
	{"IDS", func(r rates) string { return fmt.Sprint(r.node.IDs) }},
	{"PENDING", func(r rates) string { return fmt.Sprint(r.node.Pending) }},
	{"SENDS/S", func(r rates) string { return r.text(r.sends) }},
	{"FRAMES IN/S", func(r rates) string { return r.text(r.framesIn) }},
	{"FRAMES OUT/S", func(r rates) string { return r.text(r.framesOut) }},
	{"BYTES IN/S", func(r rates) string { return r.size(r.bytesIn) }},
	{"BYTES OUT/S", func(r rates) string { return r.size(r.bytesOut) }},
	{"LINKS", func(r rates) string { return linksUp(r.node) }},
	{"LACKS", func(r rates) string { return counted(len(r.node.Degraded)) }},
	{"OUTCOMES/S", func(r rates) string { return outcomesText(r.outcomes) }},
}

func (r rates) text(rate float64) string {
	if !r.known {
		return ""
	}
	return rateText(rate)
}

func (r rates) size(rate float64) string {
	if !r.known {
		return ""
	}
	return sizeText(int64(rate))
}
