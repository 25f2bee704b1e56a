// Package dashboard is the page that shows an operator a cluster: the nodes and their links, what
// is wrong and what to do, the traffic of the last ten minutes, slow sessions, and where an ID is.
// [Page] serves the files of the page, and [Feed] looks at the cluster for it. The page asks the
// admin API (internal/admin) for everything else.
//
// The node that serves the page asks the other nodes through an engine.Operator. Each node keeps
// its own history of ten minutes (engine.HistorySample), even if nobody looks. So the page shows
// the past as soon as it opens. Everything else is asked while a page is open: once a second, for
// all pages together.
package dashboard
