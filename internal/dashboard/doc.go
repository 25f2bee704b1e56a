// Package dashboard is the page that shows an operator a cluster: the nodes and their links, what
// is wrong and what to do, what messages did in the last ten minutes, who is slow, and where an ID
// is. [Page] serves its files, and [Feed] what it shows, live. The page gets all else from the
// admin API, which internal/admin serves beside it.
//
// The node whose page it is asks the others through the operator's questions. What was before is
// there as soon as the page opens, because each node remembers its own last ten minutes
// (engine.HistorySample), from counters, whether somebody looks or not. All else is asked only
// while a page is open: every second, once for all pages together.
package dashboard
