package engine

import (
	"slices"
)

// reports remembers which failed sends without ack a connection has heard of. So it hears of each
// at most once, although the receiver of a message may return it as often as it likes. It remembers
// only failures, one bit each. The numbers of such sends count up (docs/protocol.md), so most
// failures share a page with others.
type reports struct {
	pages map[uint64]*reportPage // by number / reportsPerPage
	// pages below are forgotten, and their failures are not reported any more
	below uint64
}

type reportPage [reportsPerPage / 64]uint64

const (
	reportsPerPage = 512
	// maxReportPages bounds the memory of one connection to 128 KiB with the map.
	maxReportPages = 1024
)

// first notes that a failure is about to be reported. It returns false if it was reported before,
// or if so many were reported since that the node has forgotten.
func (r *reports) first(seq uint64) bool {
	n := seq / reportsPerPage
	if n < r.below {
		return false
	}
	page := r.pages[n]
	if page == nil {
		if len(r.pages) >= maxReportPages {
			r.forget()
			return r.first(seq)
		}
		if r.pages == nil {
			r.pages = make(map[uint64]*reportPage)
		}
		page = new(reportPage)
		r.pages[n] = page
	}
	word, bit := &page[seq%reportsPerPage/64], uint64(1)<<(seq%64)
	told := *word&bit != 0
	*word |= bit
	return !told
}

// forget drops the lower half of the pages.
func (r *reports) forget() {
	all := make([]uint64, 0, len(r.pages))
	for n := range r.pages {
		all = append(all, n)
	}
	slices.Sort(all)
	for _, n := range all[:len(all)/2] {
		delete(r.pages, n)
	}
	r.below = all[len(all)/2]
}

// report notifies the connection that a send without ack has failed, unless it has heard so before.
func (s *sender) report(n *note) {
	if s.reports == nil {
		s.reports = new(reports)
	}
	if s.reports.first(n.seq) {
		s.outcome(n.seq, n.code, nil, nil)
	}
}
