package zookeeper

import (
	"fmt"
	"slices"
	"strings"
)

// Anyone who may write below the path can put invalid records there, or very many. They are left
// out and named, and do not affect the valid records.

const (
	// maxNodes bounds the znodes that are read. It leaves ample room, because clients receive at
	// most 1,024 nodes.
	maxNodes = 4096
	// maxNamed bounds the number of lines about znodes that are left out.
	maxNamed = 16
)

// choose returns the names of the znodes to read, at most maxNodes: this node's own and those that
// are known first.
func (k *keeper) choose(names []string) []string {
	k.beyond = max(0, len(names)-maxNodes)
	if k.beyond == 0 {
		return names
	}
	rank := func(name string) int {
		if _, mine := k.mine[name]; mine {
			return 0
		}
		if e, known := k.entries[name]; known && e.wrong == "" {
			return 1
		}
		return 2
	}
	slices.SortFunc(names, func(a, b string) int {
		if by := rank(a) - rank(b); by != 0 {
			return by
		}
		return strings.Compare(a, b)
	})
	return names[:maxNodes]
}

// tellSkipped names the znodes that are left out, once in the log, and in health as long as they
// exist.
func (k *keeper) tellSkipped(entries map[string]entry) {
	var lines, news []string
	for name, e := range entries {
		if e.wrong == "" {
			continue
		}
		line := fmt.Sprintf("%s is no valid record of a node: %s", k.path(name), e.wrong)
		lines = append(lines, line)
		if k.entries[name].wrong == "" {
			news = append(news, line)
		}
	}
	lines, news = some(lines), some(news)
	if k.beyond > 0 {
		lines = append(lines, fmt.Sprintf("%s has more than %d znodes: the node ignores %d of them", k.dir, maxNodes, k.beyond))
	}
	for _, line := range news {
		k.log.Warn("zookeeper: " + line)
	}
	if k.beyond > 0 && !k.overfull {
		k.log.Warn("zookeeper: " + lines[len(lines)-1])
	}
	k.overfull = k.beyond > 0
	k.m.report(func(s *status) { s.skipped = lines })
}

// some returns the first lines of many.
func some(lines []string) []string {
	slices.Sort(lines)
	if n := len(lines) - maxNamed; n > 0 {
		lines = append(lines[:maxNamed], fmt.Sprintf("and %d more like these", n))
	}
	return lines
}
