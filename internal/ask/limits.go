package ask

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"distmsg/engine"
)

// hitsShown is how many pairs of an identity and a limit relay top shows.
const hitsShown = 5

// hit is a limit that an identity reaches. Identities have the same limits at each node.
type hit struct {
	identity, limit string
	other           bool // all identities that a node does not name one by one
}

// hitsOf returns how often a second limits were reached between two samples, at all nodes together.
func hitsOf(before, now sample) map[hit]float64 {
	seconds := now.At.Sub(before.At).Seconds()
	hits := make(map[hit]float64)
	for _, r := range ratesOf(before, now) {
		if !r.known {
			continue
		}
		former := slices.IndexFunc(before.Nodes.Answers, func(o engine.NodeInfo) bool { return o.Node == r.node.Node })
		was := make(map[hit]uint64)
		for _, l := range before.Nodes.Answers[former].Limits {
			was[hit{l.Identity, l.Limit, l.Other}] = l.Times
		}
		for _, l := range r.node.Limits {
			h := hit{l.Identity, l.Limit, l.Other}
			if n := l.Times - min(was[h], l.Times); n > 0 {
				hits[h] += float64(n) / seconds
			}
		}
	}
	return hits
}

// hitsText is a line that says who reaches which limits, and how often a second. It is empty if
// nobody does.
func hitsText(hits map[hit]float64) string {
	if len(hits) == 0 {
		return ""
	}
	order := slices.SortedFunc(maps.Keys(hits), func(a, b hit) int {
		return cmp.Or(cmp.Compare(hits[b], hits[a]), strings.Compare(a.identity, b.identity), strings.Compare(a.limit, b.limit))
	})
	var texts []string
	for _, h := range order[:min(hitsShown, len(order))] {
		who := visible(h.identity)
		switch {
		case h.other:
			who = "(others)"
		case who == "":
			who = "(no name)"
		}
		texts = append(texts, fmt.Sprintf("%s %s %s/s", who, visible(h.limit), rateText(hits[h])))
	}
	if more := len(order) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("%d more", more))
	}
	return "limits reached: " + strings.Join(texts, ", ") + "\n"
}
